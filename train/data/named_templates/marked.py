"""Families with markers of their own: Gemma, ChatGLM, DeepSeek."""

from train.data.named_templates.parts import NamedTemplate

# https://ai.google.dev/gemma/docs/core/prompt-structure; no system role: its text stands before the first
# question, as in the chat_template of google/gemma-3-4b-it.
_GEMMA = r"""
{{- bos }}
{%- for message in turns %}
    {%- if message.role == 'assistant' %}
        {{- '<start_of_turn>model\n' + words(message, loop.index0) | trim + '<end_of_turn>\n' }}
    {%- else %}
        {{- '<start_of_turn>user\n' if message.role == 'user' or opens(loop.index0) else '\n' }}
        {%- if loop.first and head %}{{- head + '\n\n' }}{%- endif %}
        {{- message.content | trim if message.role == 'user' else outcome(message) }}
        {{- '<end_of_turn>\n' if message.role == 'user' or closes(loop.index0) else '' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\n' }}{%- endif %}
"""

# https://huggingface.co/zai-org/glm-4-9b-chat-hf (chat_template): nothing ends a turn but the next role.
_CHATGLM = r"""
{{- '[gMASK]<sop>' }}
{%- if head %}{{- '<|system|>\n' + head }}{%- endif %}
{%- for message in turns %}
    {%- if message.role == 'tool' %}
        {{- '<|observation|>\n' + message.content }}
    {%- elif message.role == 'assistant' %}
        {{- '<|assistant|>' }}
        {%- set text = reasoning(message, loop.index0) + message.content %}
        {%- if text or not message.tool_calls %}{{- '\n' + text }}{%- endif %}
        {%- for each in message.tool_calls or [] %}
            {%- set call = each.function if each.function is defined else each %}
            {{- ('<|assistant|>' if text or not loop.first else '') + call.name + '\n' }}
            {{- call.arguments if call.arguments is string else call.arguments | tojson }}
        {%- endfor %}
    {%- else %}
        {{- '<|user|>\n' + message.content }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}
"""

# https://huggingface.co/deepseek-ai/DeepSeek-V3 (chat_template of tokenizer_config.json), whose own source
# leaves out the text beside a call.
_DEEPSEEK = r"""
{{- bos + head }}
{%- for message in turns %}
    {%- if message.role == 'user' %}
        {{- '<｜User｜>' + message.content }}
    {%- elif message.role == 'tool' %}
        {{- '<｜tool▁outputs▁begin｜>' if opens(loop.index0) else '\n' }}
        {{- '<｜tool▁output▁begin｜>' + message.content + '<｜tool▁output▁end｜>' }}
        {{- '<｜tool▁outputs▁end｜>' if closes(loop.index0) else '' }}
    {%- else %}
        {%- if loop.first or turns[loop.index0 - 1].role != 'tool' %}{{- '<｜Assistant｜>' }}{%- endif %}
        {{- reasoning(message, loop.index0) + message.content }}
        {%- for each in message.tool_calls or [] %}
            {%- set call = each.function if each.function is defined else each %}
            {{- '<｜tool▁calls▁begin｜>' if loop.first else '\n' }}
            {{- '<｜tool▁call▁begin｜>function<｜tool▁sep｜>' + call.name + '\n```json\n' }}
            {{- call.arguments if call.arguments is string else call.arguments | tojson }}
            {{- '\n```<｜tool▁call▁end｜>' + ('<｜tool▁calls▁end｜>' if loop.last else '') }}
        {%- endfor %}
        {{- eos_token }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt and turns[-1].role != 'tool' %}{{- '<｜Assistant｜>' }}{%- endif %}
"""

TEMPLATES = {
    "gemma": NamedTemplate(source=_GEMMA, tokens=("<start_of_turn>", "<end_of_turn>"), eos="<end_of_turn>"),
    "chatglm": NamedTemplate(
        source=_CHATGLM,
        tokens=("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
        stop_words=("<|user|>", "<|observation|>"),
    ),
    "deepseek": NamedTemplate(source=_DEEPSEEK, tokens=("<｜User｜>", "<｜Assistant｜>")),
}
