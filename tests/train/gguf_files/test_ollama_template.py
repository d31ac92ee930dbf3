"""Chat templates in Go, run by a small interpreter, against the Jinja that they stand for."""

from __future__ import annotations

import pytest

from tests.train.backends import VARIABLES
from tests.train.chat_templates import TEMPLATES, chat
from tests.train.gguf_files.go_template import ollama
from train.data.named_templates import NAMED
from train.data.templates import ChatTemplate
from train.gguf_files.ollama_template import find_pieces

SOURCES = {f"named {name}": template.jinja() for name, template in NAMED.items()} | TEMPLATES
#: Texts with what Go or a Modelfile could take for its own.
TEXTS = ('What is {{ .System }}?\n"', 'Nothing: `\\n` ""', "Ünd 今天 🚀 <b>?", "-}} {{- x", "last")


def template(source: str) -> ChatTemplate:
    return ChatTemplate(source, VARIABLES, list(VARIABLES.values()))


@pytest.mark.parametrize("name", SOURCES)
def test_writes_what_the_model_was_trained_with(name: str) -> None:
    original = template(SOURCES[name])
    pieces = find_pieces(original)
    assert pieces is not None
    for turns in (1, 3, 5):
        for system in (None, "Be brief, 请。") if pieces.system else (None,):
            messages = chat(*TEXTS[:turns], system=system)
            expected = original.render(messages, generation_prompt=True)
            assert ollama(pieces.go(bos=""), messages) == expected
            assert ollama(pieces.go(bos="<s>"), messages) == expected.removeprefix("<s>")


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages | length }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}",
        "{% for m in messages %}{{ loop.index }}. {{ m.content }}\n{% endfor %}",
        "{% for m in messages %}{{ m.content | upper }}{{ m.content }}{% endfor %}",
        "{{ messages[-1].content }}",
        "{{ raise_exception('no') }}",
    ],
)
def test_a_template_that_does_more_than_pieces_can_is_none(source: str) -> None:
    assert find_pieces(template(source)) is None


def test_a_template_without_a_place_for_a_system_text_is_told() -> None:
    pieces = find_pieces(
        template("{% for m in messages if m.role != 'system' %}[{{ m.content }}]{% endfor %}")
    )
    assert pieces is not None and pieces.system is None
