"""Llama 2 and 3, and Mistral."""

from train.data.named_templates.parts import NamedTemplate

# https://huggingface.co/meta-llama/Llama-2-7b-chat-hf (chat_template): a BOS and an EOS each turn, the system
# text within the first question.
_LLAMA2 = r"""
{%- for message in turns %}
    {%- if message.role == 'assistant' %}
        {{- ' ' + words(message, loop.index0) | trim + ' ' + eos_token }}
    {%- else %}
        {{- bos + '[INST] ' if message.role == 'user' or opens(loop.index0) else '\n' }}
        {%- if loop.first and head %}{{- '<<SYS>>\n' + head + '\n<</SYS>>\n\n' }}{%- endif %}
        {{- message.content | trim if message.role == 'user' else outcome(message) }}
        {{- ' [/INST]' if message.role == 'user' or closes(loop.index0) else '' }}
    {%- endif %}
{%- endfor %}
"""

# https://github.com/meta-llama/llama-models/blob/main/models/llama3_1/prompt_format.md; the tools, in the
# system message, and the calls as in the chat_template of meta-llama/Llama-3.1-8B-Instruct.
_LLAMA3 = r"""
{%- macro function_calls(message) %}
    {%- for each in message.tool_calls or [] %}
        {%- set call = each.function if each.function is defined else each %}
        {{- '\n' if message.content or not loop.first else '' }}
        {{- '{"name": ' + call.name | tojson + ', "parameters": ' }}
        {{- call.arguments if call.arguments is string else call.arguments | tojson }}
        {{- '}' }}
    {%- endfor %}
{%- endmacro %}
{%- set head %}
    {{- system | trim }}
    {%- if tools %}
        {{- '\n\n' if system else '' }}
        {{- 'You have access to the following functions. To call a function, please respond with JSON for a function call. Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}. Do not use variables.\n\n' }}
        {%- for tool in tools %}{{- tool | tojson(indent=4) + '\n\n' }}{%- endfor %}
    {%- endif %}
{%- endset %}
{{- bos }}
{%- if head %}{{- '<|start_header_id|>system<|end_header_id|>\n\n' + head + '<|eot_id|>' }}{%- endif %}
{%- for message in turns %}
    {%- set role = 'ipython' if message.role == 'tool' else message.role %}
    {{- '<|start_header_id|>' + role + '<|end_header_id|>\n\n' }}
    {%- if role == 'assistant' %}{{- reasoning(message, loop.index0) }}{%- endif %}
    {{- message.content | trim + function_calls(message) + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}
"""  # noqa: E501 - as published

# https://huggingface.co/mistralai/Mistral-7B-Instruct-v0.3 (chat_template); tools and system text stand
# before the first question, not the last, so that a turn's prompt doesn't change when the talk goes on.
_MISTRAL = r"""
{{- bos }}
{%- if tools %}{{- '[AVAILABLE_TOOLS] ' + tools | tojson + '[/AVAILABLE_TOOLS]' }}{%- endif %}
{%- for message in turns %}
    {%- if message.role == 'user' %}
        {{- '[INST] ' + (system + '\n\n' if loop.first and system else '') + message.content + '[/INST]' }}
    {%- elif message.role == 'tool' %}
        {{- '[TOOL_RESULTS] {"content": ' + message.content | tojson + '}[/TOOL_RESULTS]' }}
    {%- else %}
        {%- set thoughts = reasoning(message, loop.index0) %}
        {%- if thoughts or message.content %}{{- ' ' + thoughts + message.content }}{%- endif %}
        {%- if message.tool_calls %}
            {{- '[TOOL_CALLS] [' }}
            {%- for each in message.tool_calls %}
                {%- set call = each.function if each.function is defined else each %}
                {{- ', ' if not loop.first else '' }}
                {{- '{"name": ' + call.name | tojson + ', "arguments": ' }}
                {{- call.arguments if call.arguments is string else call.arguments | tojson }}
                {{- '}' }}
            {%- endfor %}
            {{- ']' }}
        {%- endif %}
        {{- eos_token }}
    {%- endif %}
{%- endfor %}
"""

TEMPLATES = {
    "llama2": NamedTemplate(source=_LLAMA2),
    "llama3": NamedTemplate(
        source=_LLAMA3, tokens=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), eos="<|eot_id|>"
    ),
    "mistral": NamedTemplate(source=_MISTRAL),
}
