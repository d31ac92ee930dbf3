import json

import pytest

from tests.train.chat_templates import CHATML, CONVERSATIONS, LLAMA3
from tests.train.test_twin import write_twin
from train.data.loading import load_chat_tokenizer, loads_as_saved
from train.stage import StageUserError


def change_json(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def rendered(folder) -> str:
    return load_chat_tokenizer(folder).template.render(CONVERSATIONS["plain"])


def test_chat_template_file_wins_over_the_one_in_the_config(tmp_path):
    write_twin(tmp_path)
    change_json(tmp_path / "tokenizer_config.json", chat_template=LLAMA3)
    text = load_chat_tokenizer(tmp_path).template.render(CONVERSATIONS["plain"])
    assert text.startswith("<|im_start|>user")
    (tmp_path / "chat_template.jinja").unlink()
    assert (
        load_chat_tokenizer(tmp_path)
        .template.render(CONVERSATIONS["plain"])
        .startswith("<|start_header_id|>")
    )


def test_the_default_of_several_named_templates_is_used(tmp_path):
    write_twin(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    named = [{"name": "tool_use", "template": LLAMA3}, {"name": "default", "template": CHATML}]
    change_json(tmp_path / "tokenizer_config.json", chat_template=named)
    assert rendered(tmp_path).startswith("<|im_start|>")


@pytest.mark.parametrize(
    ("changes", "direct"),
    [
        ({}, True),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, True),
        ({"tokenizer_class": "LlamaTokenizer"}, False),
        ({"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": True}, False),
        ({"auto_map": {"AutoTokenizer": ["x.X", None]}}, False),
    ],
)
def test_only_tokenizers_that_transformers_takes_as_saved_are_read_directly(tmp_path, changes, direct):
    write_twin(tmp_path)
    change_json(tmp_path / "tokenizer_config.json", **changes)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert loads_as_saved(tmp_path, config) == direct


def test_a_qwen_tokenizer_with_another_split_is_left_to_transformers(tmp_path):
    from transformers import AutoTokenizer

    write_twin(tmp_path)
    pre_tokenizer = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    change_json(tmp_path / "tokenizer.json", pre_tokenizer=pre_tokenizer)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert not loads_as_saved(tmp_path, config)
    (document,) = load_chat_tokenizer(tmp_path).encode([{"messages": CONVERSATIONS["code"]}])
    reference = AutoTokenizer.from_pretrained(tmp_path)
    expected = reference.apply_chat_template(CONVERSATIONS["code"], tokenize=True, return_dict=False)
    assert document.input_ids.tolist() == expected


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("chat_template.jinja", "{% for %}", "can't be compiled"),
        ("tokenizer_config.json", "{", "tokenizer_config.json"),
        ("tokenizer.json", "{}", "tokenizer"),
    ],
)
def test_a_damaged_folder_is_the_users_error(tmp_path, file, content, message):
    write_twin(tmp_path)
    (tmp_path / file).write_text(content)
    with pytest.raises(StageUserError, match=message):
        load_chat_tokenizer(tmp_path)


def test_a_damaged_tokenizer_of_a_plain_class_is_the_users_error(tmp_path):
    write_twin(tmp_path)
    change_json(tmp_path / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(StageUserError, match="damaged"):
        load_chat_tokenizer(tmp_path)


def test_a_folder_without_a_tokenizer_is_the_users_error(tmp_path):
    with pytest.raises(StageUserError, match="tokenizer can't be loaded"):
        load_chat_tokenizer(tmp_path)
