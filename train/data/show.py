"""`python -m train.data.show FILE …`: what `prepare` makes of a data file's first records, token by token.

Prints one JSON object a record; `slipway data show` shows it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from artifacts.contract import EXIT_DONE, EXIT_USER_ERROR, IGNORED_LABEL, TemplateParams, TrainOn
from artifacts.formats import FORMATS
from artifacts.records import BadRecord, DataFileError, RecordFile
from train.data.custom import custom_items
from train.data.named_templates import NAMED
from train.data.records import Record
from train.data.resolve import ResolvedTokenizer, resolve_tokenizer
from train.data.templates import TemplateError
from train.data.tokenize import Document
from train.stage import StageUserError

_CONTEXT_TOKENS = 8  # decoded before a token, which may look different at the start of a text
_UNFINISHED = "\ufffd"  # the character for bytes that are none yet


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m train.data.show", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--format", choices=["auto", *FORMATS], default="auto", help="record format")
    parser.add_argument("--tokenizer", type=Path, required=True, help="model folder")
    parser.add_argument("--template", help="name, or a file with a Jinja template; else the tokenizer's own")
    parser.add_argument("--train-on", choices=typing.get_args(TrainOn), default="assistant")
    parser.add_argument("-n", dest="count", type=int, default=3, help="records")
    options = parser.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as folder:
            resolved = resolve_tokenizer(
                options.tokenizer,
                template_params(options.template),
                Path(folder) / "tokenizer",
                train_on=options.train_on,
            )
            records = read(options.file, options.format, resolved)
            for shown in show(itertools.islice(records, options.count), resolved):
                print(json.dumps(shown, ensure_ascii=False), flush=True)
    except (StageUserError, DataFileError) as error:
        print(error, file=sys.stderr)
        return EXIT_USER_ERROR
    return EXIT_DONE


def template_params(template: str | None) -> TemplateParams:
    """Raises StageUserError for what is neither a name nor a file."""
    if template is None:
        return TemplateParams()
    if template in NAMED:
        return TemplateParams(name=template)
    try:
        return TemplateParams(jinja=Path(template).read_text(encoding="utf-8"))
    except (OSError, UnicodeError) as error:
        names = ", ".join(sorted(NAMED))
        raise StageUserError(
            f"--template {template}: no name of a template, and no file with one ({error})",
            f"use one of {names}, or a file of your own",
        ) from None


def read(file: Path, format: Any, resolved: ResolvedTokenizer) -> Iterator[Record | Document]:
    """The file's records. Raises StageUserError at a bad one."""
    records = RecordFile(file, format)
    if records.format == "custom":
        yield from custom_items(file, resolved, "train", shown_as=str(file))
    for item in records:
        if isinstance(item, BadRecord):
            raise StageUserError(f"{file}: {item.place}: {item.reason}", "")
        yield item.record


def show(records: Iterator[Record | Document], resolved: ResolvedTokenizer) -> Iterator[dict[str, Any]]:
    """Of each record `segments` (runs of learnt and other text), `tokens` (text of each, "" where it takes
    several to make a character), `input_ids` and `labels`. Raises StageUserError where the template refuses
    one."""
    for number, document in enumerate(resolved.chat.encode(records), 1):
        if isinstance(document, TemplateError):
            raise StageUserError(f"record {number}: {document}", "")
        tokens = token_texts(resolved.chat.backend, document.input_ids.tolist())
        labels = document.labels.tolist()
        runs = itertools.groupby(zip(tokens, labels, strict=True), key=lambda pair: pair[1] != IGNORED_LABEL)
        yield {
            "segments": [
                {"text": "".join(text for text, _ in run), "learnt": learnt} for learnt, run in runs
            ],
            "tokens": tokens,
            "input_ids": document.input_ids.tolist(),
            "labels": labels,
        }


def token_texts(backend: Tokenizer, ids: list[int]) -> list[str]:
    """What each token adds to the text."""
    texts: list[str] = []
    start = 0  # of the tokens that have made no character yet
    for stop in range(1, len(ids) + 1):
        before = ids[max(start - _CONTEXT_TOKENS, 0) : start]
        known = backend.decode(before, skip_special_tokens=False) if before else ""
        text = backend.decode(before + ids[start:stop], skip_special_tokens=False)[len(known) :]
        if text.endswith(_UNFINISHED) and stop < len(ids) and stop - start < 4:  # UTF-8's longest
            texts.append("")
            continue
        texts.append(text)
        start = stop
    return texts


if __name__ == "__main__":
    sys.exit(main())
