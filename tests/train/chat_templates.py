"""Chat templates of well-known families, shortened to what plain conversations use, and conversations."""

CHATML = """\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""

# Qwen2.5: a system message is always there.
DEFAULT_SYSTEM = (
    """\
{%- if messages[0]['role'] != 'system' %}
{{- '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' }}
{%- endif %}
"""
    + CHATML
)

# Qwen3: reasoning is dropped from all turns but those after the last question; the last turn always has a
# `<think>` block.
QWEN3 = """\
{%- set ns = namespace(last_query_index=messages|length - 1, multi_step_tool=true) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == "user" or message.role == "system" %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>assistant\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
            {%- else %}
                {{- '<|im_start|>assistant\\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>assistant\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}
"""  # noqa: E501 - as published

# A reasoning model whose generation prompt opens the block; finished turns have none.
THINKING_PROMPT = """\
{%- for message in messages %}
{%- set content = message.content.split('</think>')[-1].lstrip('\\n') if message.role == 'assistant' else message.content %}
{{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}
"""  # noqa: E501

LLAMA3 = """\
{{- bos_token }}
{%- for message in messages %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
{{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}
"""

# The system message is folded into the first question; blanks belong to the turn.
LLAMA2 = """\
{%- if messages[0]['role'] == 'system' %}
    {%- set rest = messages[1:] %}{%- set system = messages[0]['content'] %}
{%- else %}
    {%- set rest = messages %}{%- set system = false %}
{%- endif %}
{%- for message in rest %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {%- if loop.index0 == 0 and system != false %}
        {%- set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + message['content'] %}
    {%- else %}
        {%- set content = message['content'] %}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {{- bos_token + '[INST] ' + content.strip() + ' [/INST]' }}
    {%- elif message['role'] == 'assistant' %}
        {{- ' '  + content.strip() + ' ' + eos_token }}
    {%- endif %}
{%- endfor %}
"""

# No system role, the assistant is called `model`.
GEMMA = """\
{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}{{- raise_exception('System role not supported') }}{%- endif %}
{%- for message in messages %}
{%- set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{- '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{%- endif %}
"""

# Nothing ends a turn.
GLM = """\
[gMASK]<sop>
{%- for message in messages %}<|{{ message['role'] }}|>
{{ message['content'] }}
{%- endfor %}
{%- if add_generation_prompt %}<|assistant|>
{% endif %}"""

# Marks what is learnt, as TRL's training templates do.
GENERATION_TAG = """\
{%- for message in messages %}
{%- if message.role == 'assistant' %}
{{- '<|im_start|>assistant\\n' }}
{%- generation %}{{- message.content + '<|im_end|>' }}{% endgeneration %}
{{- '\\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""

TEMPLATES = {
    "chatml": CHATML,
    "default system": DEFAULT_SYSTEM,
    "qwen3": QWEN3,
    "thinking prompt": THINKING_PROMPT,
    "llama3": LLAMA3,
    "llama2": LLAMA2,
    "gemma": GEMMA,
    "glm": GLM,
    "generation tag": GENERATION_TAG,
}

#: Every special token of the templates above.
SPECIAL_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "[gMASK]",
    "<sop>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<|observation|>",
    "<|end|>",
    "<｜User｜>",
    "<｜Assistant｜>",
    "<s>",
    "</s>",
]


def chat(*contents: str, system: str | None = None) -> list[dict[str, str]]:
    """Questions and answers in turn."""
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]
    return messages if system is None else [{"role": "system", "content": system}, *messages]


CONVERSATIONS = {
    "plain": chat("What is 2 + 2?", "It is 4."),
    "system": chat("Hi", "Hello there!", system="Be brief."),
    "empty system": chat("Hi", "Hello there!", system=""),
    "chinese": chat("中国的首都是哪里？", "中国的首都是北京。", "谢谢", "不客气！"),
    "korean": chat("한국의 수도는 어디입니까?", "서울입니다.", system="한국어로 답하세요."),
    "emoji": chat("👩‍👩‍👧‍👦 what is this?", "A family 👨‍👩‍👧 🎉"),
    "decomposed": chat(
        "cafe\u0301 de\u0301ja\u0300 \u1112\u1161\u11ab",
        "re\u0301sume\u0301 \u1112\u1161\u11ab\u1100\u1173\u11af",
    ),
    "blanks": chat("  padded question \n", "\n\n  padded answer  \n"),
    "same words": chat("assistant", "assistant", "think", "think", "user", "user"),
    "words of the header": chat("Say <", "<", "again", "\n"),
    "code": chat("Write a loop", "```python\nfor i in range(3):\n    print(i)\n```\n\tdone"),
    "twenty turns": chat(*[f"{'question' if i % 2 == 0 else 'answer'} number {i}" for i in range(40)]),
    "long": chat("word " * 500, "answer " * 700),
}

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": 'How is the weather? "Today" only.',
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "一个城市"}},
                "required": ["city"],
            },
        },
    },
    {"type": "function", "function": {"name": "now", "description": "The time", "parameters": {}}},
]


def call(name: str, **arguments: object) -> dict[str, object]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


#: Text, two calls at once, their outcomes, and an answer; then a call without text.
TOOL_CONVERSATION = [
    {"role": "system", "content": "You know the weather."},
    {"role": "user", "content": "Wie ist es in Köln? 🌦"},
    {
        "role": "assistant",
        "content": "Let me look.",
        "tool_calls": [call("weather", city='Köln "Deutz"', days=3), call("now")],
    },
    {"role": "tool", "content": '{"sky": "grey"}'},
    {"role": "tool", "content": "12:00\nCET"},
    {"role": "assistant", "content": "Grey, as ever."},
    {"role": "user", "content": "And in 서울?"},
    {"role": "assistant", "content": "", "tool_calls": [call("weather", city="서울")]},
    {"role": "tool", "content": "sunny"},
    {"role": "assistant", "content": "Sunny!"},
]

REASONING_CONVERSATION = [
    {"role": "user", "content": "q1"},
    {"role": "assistant", "content": "a1", "reasoning_content": "first thoughts"},
    {"role": "user", "content": "q2"},
    {"role": "assistant", "content": "a2", "reasoning_content": "second\nthoughts"},
]
