"""The stage `quantize`: what it chooses, refuses and reports, and gptqmodel's weights in it."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from artifacts.contract import IGNORED_LABEL, QuantizeParams
from artifacts.local import LocalStore
from artifacts.manifest import is_complete, local_folder, read_marker, verify
from tests.train import gptq, quantizing, training
from tests.train.conftest import Ranks
from tests.train.quantizing import GROUP_SIZE
from train import quantize
from train.data.reader import PreparedSplit
from train.quantizing import documents, fitting, perplexity
from train.quantizing.documents import Document
from train.quantizing.perplexity import Fit
from train.stage import StageError, StageUserError

PARAMS = QuantizeParams(
    group_size=GROUP_SIZE, calibration_sequences=30, calibration_length=24, evaluation_sequences=20
)


def params(**changes: Any) -> QuantizeParams:
    return dataclasses.replace(PARAMS, **changes)


# -- what calibrates and what measures


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    return quantizing.write_prepared(tmp_path / "prepared")


def ids(found: list[Document]) -> list[list[int]]:
    return [document.input_ids.tolist() for document in found]


def test_packed_rows_are_cut_into_their_documents(prepared: Path) -> None:
    train, evaluation = PreparedSplit(prepared, "train"), PreparedSplit(prepared, "eval")
    choice = documents.choose(train, evaluation, params())
    learnt = {tuple(tokens[:24]) for tokens in quantizing.sentences(40, seed=2)}
    assert len(choice.calibration) == 30 and len({*map(tuple, ids(choice.calibration))}) == 30
    assert {*map(tuple, ids(choice.calibration))} < learnt
    assert choice.split == "eval"
    assert sorted(ids(choice.evaluation)) == sorted(quantizing.sentences(20, seed=3))
    assert all(each.learnt.tolist() == [False] * 16 + [True] * 16 for each in choice.evaluation)


def test_the_seed_decides(prepared: Path) -> None:
    train = PreparedSplit(prepared, "train")
    first, again, other = (documents.choose(train, None, params(seed=seed)) for seed in (0, 0, 1))
    assert ids(first.calibration) == ids(again.calibration)
    assert ids(first.calibration) != ids(other.calibration)


@pytest.mark.parametrize(("wanted", "calibrating", "measuring"), [(25, 25, 15), (30, 30, 10), (256, 32, 8)])
def test_without_an_evaluation_split_those_measure_that_did_not_calibrate(
    prepared: Path, wanted: int, calibrating: int, measuring: int
) -> None:
    wanted_params = params(calibration_sequences=wanted, calibration_length=32)
    choice = documents.choose(PreparedSplit(prepared, "train"), None, wanted_params)
    assert (len(choice.calibration), len(choice.evaluation)) == (calibrating, measuring)
    assert choice.split == "train"
    assert not {*map(tuple, ids(choice.calibration))} & {*map(tuple, ids(choice.evaluation))}


def test_an_empty_evaluation_split_is_none(tmp_path: Path, prepared: Path) -> None:
    training.write_split(tmp_path / "empty", "eval", [])
    choice = documents.choose(
        PreparedSplit(prepared, "train"), PreparedSplit(tmp_path / "empty", "eval"), params()
    )
    assert choice.split == "train"


def test_of_a_long_document_its_end_measures(tmp_path: Path) -> None:
    tokens = [1 + number % 90 for number in range(documents.EVALUATION_LENGTH + 7)]
    training.write_split(tmp_path, "train", [[(tokens, tokens)], [([5], [5])]])
    training.write_split(tmp_path, "eval", [[(tokens, [IGNORED_LABEL] * 9 + tokens[9:])]])
    choice = documents.choose(PreparedSplit(tmp_path, "train"), PreparedSplit(tmp_path, "eval"), params())
    assert ids(choice.evaluation) == [tokens[7:]]
    assert choice.evaluation[0].learnt.tolist()[:3] == [False, False, True]
    assert ids(choice.calibration) == [tokens[:24]]  # a single token teaches nothing


def test_one_sequence_is_too_few(tmp_path: Path) -> None:
    training.write_split(tmp_path, "train", [[([3, 4, 5], [3, 4, 5])]])
    with pytest.raises(StageUserError, match=r"holds 1 training sequences.*name data\.eval"):
        documents.choose(PreparedSplit(tmp_path, "train"), None, params())


# -- what is refused


def config(**fields: Any) -> Any:
    made = SimpleNamespace(model_type="some", **fields)
    return SimpleNamespace(**vars(made), get_text_config=lambda: made)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (config(quantization_config={"quant_method": "gptq"}), "quantized already"),
        (config(num_local_experts=8), "mixture of experts"),
        (config(n_routed_experts=64), "mixture of experts"),
        (config(num_experts=0), "no safetensors"),
    ],
)
def test_models_that_are_refused(tmp_path: Path, given: Any, reason: str) -> None:
    with pytest.raises(StageUserError, match=reason):
        fitting.check_model(tmp_path, given)


def test_layers_that_groups_do_not_divide_are_refused_before_anything_is_done(
    tmp_path: Path, prepared: Path
) -> None:
    model = training.write_model(tmp_path / "model")
    context = quantizing.context(tmp_path, model, prepared, params(group_size=128))
    reason = r"model\.layers\.0\..*_proj has \d+ (in|out)put channels"
    with pytest.raises(StageUserError, match=reason):
        quantize.run(context)
    assert not (tmp_path / "work").exists()


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "nobody-knows"}')
    with pytest.raises(StageUserError, match="can't build the model"):
        quantize.check(tmp_path, params())


# -- how the perplexity is measured


class Uniform(torch.nn.Module):
    """Finds all of `vocabulary` tokens as likely, but token 1, which it expects `times` as much."""

    def __init__(self, vocabulary: int, times: float) -> None:
        super().__init__()
        self.scores = torch.zeros(vocabulary)
        self.scores[1] = math.log(times)

    def forward(self, input_ids: torch.Tensor, use_cache: bool) -> Any:
        return SimpleNamespace(logits=self.scores.expand(*input_ids.shape, -1))


def test_the_perplexity_is_of_learnt_tokens_and_of_all() -> None:
    told: list[int] = []
    texts = [
        Document(np.array([3, 1, 1, 1]), np.array([True, True, False, False])),
        Document(np.array([1, 2]), np.array([True, True])),
    ]
    fit = perplexity.measure(Uniform(10, times=6), texts, told.append)
    assert told == [1, 2]
    assert (fit.learnt_tokens, fit.all_tokens) == (2, 4)
    assert fit.perplexity == pytest.approx((15 / 6 * 15) ** (1 / 2), rel=1e-5)
    assert fit.perplexity_of_all == pytest.approx(((15 / 6) ** 3 * 15) ** (1 / 4), rel=1e-5)


def test_where_nothing_is_learnt_all_tokens_count() -> None:
    assert Fit(0.0, 0, math.log(8) * 3, 3).perplexity == 8.0


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [(1.0, 1.0 + math.log(1.5), 0.5), (2.0, 2.0, 0.0), (1.0, 1e6, math.inf), (1e3, 1e3, 0.0)],
)
def test_increase(before: float, after: float, share: float) -> None:
    fits = (Fit(loss * 2, 2, loss * 2, 2) for loss in (before, after))
    assert perplexity.increase(*fits) == pytest.approx(share)


def test_a_perplexity_beyond_number_is_none() -> None:
    assert Fit(1e4, 1, 1e4, 1).perplexity is None


def pretend(monkeypatch: pytest.MonkeyPatch, before: float, after: float) -> None:
    """Have the stage find these mean losses instead of quantizing."""

    def run(doing: str, function: Any, *arguments: Any, **_: Any) -> Fit:
        loss = after if function is quantize._quantize else before
        if function is quantize._quantize:
            folder = arguments[1]
            folder.mkdir(parents=True)
            (folder / "model.safetensors").write_bytes(b"weights")
        return Fit(loss * 10, 10, loss * 10, 10)

    monkeypatch.setattr(quantize, "in_child", run)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = training.write_model(tmp_path / "model")
    written = json.loads((folder / "config.json").read_text())
    sizes = {"hidden_size": 64, "head_dim": 16}
    (folder / "config.json").write_text(json.dumps(written | sizes))
    return folder


def test_above_the_bound_nothing_is_committed(
    tmp_path: Path, model: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, before=1.0, after=1.0 + math.log(1.3))
    context = quantizing.context(tmp_path, model, prepared, params())
    with pytest.raises(StageError) as failure:
        quantize.run(context)
    assert "is 3.53377, before 2.71828: +30.0%, allowed is +25.0%" in failure.value.cause
    assert "bits: 8" in failure.value.advice and "desc_act: true" in failure.value.advice
    assert "smaller group_size" not in failure.value.advice  # there is none
    assert failure.value.exit_code != StageUserError.exit_code
    assert not is_complete(context.store, context.stage.output)


def test_a_broken_model_is_above_any_bound(
    tmp_path: Path, model: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, before=1.0, after=math.nan)
    with pytest.raises(StageError, match=r"is None, before 2\.71828"):
        quantize.run(quantizing.context(tmp_path, model, prepared, params(max_perplexity_increase=1e9)))


def test_what_is_found_goes_into_the_marker(
    tmp_path: Path, model: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, before=1.0, after=1.1)
    context = quantizing.context(tmp_path, model, prepared, params())
    quantize.run(context)
    facts = read_marker(context.store, context.stage.output).facts
    assert facts == {
        "bits": 4,
        "group_size": 32,
        "perplexity_before": 2.71828,
        "perplexity_after": 3.00417,
        "bytes_before": (model / "model.safetensors").stat().st_size,
        "bytes_after": 7,
    }


# -- gptqmodel's own weights


RUNS = {"4": {"bits": 4}, "8": {"bits": 8}, "again": {"bits": 4}}


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantizing.write_learnt(tmp_path_factory.mktemp("learnt"))


@pytest.fixture(scope="module")
def made(learnt: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder that each of RUNS works in, with the store `store`."""
    root = tmp_path_factory.mktemp("quantized")
    prepared = quantizing.write_prepared(root / "prepared")
    processes = {
        name: quantizing.start(root / name, learnt, prepared, params(**changes))
        for name, changes in RUNS.items()
    }
    for name, process in processes.items():
        process.join(240)
        assert process.exitcode == 0, (root / name / "log").read_text()
    return {name: root / name for name in RUNS}


def artifact(root: Path) -> Path:
    return local_folder(LocalStore(root / "store"), "quantized/k")


@pytest.mark.products
def test_the_folder_is_a_whole_model(learnt: Path, made: dict[str, Path]) -> None:
    assert verify(LocalStore(made["4"] / "store"), "quantized/k") == []
    folder = artifact(made["4"])
    for name in ("generation_config.json", "chat_template.jinja", "modeling_own.py"):
        assert (folder / name).read_bytes() == (learnt / name).read_bytes()
    before = json.loads((learnt / "config.json").read_text())
    after = json.loads((folder / "config.json").read_text())
    stored = after.pop("quantization_config")
    assert after == before | {"dtype": "bfloat16"}
    assert stored == json.loads((folder / "quantize_config.json").read_text())
    expected = {"bits": 4, "group_size": 32, "desc_act": False, "sym": True, "checkpoint_format": "gptq"}
    assert expected.items() <= stored.items()
    assert str(made["4"]) not in json.dumps(stored)


@pytest.mark.products
@pytest.mark.parametrize("bits", [4, 8])
def test_the_report(made: dict[str, Path], bits: int) -> None:
    report = quantizing.read_report(artifact(made[str(bits)]))
    assert report["bits"] == bits
    assert report["evaluation"] == {
        "split": "eval",
        "sequences": 20,
        "learnt_tokens": 20 * 16,
        "tokens": 20 * 31,
    }
    assert report["calibration"] == {"sequences": 30, "tokens": 30 * 24}
    assert 1 < report["perplexity_before"] < 8  # of 96 tokens: it has learnt something
    assert report["perplexity_after"] != report["perplexity_before"]
    assert report["perplexity_after"] < 1.25 * report["perplexity_before"]
    assert report["bytes_after"] < report["bytes_before"]


@pytest.mark.products
def test_the_same_inputs_and_seed_give_the_same_bytes(made: dict[str, Path]) -> None:
    first, again, other = (
        read_marker(LocalStore(made[name] / "store"), "quantized/k").files for name in ("4", "again", "8")
    )
    assert first == again != other


@pytest.mark.products
def test_it_compiles_nothing_and_leaves_nothing_behind(made: dict[str, Path]) -> None:
    for root in made.values():
        assert not list((root / "cwd").iterdir())
        assert not [path for path in (root / "home").rglob("*") if path.suffix in (".so", ".o", ".ninja")]
        log = (root / "log").read_text()
        assert "bits: perplexity" in log
        assert "INFO" not in log and "\r" not in log


@pytest.mark.products
def test_gptq_is_nearer_than_rounding_and_8_bits_nearer_than_4(
    learnt: Path, made: dict[str, Path], ranks: Ranks, tmp_path: Path
) -> None:
    """By how likely the quantized models find what the model itself expects, and the artifact alone loads."""
    folders = {
        "rounded": gptq.write_gptq(learnt, tmp_path / "rounded"),
        "4": artifact(made["4"]),
        "8": artifact(made["8"]),
    }
    divergence = ranks(1, divergences, learnt, folders, quantizing.sentences(40, seed=4))[0]
    assert divergence["8"] < divergence["4"] < divergence["rounded"]


def divergences(base: Path, folders: dict[str, Path], texts: list[list[int]]) -> dict[str, float]:
    """Mean Kullback-Leibler divergence of each model's next tokens from the base's."""
    from torch.nn.functional import kl_div
    from transformers import AutoModelForCausalLM

    from train import lean_peft
    from train.quantizing.kernels import loading_config

    lean_peft.prepare("gptq")

    @torch.no_grad()
    def expected(folder: Path) -> torch.Tensor:
        stored = json.loads((folder / "config.json").read_text()).get("quantization_config")
        how = {"quantization_config": loading_config(stored)} if stored else {}
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **how).eval()
        return model(input_ids=torch.tensor(texts)).logits.log_softmax(-1)

    truth = expected(base)
    return {
        name: float(kl_div(expected(folder), truth, log_target=True, reduction="sum"))
        for name, folder in folders.items()
    }


@pytest.mark.products
def test_lora_trains_on_either(made: dict[str, Path], ranks: Ranks, tmp_path: Path) -> None:
    job = training.params(
        method="lora",
        lora=training.LORA,
        quantization="gptq",
        world_size=1,
        steps=6,
        micro_batch_size=8,
        learning_rate=2e-2,
    )
    prepared = tmp_path / "prepared"  # of a language that the model has not learnt
    training.write_split(prepared, "train", [[document] for document in training.documents(16)])
    folders = {bits: artifact(made[bits]) for bits in ("4", "8")}
    losses = ranks(1, train_each, tmp_path, folders, prepared, job)[0]
    for bits in folders:
        assert losses[bits][-1] < losses[bits][0], bits


def train_each(root: Path, folders: dict[str, Path], prepared: Path, job: Any) -> dict[str, list[float]]:
    return {
        bits: [row["loss"] for row in training.train_and_read(root / bits, folder, prepared, job)]
        for bits, folder in folders.items()
    }
