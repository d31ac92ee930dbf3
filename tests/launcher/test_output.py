"""`launcher.commands.output`: YAML that every parser reads back as what was written."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml  # PyYAML: YAML 1.1, as kubectl's parser
from ruamel.yaml import YAML

from launcher.backends.manifest import run_objects
from launcher.commands.output import to_yaml
from tests.launcher.kubernetes_plans import CPU, GPU, IMAGES, kubernetes_plan


def read_back(text: str) -> list[Any]:
    old = list(yaml.safe_load_all(text))
    assert old == list(YAML(typ="safe", pure=True).load_all(text))
    return old


@pytest.mark.parametrize("profile", [CPU, GPU], ids=["cpu", "gpu"])
def test_the_objects_of_a_run(profile: dict[str, Any]) -> None:
    objects = run_objects(kubernetes_plan(profile), "bot-1a2b3c4d", IMAGES)
    text = to_yaml(objects)
    assert read_back(text) == objects
    assert "\nkind: Job\n" in text and "name: slipway-pilot-bot-1a2b3c4d\n" in text


TRICKY = [
    *("yes", "No", "on", "null", "~", "1e3", "0o17", "0x1f", "12:30:45", "2026-11-21", "1_000", ".inf", "y"),
    *(
        "",
        " lead",
        "trail ",
        "a: b",
        "- a",
        "#no",
        "*a",
        "&a",
        "!t",
        "%d",
        "@x",
        "`x",
        "{a}",
        "[a]",
        "'",
        '"',
    ),
    *("two\nlines", "tab\t", "\\n", "é", "漢字", "😀", "\x7f\x85\u2028\ufeff", "\x00"),
]


@pytest.mark.parametrize("text", TRICKY, ids=[json.dumps(text) for text in TRICKY])
def test_any_text_as_value_and_as_key(text: str) -> None:
    value = {"value": text, text: {text: [text, [text, {text: text}]]}}
    assert read_back(to_yaml([value])) == [value]


def test_numbers_truth_and_nothing() -> None:
    value = {"a": [1, -2.5, True, None, {}, []], "b": {"c": {}, "d": []}, "e": [[1, 2], [{"x": 1, "y": [3]}]]}
    assert read_back(to_yaml([value, {"second": 1}])) == [value, {"second": 1}]
