"""What a chat template leaves out is refused, or counted where that is its purpose."""

from __future__ import annotations

import pytest

from tests.train.backends import VARIABLES, byte_level_backend
from tests.train.chat_templates import QWEN3, REASONING_CONVERSATION, TEMPLATES, TOOLS, call, chat
from train.data.named_templates import NAMED
from train.data.templates import ChatTemplate, LostTextError
from train.data.tokenize import ChatTokenizer

PLAIN = TEMPLATES["chatml"]
NO_SYSTEM = "{% for m in messages if m.role != 'system' %}{{ m.role + ':' + m.content + '</s>' }}{% endfor %}"
ONLY_CALLS = """\
{%- for m in messages %}
{%- if m.tool_calls %}{%- for c in m.tool_calls %}{{ c.function | tojson }}{% endfor %}{{ '</s>' }}
{%- else %}{{ m.role + ':' + m.content + '</s>' }}{%- endif %}
{%- endfor %}"""
CALLING = [
    *chat("q"),
    {"role": "assistant", "content": "words", "tool_calls": [call("weather", city="Köln")]},
]
SILENT = [CALLING[0], CALLING[1] | {"content": ""}]

LOSING = {
    "system text": (NO_SYSTEM, chat("q", "a", system="Be brief."), None),
    "tool": (PLAIN, chat("q", "a"), TOOLS),
    "tool call": (PLAIN, SILENT, None),
    "text beside a tool call": (ONLY_CALLS, CALLING, None),
}


@pytest.mark.parametrize("what", LOSING)
def test_what_the_template_has_no_place_for_is_refused(what):
    source, messages, tools = LOSING[what]
    with pytest.raises(LostTextError, match=f"leaves out its {what}: take a template") as refusal:
        ChatTemplate(source, VARIABLES, ["</s>"]).render_turns(messages, tools)
    assert refusal.value.kind == f"{what} left out by the chat template"


@pytest.mark.parametrize("what", LOSING)
def test_a_template_with_a_place_for_it_is_not(what):
    _, messages, tools = LOSING[what]
    rendered = ChatTemplate(NAMED["chatml"].jinja(), VARIABLES, []).render_turns(messages, tools)
    assert rendered.lost == ()


def test_a_text_that_occurs_elsewhere_is_missed_all_the_same():
    with pytest.raises(LostTextError, match="system text"):
        ChatTemplate(NO_SYSTEM, {}, []).render_turns(chat("q", "Be brief.", system="Be brief."))


def test_quotation_marks_and_line_ends_in_calls_are_not_lost():
    messages = [SILENT[0], {"role": "assistant", "content": "", "tool_calls": [call("x", y='a "b"\n\\c')]}]
    template = ChatTemplate(ONLY_CALLS, {}, ["</s>"])
    rendered = template.render_turns(messages)
    assert template._search(rendered.text, messages) == rendered.turns
    (turn,) = rendered.turns
    assert rendered.text[turn.start : turn.stop] == (
        '{"name": "x", "arguments": {"y": "a \\"b\\"\\n\\\\c"}}</s>'
    )


@pytest.mark.parametrize("inline", [False, True])
def test_reasoning_that_qwen3_leaves_out_is_counted(inline):
    messages = REASONING_CONVERSATION
    if inline:
        messages = chat("q1", "<think>\nfirst\n</think>\n\na1", "q2", "<think>\nsecond\n</think>\n\na2")
    tokenizer = ChatTokenizer(byte_level_backend(), QWEN3, VARIABLES)
    (document, other) = tokenizer.encode([{"messages": messages}, {"messages": messages[2:]}])
    assert document.lost == ("reasoning",)
    assert other.lost == ()
