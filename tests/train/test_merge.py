"""The streaming merge against PEFT's own `merge_and_unload`, made in the same process."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from artifacts.events import events_prefix
from artifacts.local import LocalStore
from artifacts.manifest import read_marker
from artifacts.segments import read_all
from tests.train.merging import SHARD_BYTES, merged, tensors
from train.stage import StageUserError


def llama(folder: Path, dtype: torch.dtype = torch.float32, *, tied: bool = False) -> Path:
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=160,
        hidden_size=48,
        intermediate_size=112,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        attention_bias=True,
    )
    LlamaForCausalLM(config).to(dtype).save_pretrained(folder, max_shard_size="80KB")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "modeling_own.py").write_text("# remote code")
    (folder / "kernels").mkdir()
    (folder / "kernels" / "fast.cu").write_text("// remote code")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "leftover.py").write_text("")
    return folder


def adapter(folder: Path, base: Path, **options: object) -> Path:
    """An adapter with random weights (PEFT starts B at zero, which would merge to nothing)."""
    kind = IA3Config if "feedforward_modules" in options else LoraConfig
    lora = {"r": 4, "lora_alpha": 12, "target_modules": "all-linear"} if kind is LoraConfig else {}
    options = {**lora, "task_type": "CAUSAL_LM", **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), kind(**options))
        generator = torch.Generator().manual_seed(2)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator) * 0.1
                from_zero = "lora" in name and "magnitude" not in name
                parameter.data.copy_(noise if from_zero else parameter.data + noise.to(parameter.dtype))
        model.save_pretrained(folder)
    return folder


def peft_model(base: Path, trained: Path) -> PeftModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), trained)


def assert_same_bits(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype, name
        assert tensor.shape == theirs[name].shape, name
        assert torch.equal(
            tensor.contiguous().view(torch.uint8), theirs[name].contiguous().view(torch.uint8)
        ), name


OPTIONS = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "patterns": {
        "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.down_proj": 8},
        "alpha_pattern": {"v_proj": 3, "layers.0.self_attn.q_proj": 5},
    },
    "embedding": {"target_modules": ["embed_tokens", "q_proj"]},
    "head": {"target_modules": ["lm_head", "o_proj"]},
    "saved modules": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens"]},
    "biases": {"target_modules": ["q_proj", "k_proj"], "bias": "lora_only"},
    "dora": {"use_dora": True},
    "dora and rslora": {"use_dora": True, "use_rslora": True},
    "tokens": {"trainable_token_indices": {"embed_tokens": [3, 150], "lm_head": [3, 9, 150]}},
    "ia3": {
        "target_modules": ["k_proj", "v_proj", "down_proj"],
        "feedforward_modules": ["down_proj"],
    },
    "adapter bias": {"target_modules": ["q_proj", "v_proj"], "lora_bias": True},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_bits_equal_those_of_peft(tmp_path: Path, dtype: torch.dtype, options: dict[str, object]) -> None:
    base = llama(tmp_path / "base", dtype)
    trained = adapter(tmp_path / "adapter", base, **options)
    theirs = peft_model(base, trained).merge_and_unload()
    theirs.save_pretrained(tmp_path / "theirs")
    ours = tensors(merged(tmp_path, base, trained))
    assert_same_bits(ours, tensors(tmp_path / "theirs"))
    changed = [name for name, tensor in tensors(base).items() if not torch.equal(tensor, ours[name])]
    assert changed, "the adapter changed nothing: the comparison would prove nothing"


@pytest.mark.parametrize("options", [{}, {"trainable_token_indices": {"embed_tokens": [3, 150]}}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_bits_equal_those_of_peft_with_tied_embeddings(
    tmp_path: Path, dtype: torch.dtype, options: dict[str, object]
) -> None:
    base = llama(tmp_path / "base", dtype, tied=True)
    trained = adapter(tmp_path / "adapter", base, **options)
    peft_model(base, trained).merge_and_unload().save_pretrained(tmp_path / "theirs")
    folder = merged(tmp_path, base, trained)
    assert_same_bits(tensors(folder), tensors(tmp_path / "theirs"))
    assert json.loads((folder / "config.json").read_bytes())["tie_word_embeddings"] is True


def test_bits_equal_those_of_peft_for_transposed_weights(tmp_path: Path) -> None:
    """GPT-2's Conv1D keeps its weights as (in, out)."""
    GPT2LMHeadModel(
        GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=2, tie_word_embeddings=False)
    ).save_pretrained(tmp_path / "base")
    trained = adapter(tmp_path / "adapter", tmp_path / "base", target_modules=["c_attn", "c_fc", "c_proj"])
    peft_model(tmp_path / "base", trained).merge_and_unload().save_pretrained(tmp_path / "theirs")
    assert_same_bits(tensors(merged(tmp_path, tmp_path / "base", trained)), tensors(tmp_path / "theirs"))


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["lm_head", "q_proj"]},
        {"target_modules": ["embed_tokens", "q_proj"]},
        {"target_modules": ["embed_tokens", "lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    ],
    ids=["head", "embedding", "both", "saved head"],
)
def test_adapter_on_a_tied_head_is_untied(tmp_path: Path, options: dict[str, object]) -> None:
    """The shared tensor would take the change twice; merged, the model must compute what the adapter does."""
    base = llama(tmp_path / "base", tied=True)
    trained = adapter(tmp_path / "adapter", base, **options)
    folder = merged(tmp_path, base, trained)
    config = json.loads((folder / "config.json").read_bytes())
    assert config["tie_word_embeddings"] is False
    tokens = torch.arange(40).reshape(2, 20)
    with torch.inference_mode():
        expected = peft_model(base, trained)(tokens).logits
        logits = AutoModelForCausalLM.from_pretrained(folder)(tokens).logits
        untouched = AutoModelForCausalLM.from_pretrained(base)(tokens).logits
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert (untouched - expected).abs().max() > 0.05


def test_layout_and_companions(tmp_path: Path) -> None:
    base = llama(tmp_path / "base")
    folder = merged(tmp_path, base, adapter(tmp_path / "adapter", base))
    index = json.loads((folder / "model.safetensors.index.json").read_bytes())
    files = sorted(folder.glob("*.safetensors"))
    assert len(files) >= 8
    assert {file.name for file in files} == set(index["weight_map"].values())
    assert [file.name for file in files] == [
        f"model-{i:05d}-of-{len(files):05d}.safetensors" for i in range(1, len(files) + 1)
    ]
    for file in files:
        with safe_open(file, "pt") as opened:
            assert opened.metadata() == {"format": "pt"}
            assert all(index["weight_map"][name] == file.name for name in opened.keys())  # noqa: SIM118
            sizes = [opened.get_tensor(name).nbytes for name in opened.keys()]  # noqa: SIM118
        assert sum(sizes) <= SHARD_BYTES or len(sizes) == 1
    for companion in ("config.json", "chat_template.jinja", "modeling_own.py", "kernels/fast.cu"):
        assert (folder / companion).read_bytes() == (base / companion).read_bytes()
    assert not (folder / ".cache").exists()
    marker = read_marker(LocalStore(tmp_path / "store"), "merged/k")
    assert marker is not None
    assert marker.facts["parameters"] == sum(tensor.numel() for tensor in tensors(base).values())
    rows = list(read_all(LocalStore(tmp_path / "store"), events_prefix("run")))
    assert rows[-1] | {"time_s": 0} == {
        "time_s": 0,
        "stage": "merge",
        "kind": "progress",
        "done": len(files),
        "total": len(files),
        "unit": "shards",
    }


def test_merging_an_adapter_that_does_nothing_changes_nothing(tmp_path: Path) -> None:
    base = llama(tmp_path / "base")
    trained = adapter(tmp_path / "adapter", base)
    weights = load_file(trained / "adapter_model.safetensors")
    save_file(
        {name: torch.zeros_like(w) for name, w in weights.items()}, trained / "adapter_model.safetensors"
    )
    assert_same_bits(tensors(merged(tmp_path, base, trained)), tensors(base))


def test_full_training_is_sharded_again_in_the_dtype_of_the_base(tmp_path: Path) -> None:
    base = llama(tmp_path / "base", torch.bfloat16, tied=True)
    trained = {name: tensor.float() + 0.25 for name, tensor in tensors(base).items()}
    (tmp_path / "final").mkdir()
    save_file(trained, tmp_path / "final" / "model.safetensors", metadata={"format": "pt"})
    ours = tensors(merged(tmp_path, base, tmp_path / "final"))
    assert_same_bits(ours, {name: tensor.bfloat16() for name, tensor in trained.items()})


def test_full_training_of_another_model_is_refused(tmp_path: Path) -> None:
    base = llama(tmp_path / "base")
    weights = tensors(base)
    weights["model.norms.weight"] = weights.pop("model.norm.weight")
    (tmp_path / "final").mkdir()
    save_file(weights, tmp_path / "final" / "model.safetensors")
    with pytest.raises(StageUserError, match=r"base model does not have model\.norms\.weight"):
        merged(tmp_path, base, tmp_path / "final")


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def pickled(base: Path, trained: Path) -> None:
    torch.save(load_file(trained / "adapter_model.safetensors"), trained / "adapter_model.bin")
    (trained / "adapter_model.safetensors").unlink()


def rename_a_key(base: Path, trained: Path) -> None:
    weights = load_file(trained / "adapter_model.safetensors")
    save_file(
        {name.replace("layers.2", "layers.9"): weight for name, weight in weights.items()},
        trained / "adapter_model.safetensors",
    )


def drop_a_matrix(base: Path, trained: Path) -> None:
    weights = load_file(trained / "adapter_model.safetensors")
    weights.pop(next(name for name in weights if ".lora_B." in name))
    save_file(weights, trained / "adapter_model.safetensors")


def cut_short(base: Path, trained: Path) -> None:
    file = sorted(base.glob("*.safetensors"))[0]
    file.write_bytes(file.read_bytes()[:-100])


def lose_a_file(base: Path, trained: Path) -> None:
    sorted(base.glob("*.safetensors"))[0].unlink()


def quantize(base: Path, trained: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "gptq"}}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (pickled, "pickled adapter"),
        (lambda base, trained: edit_config(trained, use_qalora=True), "use_qalora"),
        (lambda base, trained: edit_config(trained, peft_type="PREFIX_TUNING"), "type PREFIX_TUNING"),
        (lambda base, trained: edit_config(trained, init_lora_weights="pissa"), "pissa"),
        (rename_a_key, r"layers\.9.*does not have.*nearest is model\.layers\.[012]"),
        (drop_a_matrix, "no lora_B"),
        (cut_short, "cut short"),
        (lose_a_file, "lacks model-00001"),
        (quantize, "quantized"),
    ],
    ids=[
        "pickle",
        "qalora",
        "prefix",
        "pissa",
        "unknown key",
        "missing matrix",
        "cut",
        "missing file",
        "quantized",
    ],
)
def test_what_cannot_be_merged_is_refused_before_anything_is_written(
    tmp_path: Path, damage: object, message: str
) -> None:
    base = llama(tmp_path / "base")
    trained = adapter(tmp_path / "adapter", base)
    damage(base, trained)
    with pytest.raises(StageUserError, match=message):
        merged(tmp_path, base, trained)
    assert not (tmp_path / "store" / "merged").exists()


MEASURED_MERGE = """
import resource, sys
from pathlib import Path
import torch
from artifacts.contract import MergeParams
from artifacts.local import LocalStore
from artifacts.manifest import ArtifactWriter
from train.merging.writing import write_merged
from train.merging import adapter, layout, tensors

def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

folder = Path(sys.argv[1])
torch.ones(64, 64) @ torch.ones(64, 64)  # loads the kernels
before = peak_bytes()
merged, _ = layout.with_adapter(tensors.model_tensors(folder), adapter.read_adapter(folder / "adapter"))
params = MergeParams(max_shard_size_bytes=42_000_000)
write_merged(ArtifactWriter(LocalStore(folder / "store"), "merged/k"), folder, merged, params)
print(peak_bytes() - before)
"""


def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    """A model of 420 MB in 10 shards; above what importing torch takes, a few tensors of 21 MB are held."""
    names = [f"model.layers.{layer}.mlp.up_proj" for layer in range(20)]
    weight = torch.zeros(5120, 2048, dtype=torch.bfloat16)
    for half in range(2):
        part = {f"{name}.weight": weight for name in names[half::2]}
        save_file(
            {name: tensor.clone() for name, tensor in part.items()}, tmp_path / f"part-{half}.safetensors"
        )
    weight_map = {f"{name}.weight": f"part-{index % 2}.safetensors" for index, name in enumerate(names)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (tmp_path / "adapter").mkdir()
    matrices = {"lora_A": torch.ones(8, 2048), "lora_B": torch.ones(5120, 8)}
    save_file(
        {f"base_model.model.{name}.{m}.weight": t.clone() for name in names for m, t in matrices.items()},
        tmp_path / "adapter" / "adapter_model.safetensors",
    )
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    command = [sys.executable, "-c", MEASURED_MERGE, str(tmp_path)]
    measured = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert int(measured.stdout) < 200_000_000
    shards = sorted((tmp_path / "store" / "merged" / "k").glob("*.safetensors"))
    assert len(shards) == 10
    assert torch.equal(load_file(shards[0])[f"{names[0]}.weight"], torch.full_like(weight, 16.0))
