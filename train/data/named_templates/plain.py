"""Families whose turns are told apart by ordinary words: Vicuna, Alpaca, and chat models of Bloom."""

from train.data.named_templates.parts import NamedTemplate

# https://github.com/lm-sys/FastChat/blob/main/docs/vicuna_weights_version.md (v1.1).
_VICUNA = r"""
{{- bos + (head + ' ' if head else '') }}
{%- for message in turns %}
    {%- if message.role == 'assistant' %}
        {{- 'ASSISTANT: ' + words(message, loop.index0) + eos_token }}
    {%- elif message.role == 'tool' %}
        {{- ('USER: ' if opens(loop.index0) else '\n') + outcome(message) }}
        {{- ' ' if closes(loop.index0) else '' }}
    {%- else %}
        {{- 'USER: ' + message.content + ' ' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- 'ASSISTANT:' }}{%- endif %}
"""

# https://github.com/tatsu-lab/stanford_alpaca (README, data release); further turns follow after EOS and an
# empty line.
_ALPACA = r"""
{{- bos + (head + '\n\n' if head else '') }}
{%- for message in turns %}
    {%- if message.role == 'assistant' %}
        {{- '### Response:\n' + words(message, loop.index0) + eos_token + '\n\n' }}
    {%- elif message.role == 'tool' %}
        {{- ('### Input:' if opens(loop.index0) else '') + '\n' + outcome(message) }}
        {{- '\n\n' if closes(loop.index0) else '' }}
    {%- else %}
        {{- '### Instruction:\n' + message.content + '\n\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '### Response:\n' }}{%- endif %}
"""

# Bloom has no chat format of its own. Turns as in BELLE, fine-tuned from it
# (https://github.com/LianjiaTech/BELLE, models/README.md).
_BLOOM = r"""
{{- bos + (head + '\n\n' if head else '') }}
{%- for message in turns %}
    {%- if message.role == 'assistant' %}
        {{- 'Assistant: ' + words(message, loop.index0) + eos_token }}
    {%- elif message.role == 'tool' %}
        {{- ('Human: ' if opens(loop.index0) else '\n') + outcome(message) }}
        {{- '\n\n' if closes(loop.index0) else '' }}
    {%- else %}
        {{- 'Human: ' + message.content + '\n\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- 'Assistant:' }}{%- endif %}
"""

TEMPLATES = {
    "vicuna": NamedTemplate(
        source=_VICUNA,
        default_system="A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    ),
    "alpaca": NamedTemplate(
        source=_ALPACA,
        default_system="Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.",
    ),
    "bloom": NamedTemplate(source=_BLOOM),
}
