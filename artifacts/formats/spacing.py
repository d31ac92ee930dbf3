"""Repairs of text that was tokenized and joined by spaces, as jfleg's and c4_200m's sentences are: `ca n't .`
becomes `can't.`

llama-recipes' list of literal replacements also takes `" v"` to `"v"`, which turns "a very valuable" into
"averyvaluable"; here a repair is of punctuation and of the contractions that the Penn Treebank splits off.
"""

from __future__ import annotations

import re

from artifacts.formats.base import Record

_REPAIRS = [
    (re.compile(r" +([.,;:!?%)\]}]|\.\.\.)(?=[\s.,;:!?)\]}\"']|$)"), r"\1"),  # "end ." but not "a .5"
    (re.compile(r"([(\[{]) +(?=\S)"), r"\1"),
    (re.compile(r"(?<=\w) +(n't|N'T)(?![\w'’])"), r"\1"),
    (re.compile(r"(?<=\w) +(n’t|N’T)(?![\w'’])"), r"\1"),
    (re.compile(r"(?<=\w) +(['’](?:s|S|m|M|d|D|ll|LL|re|RE|ve|VE))(?![\w'’])"), r"\1"),
]


def fix_spacing(text: str) -> str:
    """`text` without the spaces before closing punctuation and contractions, and at its ends."""
    for pattern, replacement in _REPAIRS:
        text = pattern.sub(replacement, text)
    return text.strip(" ")


def fix_record(record: Record) -> Record:
    """The same of all that a record's messages, or its text, say."""
    if "text" in record:
        return {**record, "text": fix_spacing(record["text"])}
    messages = [{**message, "content": fix_spacing(message["content"])} for message in record["messages"]]
    return {**record, "messages": messages}
