"""How others load what is published, as commands and lines of code for the card."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from artifacts.contract import Product
from launcher.publishing import writing
from launcher.publishing.target import Target
from launcher.publishing.writing import Markup

Snippet = tuple[str, Markup]  # (with what, a block of code)


def snippets(
    target: Target, where: Mapping[Product, str], paths: Sequence[str], base_name: str | None, name: str
) -> list[Snippet]:
    """For each product in turn. A bucket's place is not told: its snippets name a folder with a copy."""
    on_hub = target.kind == "hub"
    place = target.name if on_hub else f"path/to/{name}"
    has_code = any(path.endswith(".py") for path in paths)
    found: list[Snippet] = []
    for product, folder in where.items():
        if product in ("model", "quantized"):
            found += _whole(product, place, folder, on_hub=on_hub, has_code=has_code, name=name)
        elif product == "adapter":
            found.append(_adapter(place, folder, base_name, has_code=has_code))
        else:
            files = sorted(path for path in paths if path.startswith(folder) and path.endswith(".gguf"))
            has_modelfile = f"{folder}Modelfile" in paths
            found += _gguf(place, folder, files, on_hub=on_hub, has_modelfile=has_modelfile, name=name)
    return found


def _whole(
    product: Product, place: str, folder: str, *, on_hub: bool, has_code: bool, name: str
) -> Iterator[Snippet]:
    options = _options(folder, has_code)
    yield (
        "transformers, with gptqmodel and optimum" if product == "quantized" else "transformers",
        writing.block(
            f"""\
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({_text(place)}{options})
model = AutoModelForCausalLM.from_pretrained({_text(place)}{options}, dtype="auto", device_map="auto")
messages = [{{"role": "user", "content": "Hello!"}}]
options = {{"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True}}
inputs = tokenizer.apply_chat_template(messages, **options)
answer = model.generate(**inputs.to(model.device), max_new_tokens=256)
print(tokenizer.decode(answer[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))""",
            "python",
        ),
    )
    trust = " --trust-remote-code" if has_code else ""
    if folder and on_hub:  # vLLM reads no sub-folder of a repository
        lines = f"{_download(place, folder, name)}\nvllm serve {name}/{folder.rstrip('/')}{trust}"
    else:
        lines = f"vllm serve {place}{'/' + folder.rstrip('/') if folder else ''}{trust}"
    yield "vLLM", writing.block(lines, "sh")


def _adapter(place: str, folder: str, base_name: str | None, *, has_code: bool) -> Snippet:
    base = _text(base_name) if base_name else '"path/to/the/base/model"'
    options = _options(folder, has_code)
    return (
        "PEFT",
        writing.block(
            f"""\
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({_text(place)}{options})
base = AutoModelForCausalLM.from_pretrained({base}, dtype="auto", device_map="auto")
base.resize_token_embeddings(max(len(tokenizer), base.get_input_embeddings().num_embeddings))
model = PeftModel.from_pretrained(base, {_text(place)}{_options(folder, False)})""",
            "python",
        ),
    )


def _gguf(
    place: str, folder: str, files: Sequence[str], *, on_hub: bool, has_modelfile: bool, name: str
) -> Iterator[Snippet]:
    fetch = f"{_download(place, folder, name)}\n" if on_hub else ""
    here = name if on_hub else place
    if files:
        usual = next((path for path in files if "q4_k_m" in path), files[0])
        yield "llama.cpp", writing.block(f"{fetch}llama-cli -m {here}/{usual}", "sh")
    if has_modelfile:
        inside = f"{here}/{folder}".rstrip("/")
        yield (
            "Ollama",
            writing.block(f"{fetch}cd {inside}\nollama create {name} -f Modelfile\nollama run {name}", "sh"),
        )


def _download(place: str, folder: str, name: str) -> str:
    include = f' --include "{folder}*"' if folder else ""
    return f"hf download {place}{include} --local-dir {name}"


def _options(folder: str, has_code: bool) -> str:
    chosen = f", subfolder={_text(folder.rstrip('/'))}" if folder else ""
    return chosen + (", trust_remote_code=True" if has_code else "")


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
