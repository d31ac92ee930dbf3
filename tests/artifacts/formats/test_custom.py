from __future__ import annotations

from pathlib import Path

import pytest

from artifacts.formats.custom import CustomFileError, check_custom_file

GOOD = [
    "def get_custom_dataset(dataset_config, tokenizer, split): return []",
    "def get_custom_dataset(config, tokenizer, split, *, seed=0): return []",
    "def get_custom_dataset(*arguments): return []",
    "from elsewhere import get_custom_dataset",
    "from elsewhere import load as get_custom_dataset",
    "get_custom_dataset = lambda config, tokenizer, split: []",
]


@pytest.mark.parametrize("source", GOOD)
def test_a_file_that_defines_the_function(source: str, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(f'raise SystemExit("never run")\n{source}\n')
    check_custom_file(tmp_path / "a.py")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def get_custom_dataset(:", "not Python: line 1"),
        ("return 1", "not Python: line 1: 'return' outside function"),
        ("\0", "not Python"),
        ("(" * 5000, "not Python"),
        ("def get_dataset(a, b, c): ...", "defines no function get_custom_dataset (but get_dataset)"),
        ("", "(but nothing)"),
        ("def f():\n    def get_custom_dataset(a, b, c): ...", "defines no function"),
        ("def get_custom_dataset(tokenizer): ...", "(line 1) does not take 3 arguments"),
        ("def get_custom_dataset(a, b, c, d): ...", "does not take 3 arguments"),
    ],
)
def test_a_file_that_is_none(source: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(source)
    with pytest.raises(CustomFileError) as refused:
        check_custom_file(tmp_path / "a.py")
    assert expected in str(refused.value)
