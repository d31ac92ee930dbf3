"""A user's `get_custom_dataset`, run in a process of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from artifacts.contract import TemplateParams, TwinParams
from tests.train.chat_templates import chat
from train.data.custom import _checked, custom_items
from train.data.resolve import ResolvedTokenizer, resolve_tokenizer
from train.stage import StageUserError
from train.twin import make_twin

GOOD = """\
import sys
import numpy as np

def get_custom_dataset(dataset_config, tokenizer, split):
    print("words of its own", split, dataset_config.file)
    ids = tokenizer("Hello", add_special_tokens=False)["input_ids"]
    mask = [1] * len(ids) + [0]
    yield {"input_ids": np.array([*ids, 0]), "labels": [-100] * len(mask), "attention_mask": mask}
    yield {"messages": [{"role": "user", "content": split}, {"role": "assistant", "content": "ja"}]}
    yield {"text": "plain"}
    raise KeyError("column 'x'")
"""


@pytest.fixture(scope="module")
def resolved(tmp_path_factory) -> ResolvedTokenizer:
    folder = tmp_path_factory.mktemp("twin")
    for name, data in make_twin(TwinParams(hidden_size=32, vocabulary_size=400), ["Hello"]).items():
        (folder / name).write_bytes(data)
    return resolve_tokenizer(folder, TemplateParams(), folder / "tokenizer")


def write(folder: Path, text: str) -> Path:
    (folder / "custom.py").write_text(text)
    return folder / "custom.py"


def test_items_come_in_order_then_the_error_with_its_line(resolved, tmp_path):
    items = custom_items(write(tmp_path, GOOD), resolved, "eval", shown_as="data/mine.py")
    document, conversation, text = (next(items) for _ in range(3))
    assert resolved.chat.backend.decode(document.input_ids.tolist()) == "Hello"  # padding left out
    assert document.supervised_tokens == 0
    assert conversation == {"messages": chat("validation", "ja")}
    assert text == {"text": "plain"}
    with pytest.raises(
        StageUserError, match=r"data/mine\.py: line 11: KeyError: \"column 'x'\"; mend mine\.py"
    ):
        next(items)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x = 1\nraise ValueError('no file')\n", "line 2: ValueError: no file"),
        ("import sys\nsys.exit(3)\n", "line 2: SystemExit: 3"),
        ("import os\nos._exit(7)\n", "ended amid get_custom_dataset, with status 7"),
    ],
)
def test_a_file_that_fails_is_the_users_error(resolved, tmp_path, text, why):
    with pytest.raises(StageUserError, match=why):
        list(custom_items(write(tmp_path, text), resolved, "train", shown_as="mine.py"))


@pytest.mark.parametrize(
    ("item", "why"),
    [
        ([1, 2], "not a dictionary but list"),
        ({"input_ids": [1, 2], "labels": [1]}, "unequal lengths: 2 input_ids, 1 labels"),
        ({"input_ids": [1, 2]}, "labels is no list of whole numbers"),
        ({"input_ids": [1.5], "labels": [1]}, "input_ids is no list of whole numbers"),
        ({"input_ids": [1, 400], "labels": [1, 2]}, "input_ids has ids outside the vocabulary of 400"),
        ({"input_ids": [1, 2], "labels": [-100, -1]}, "labels has ids outside"),
        ({"input_ids": [], "labels": []}, "no tokens"),
        ({"question": "?"}, "it has question; wanted"),
        ({"messages": [{"role": "user"}]}, "message 1 has no content"),
    ],
)
def test_what_is_no_item_is_told(item, why):
    with pytest.raises(ValueError, match=why):
        _checked(item, 400)


def test_labels_are_used_as_they_are():
    document = _checked({"input_ids": [1, 2, 3], "labels": [-100, 7, 3]}, 400)
    assert document.labels.tolist() == [-100, 7, 3]
    assert document.input_ids.dtype == document.labels.dtype == np.int32
