"""The tokenizer folder that `prepare` leaves, against plain transformers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from artifacts.contract import TemplateParams, TwinParams
from tests.train.chat_templates import CONVERSATIONS, chat
from train.data.named_templates import NAMED
from train.data.resolve import ResolvedTokenizer, resolve_tokenizer
from train.stage import StageUserError
from train.twin import make_twin

PIECES = {
    "system_prefix": "<<",
    "system_suffix": ">>\n",
    "user_prefix": "Q: ",
    "user_suffix": "\n",
    "assistant_prefix": "A:",
    "assistant_suffix": "<|stop|>\n",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A tiny twin's folder: Qwen3's tokenizer class, no BOS, ChatML."""
    folder = tmp_path_factory.mktemp("twin")
    twin = TwinParams(hidden_size=32, intermediate_size=64, vocabulary_size=400)
    texts = [message["content"] for messages in CONVERSATIONS.values() for message in messages]
    for name, data in make_twin(twin, texts).items():
        if not name.endswith(".safetensors"):
            (folder / name).write_bytes(data)
    return folder


def changed(model: Path, folder: Path, **settings) -> Path:
    """A copy with other settings in tokenizer_config.json; None removes one."""
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "tokenizer_config.json").read_text()) | settings
    kept = {name: value for name, value in config.items() if value is not None}
    (folder / "tokenizer_config.json").write_text(json.dumps(kept))
    return folder


def resolve(model: Path, tmp_path: Path, **params) -> ResolvedTokenizer:
    return resolve_tokenizer(model, TemplateParams(**params), tmp_path / "tokenizer")


def plain(folder: Path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def test_nothing_asked_for_is_a_copy(model, tmp_path):
    resolved = resolve(model, tmp_path)
    assert (resolved.template, resolved.added_tokens) == ("own", {})
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (resolved.folder / name).read_bytes() == (model / name).read_bytes()


CASES = {name: {"name": name} for name in NAMED} | {
    "own": {"default_system": "Be kind."},
    "pieces": {"pieces": PIECES, "stop_words": ["<|stop|>"], "replace_eos": True},
    "jinja": {"jinja": "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"},
}


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        *((case, "as saved") for case in CASES),
        *((case, "by transformers") for case in ("chatml", "llama2", "own", "pieces")),
    ],
)
def test_plain_transformers_render_the_same_tokens(model, tmp_path, case, kind):
    if kind == "by transformers":  # for which the tokenizer is loaded and saved by the library
        model = changed(model, tmp_path / "model", add_bos_token=False)
    resolved = resolve(model, tmp_path, **CASES[case])
    tokenizer = plain(resolved.folder)
    for title in ("plain", "chinese", "emoji", "empty system", "twenty turns"):
        (document,) = resolved.chat.encode([{"messages": CONVERSATIONS[title]}])
        expected = tokenizer.apply_chat_template(CONVERSATIONS[title], tokenize=True, return_dict=False)
        ids = document.input_ids.tolist()
        assert ids[: len(expected)] == expected, title
        assert ids[len(expected) :] in ([], [tokenizer.eos_token_id])  # where the template ends no turn
    assert resolved.added_tokens == {
        token: tokenizer.convert_tokens_to_ids(token) for token in resolved.added_tokens
    }
    assert len(tokenizer) == len(plain(model)) + len(resolved.added_tokens)
    assert tokenizer.eos_token_id in resolved.stop_token_ids
    assert tokenizer.pad_token


def test_generating_ends_at_the_templates_end_of_turn(model, tmp_path):
    (own,) = resolve(model, tmp_path).stop_token_ids
    assert not (tmp_path / "tokenizer" / "generation_config.json").exists()  # as the model declares it
    resolved = resolve_tokenizer(model, TemplateParams(name="llama3"), tmp_path / "other")
    config = json.loads((tmp_path / "other" / "generation_config.json").read_text())
    assert config["eos_token_id"] == [own, resolved.added_tokens["<|eot_id|>"]]


def test_new_chat_tokens_are_single_ones(model, tmp_path):
    resolved = resolve(model, tmp_path, name="gemma")
    tokenizer = plain(resolved.folder)
    assert sorted(resolved.added_tokens) == ["<end_of_turn>", "<start_of_turn>"]
    assert tokenizer.eos_token == "<end_of_turn>"
    assert tokenizer.tokenize("a<end_of_turn>b") == ["a", "<end_of_turn>", "b"]


def test_a_stop_word_becomes_a_token_and_eos(model, tmp_path):
    resolved = resolve(model, tmp_path, pieces=PIECES, stop_words=["<|stop|>"], replace_eos=True)
    assert resolved.chat.template.end_of_turn == "<|stop|>"
    assert resolved.template == "custom"
    assert resolved.stop_token_ids == [resolved.added_tokens["<|stop|>"]]
    assert resolved.chat.template.render([*chat("hi", "ho", system="be")]) == (
        "<<be>>\nQ: hi\nA:ho<|stop|>\n"
    )


def test_the_default_system_text_is_that_of_conversations_without_one(model, tmp_path):
    resolved = resolve(model, tmp_path, default_system='Say "{{ no }}".')
    render = plain(resolved.folder).apply_chat_template
    assert 'Say "{{ no }}".' in render(chat("q", "a"), tokenize=False)
    assert 'Say "{{ no }}".' not in render(chat("q", "a", system="s"), tokenize=False)
    resolved = resolve_tokenizer(model, TemplateParams(name="qwen", default_system=""), tmp_path / "without")
    assert "system" not in resolved.chat.template.render(chat("q", "a"))


def test_a_tokenizer_without_padding_token_gets_another(model, tmp_path):
    bare = changed(model, tmp_path / "model", pad_token=None)
    assert plain(resolve(bare, tmp_path).folder).pad_token == "<|endoftext|>"


def test_a_tokenizer_without_eos_takes_the_end_of_turn(model, tmp_path):
    bare = changed(model, tmp_path / "model", eos_token=None, pad_token=None)
    tokenizer = plain(resolve(bare, tmp_path).folder)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")


@pytest.mark.parametrize(
    "params", [{"name": "vicuna"}, {"jinja": "{% for m in messages %}{{ m.content }}\n{% endfor %}"}]
)
def test_nothing_that_ends_an_answer_is_the_users_error(model, tmp_path, params):
    bare = changed(model, tmp_path / "model", eos_token=None)
    with pytest.raises(StageUserError, match=r"no EOS token.*template\.stop_words"):
        resolve(bare, tmp_path, **params)
    mended = TemplateParams(**params, stop_words=["</s>"], replace_eos=True)
    assert resolve_tokenizer(bare, mended, tmp_path / "mended").added_tokens.keys() == {"</s>"}
