"""ChatML and its kin: each turn between two special tokens, its role in the first line."""

from train.data.named_templates.parts import NamedTemplate

# https://github.com/openai/openai-python/blob/release-v0.28.0/chatml.md; tool answers as Qwen 2.5 has them.
_CHATML = r"""
{{- bos }}
{%- if head %}{{- '<|im_start|>system\n' + head + '<|im_end|>\n' }}{%- endif %}
{%- for message in turns %}
    {%- if message.role == 'tool' %}
        {{- ('<|im_start|>user' if opens(loop.index0) else '') + '\n' + outcome(message) }}
        {{- '<|im_end|>\n' if closes(loop.index0) else '' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant\n' + words(message, loop.index0) + '<|im_end|>\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}
"""

# https://huggingface.co/microsoft/Phi-3-mini-4k-instruct (model card and chat_template).
_PHI = r"""
{{- bos }}
{%- if head %}{{- '<|system|>\n' + head + '<|end|>\n' }}{%- endif %}
{%- for message in turns %}
    {%- if message.role == 'tool' %}
        {{- ('<|user|>' if opens(loop.index0) else '') + '\n' + outcome(message) }}
        {{- '<|end|>\n' if closes(loop.index0) else '' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|assistant|>\n' + words(message, loop.index0) + '<|end|>\n' }}
    {%- else %}
        {{- '<|user|>\n' + message.content + '<|end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>\n' }}{%- endif %}
"""

TEMPLATES = {
    "chatml": NamedTemplate(source=_CHATML, tokens=("<|im_start|>", "<|im_end|>"), eos="<|im_end|>"),
    # https://huggingface.co/Qwen/Qwen2.5-7B-Instruct (chat_template).
    "qwen": NamedTemplate(
        source=_CHATML,
        tokens=("<|im_start|>", "<|im_end|>"),
        eos="<|im_end|>",
        default_system="You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    ),
    "phi": NamedTemplate(
        source=_PHI, tokens=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"), eos="<|end|>"
    ),
}
