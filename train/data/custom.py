"""A user's Python file as a data set: `get_custom_dataset(dataset_config, tokenizer, split)`, the convention
of llama-recipes (https://github.com/meta-llama/llama-cookbook, `datasets/custom_dataset.py`).

Its code runs in a process of its own, so that neither what it prints, nor how it ends, touches the stage. Its
items are documents (`input_ids`, `labels`), conversations (`messages`) or texts (`text`).
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from artifacts.contract import IGNORED_LABEL
from train.data.records import Record
from train.data.resolve import ResolvedTokenizer
from train.data.tokenize import Document
from train.stage import StageUserError

CUSTOM_FILE = "custom.py"  # in the data stage's artifact
FUNCTION = "get_custom_dataset"
#: What llama-recipes calls the splits.
_SPLITS = {"train": "train", "eval": "validation", "test": "test"}
_ROOT = Path(__file__).resolve().parents[2]


def custom_items(
    file: Path, resolved: ResolvedTokenizer, split: str, *, shown_as: str
) -> Iterator[Record | Document]:
    """The items of the file's data set, checked. `shown_as`: its path as the user knows it.

    Raises StageUserError with line and exception where the code raises, and with the number of an item that
    is none.
    """
    advice = f"mend {Path(shown_as).name}"
    vocabulary = resolved.chat.backend.get_vocab_size()
    for number, row in enumerate(_rows(file, resolved.folder, split), 1):
        if "error" in row:
            raise StageUserError(f"{shown_as}: {row['error']}", advice)
        try:
            yield _checked(row["item"], vocabulary)
        except ValueError as error:
            raise StageUserError(f"{shown_as}: {split} item {number}: {error}", advice) from None


def _rows(file: Path, tokenizer: Path, split: str) -> Iterator[dict[str, Any]]:
    """What the process tells, line by line: an item, or how it failed."""
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "train.data.custom", file, tokenizer, _SPLITS[split], str(writing)]
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        command, pass_fds=[writing], stdin=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": path}
    )
    os.close(writing)
    try:
        with os.fdopen(reading, encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                if "end" in row:
                    return
                yield row
        yield {"error": f"the process ended amid {FUNCTION}, with status {process.wait()}"}
    finally:
        process.kill()
        process.wait()


def _checked(item: Any, vocabulary: int) -> Record | Document:
    """Raises ValueError saying what is wrong."""
    if not isinstance(item, dict):
        raise ValueError(f"not a dictionary but {type(item).__name__}")
    if "input_ids" in item:
        return _document(item, vocabulary)
    if isinstance(item.get("text"), str):
        return {"text": item["text"]}
    messages = item.get("messages")
    if not isinstance(messages, list) or not messages:
        keys = ", ".join(map(str, item)) or "nothing"
        raise ValueError(f"it has {keys}; wanted: input_ids and labels, messages, or text")
    for position, message in enumerate(messages, 1):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise ValueError(f"message {position} has no role")
        if not isinstance(message.get("content"), str):
            raise ValueError(f"message {position} has no content")
    return {key: item[key] for key in ("messages", "tools") if item.get(key)}


def _document(item: dict[str, Any], vocabulary: int) -> Document:
    """What the attention mask hides is padding, and left out."""
    columns = {}
    for name in ("input_ids", "labels", "attention_mask"):
        values = item.get(name)
        if values is None and name == "attention_mask":
            continue
        if not isinstance(values, list) or not all(type(value) is int for value in values):
            raise ValueError(f"{name} is no list of whole numbers")
        columns[name] = np.array(values, np.int64)
    if len({len(column) for column in columns.values()}) > 1:
        sizes = ", ".join(f"{len(column)} {name}" for name, column in columns.items())
        raise ValueError(f"of unequal lengths: {sizes}")
    real = columns.get("attention_mask", np.ones(len(columns["input_ids"]))) != 0
    input_ids, labels = columns["input_ids"][real], columns["labels"][real]
    for name, values in (("input_ids", input_ids), ("labels", labels[labels != IGNORED_LABEL])):
        if len(values) and not 0 <= values.min() <= values.max() < vocabulary:
            raise ValueError(f"{name} has ids outside the vocabulary of {vocabulary}")
    if not len(input_ids):
        raise ValueError("it has no tokens")
    return Document(input_ids.astype(np.int32), labels.astype(np.int32))


def main(argv: list[str]) -> None:
    """In the process: write an item a line to the file descriptor, then `end`, or the error."""
    file, tokenizer, split, descriptor = argv
    with os.fdopen(int(descriptor), "w", encoding="utf-8") as out:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # its own words go to the stage's log
        try:
            for item in _items(file, tokenizer, split):
                out.write(json.dumps({"item": item}, ensure_ascii=False, default=_plain) + "\n")
        except BrokenPipeError:  # enough
            os._exit(0)
        except BaseException as error:
            out.write(json.dumps({"error": _describe(error, file)}) + "\n")
            traceback.print_exc()
        else:
            out.write('{"end": true}\n')


def _items(file: str, folder: str, split: str) -> Iterable[Any]:
    spec = importlib.util.spec_from_file_location("custom_dataset", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules["custom_dataset"] = module
    spec.loader.exec_module(module)
    from transformers import AutoTokenizer

    config = SimpleNamespace(
        dataset="custom_dataset", file=file, train_split="train", test_split="validation", data_path=""
    )
    items = getattr(module, FUNCTION)(config, AutoTokenizer.from_pretrained(folder), split)
    if not hasattr(items, "__iter__") and hasattr(items, "__len__"):  # a map-style torch Dataset
        return (items[index] for index in range(len(items)))
    return items


def _plain(value: Any) -> Any:
    """JSON for tensors, arrays and mappings of the libraries' own."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return dict(value) if hasattr(value, "keys") else str(value)


def _describe(error: BaseException, file: str) -> str:
    """`line 7: ValueError: …`, the line that of the file where there is one."""
    frames = traceback.extract_tb(error.__traceback__)
    line = next((frame.lineno for frame in reversed(frames) if frame.filename == file), None)
    what = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    return f"line {line}: {what}" if line else what


if __name__ == "__main__":
    main(sys.argv[1:])
