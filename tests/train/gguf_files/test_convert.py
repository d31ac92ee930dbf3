"""Of the converter what can be seen without llama.cpp."""

from __future__ import annotations

import sys

import pytest

from launcher.images import llama_cpp
from launcher.machine import CONVERTER
from train.gguf_files import convert
from train.stage import StageUserError


def test_all_rooms_call_the_package_the_same() -> None:
    assert convert.PACKAGE == llama_cpp.CONVERTER == CONVERTER
    assert convert.SCRIPT in llama_cpp.CONVERTER_PARTS


@pytest.mark.parametrize("missing", ["llama_cpp", "llama_cpp_converter"])
def test_without_llama_cpp_the_way_out_is_told(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(StageUserError, match="make gguf"):
        convert.converter_folder()


def test_scores_follow_the_merges() -> None:
    vocabulary = {"a": 3, "b": 4, "ab": 5, "aba": 6, "ba": 7}
    merges = ["a b", ["b", "a"], ["ab", "a"], ["a", "ba"], ["x", "y"]]
    scores = convert.merge_scores({"model": {"vocab": vocabulary, "merges": merges}})
    assert scores == {5: 0.0, 7: -1.0, 6: -2.0}
    assert convert.merge_scores({"model": {"vocab": vocabulary}}) == {}
