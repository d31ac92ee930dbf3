"""What the named templates have in common: Jinja that stands before each family's own part."""

from __future__ import annotations

import json
from dataclasses import dataclass

#: Names that a family's part may use:
#: `bos`        the BOS token, "" where the tokenizer has none, or one that is its EOS too
#: `turns`      the messages without the system message
#: `head`       the system text with the tools behind it
#: `words(message, index)`   reasoning (behind the last question), text and calls of an assistant's turn
#: `outcome(message)`        a tool's answer
#: `opens(index)` `closes(index)`   whether the tool's answer is the first, the last of several in a row
#: Tools and calls look as in Qwen 2.5 (https://huggingface.co/Qwen/Qwen2.5-7B-Instruct, its chat_template),
#: which took them from Hermes (https://github.com/NousResearch/Hermes-Function-Calling); reasoning as in
#: Qwen 3.
_SETTINGS = r"""
{%- set bos = bos_token if bos_token is defined and bos_token and bos_token != eos_token else '' %}
{%- if messages[0].role == 'system' %}
    {%- set system, turns = messages[0].content, messages[1:] %}
{%- else %}
    {%- set system, turns = '', messages %}
{%- endif %}
{%- set last = namespace(question=-1) %}
{%- for message in turns %}
    {%- if message.role == 'user' %}{%- set last.question = loop.index0 %}{%- endif %}
{%- endfor %}
"""

_TOOLS = r"""
{%- macro described(tools) %}
    {{- '# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function signatures within <tools></tools> XML tags:\n<tools>' }}
    {%- for tool in tools %}{{- '\n' + tool | tojson }}{%- endfor %}
    {{- '\n</tools>\n\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>' }}
{%- endmacro %}
{%- macro called(calls) %}
    {%- for each in calls %}
        {%- set call = each.function if each.function is defined else each %}
        {%- if not loop.first %}{{- '\n' }}{%- endif %}
        {{- '<tool_call>\n{"name": ' + call.name | tojson + ', "arguments": ' }}
        {{- call.arguments if call.arguments is string else call.arguments | tojson }}
        {{- '}\n</tool_call>' }}
    {%- endfor %}
{%- endmacro %}
{%- set head %}
    {{- system }}
    {%- if tools %}{{- ('\n\n' if system else '') + described(tools) }}{%- endif %}
{%- endset %}
"""  # noqa: E501 - as published

REASONING = r"""
{%- macro reasoning(message, index) %}
    {%- if message.reasoning_content and index > last.question %}
        {{- '<think>\n' + message.reasoning_content + '\n</think>\n\n' }}
    {%- endif %}
{%- endmacro %}
"""

_WORDS = r"""
{%- macro words(message, index) %}
    {{- reasoning(message, index) + message.content }}
    {{- '\n' if message.content and message.tool_calls else '' }}
    {{- called(message.tool_calls or []) }}
{%- endmacro %}
{%- macro outcome(message) %}
    {{- '<tool_response>\n' + message.content + '\n</tool_response>' }}
{%- endmacro %}
{%- macro opens(index) %}{{- '' if index and turns[index - 1].role == 'tool' else 'yes' }}{%- endmacro %}
{%- macro closes(index) %}
    {{- '' if index + 1 < turns | length and turns[index + 1].role == 'tool' else 'yes' }}
{%- endmacro %}
"""

PRELUDE = _SETTINGS.lstrip("\n") + _TOOLS.lstrip("\n") + REASONING.lstrip("\n") + _WORDS.lstrip("\n")


@dataclass(frozen=True, kw_only=True)
class NamedTemplate:
    """A family's template. `source` is Jinja that goes behind PRELUDE."""

    source: str
    tokens: tuple[str, ...] = ()  # texts that must be single tokens
    eos: str | None = None  # the one of them that ends a turn, and becomes the tokenizer's EOS
    stop_words: tuple[str, ...] = ()  # further ones that end an answer
    default_system: str | None = None

    @property
    def uses_eos(self) -> bool:
        return "eos_token" in self.source

    def jinja(self, default_system: str | None = None) -> str:
        """The whole template; `default_system` is used instead of the family's unless None."""
        system = self.default_system if default_system is None else default_system
        return with_default_system(PRELUDE + self.source.lstrip("\n"), system)


def with_default_system(source: str, text: str | None) -> str:
    """The template `source`, for conversations without a system message as if they had that one."""
    if not text:
        return source
    message = f"[{{'role': 'system', 'content': {literal(text)}}}]"
    condition = "messages[0].role != 'system'"
    return f"{{%- if {condition} %}}{{%- set messages = {message} + messages %}}{{%- endif %}}\n{source}"


def literal(text: str) -> str:
    """A Jinja string literal."""
    return json.dumps(text, ensure_ascii=False)
