"""llama.cpp's converter, run in a process of its own (`train.child`)."""

from __future__ import annotations

import importlib
import importlib.util
import json
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from train.stage import StageError, StageUserError

#: The package that `images/llama-cpp/build-wheel` makes of the converter's files.
PACKAGE = "llama_cpp_converter"
SCRIPT = "convert_hf_to_gguf.py"
#: What to do where llama.cpp is missing.
ADVICE = "run `make gguf` (on a cluster: image: {gguf: true} in its profile)"


def converter_folder() -> Path:
    """Where the converter is installed. Raises StageUserError where it, or llama.cpp, is not."""
    for name in (PACKAGE, "llama_cpp"):
        if importlib.util.find_spec(name) is None:
            raise StageUserError("llama.cpp is not installed here", ADVICE)
    found = importlib.util.find_spec(PACKAGE)
    assert found is not None and found.submodule_search_locations
    return Path(found.submodule_search_locations[0])


def convert(converter: Path, model: Path, output: Path, declared: str | None, name: str) -> None:
    """Write `output`, 16 bits a weight, tensor by tensor. `declared`: the pre-tokenizer (llama.cpp's name) of
    a vocabulary that the converter does not know by its hash. Raises StageError. Changes this process for
    good: its modules and arguments."""
    sys.path[:0] = [str(converter), str(converter / "gguf-py")]
    for module in [each for each in sys.modules if each.split(".")[0] == "gguf"]:
        del sys.modules[module]  # the converter goes with its own
    base = importlib.import_module("conversion.base")
    _declare(base.TextModel, declared)
    _score(base.gguf.LlamaHfVocab, json.loads((model / "tokenizer.json").read_bytes()))
    sys.argv = [SCRIPT, "--outtype", "f16", "--outfile", str(output), "--model-name", name, str(model)]
    try:
        runpy.run_path(str(converter / SCRIPT), run_name="__main__")
    except SystemExit as ending:
        if ending.code:
            raise StageError(f"{SCRIPT} ended with {ending.code}", "see the stage's log") from ending


def _declare(text_model: Any, declared: str | None) -> None:
    """Have the converter take the declared pre-tokenizer where it knows none."""
    known = text_model.get_vocab_base_pre

    def name_of(self: Any, tokenizer: Any) -> str:
        try:
            return known(self, tokenizer)
        except NotImplementedError:
            if declared:
                return declared
            raise StageUserError(
                "how the tokenizer splits text is not known to llama.cpp",
                "leave gguf out of `after`, or name llama.cpp's pre-tokenizer as `pre_tokenizer` in the "
                "model's tokenizer_config.json",
            ) from None

    text_model.get_vocab_base_pre = name_of


def _score(vocabulary: Any, tokenizer: Mapping[str, Any]) -> None:
    """Give the tokens of a SentencePiece vocabulary without its tokenizer.model the order of their merges:
    the converter has a constant there, with which llama.cpp would merge from the left."""
    scores = merge_scores(tokenizer)
    vocabulary.get_token_score = lambda self, token: scores.get(token, -1000.0)


def merge_scores(tokenizer: Mapping[str, Any]) -> dict[int, float]:
    """Token id -> minus the rank of the first merge that makes it, as SentencePiece scores its BPE."""
    model = tokenizer["model"]
    scores: dict[int, float] = {}
    for rank, merge in enumerate(model.get("merges", ())):
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        token = model["vocab"].get(left + right)
        if token is not None:
            scores.setdefault(token, -float(rank))
    return scores
