"""Texts on which tokenizers differ where they differ at all, and questions that models are asked."""

from __future__ import annotations

#: Composed characters (NFC) alone: tokenizers that compose (Qwen's) do so before they split, llama.cpp does
#: not.
TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "I'm sure they'll say it's DON'T, WE'VE and you'd; 'tis the '90s.",
    "Die Straße führt über Köln; déjà vu, señor, smørrebrød, łódź, İstanbul.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.",
    "نص حكيم له سر قاطع وذو شأن عظيم",
    "דג סקרן שט בים מאוכזב ולפתע מצא לו חברה",
    "我能吞下玻璃而不伤身体。今天是2026年11月21日。",
    "いろはにほへと ちりぬるを。カタカナ、漢字。",
    "키스의 고유조건은 입술끼리 만나야 하고 특별한 기술은 필요치 않다.",
    "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण",
    "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า",
    "🚀 (normal) 😶‍🌫️ 👩‍👩‍👧‍👦 🇩🇪 ✅ 🦙🦙",
    "3 33 333 3333 33333 333333 3.14 1,000,000 2^10 ½ ² Ⅷ ٣٤",
    " leading, trailing  and   several    spaces   ",
    "\ttab\t\ttabs \t mixed\n\nlines\r\n\r\nand\n \n  \n   blanks\n\n\n",
    "def f(x: int) -> str:\n    return f\"{x!r:>10}\"  # comment\n\n\nif __name__ == '__main__':\n\tf(1)\n",
    '{"a": [1, 2.5, null], "b\\"c": "\\u00e9"}',
    "https://example.org/a/b?c=d&e=%20f#g user@example.org C:\\Users\\x",
    "!!! ??? ... --- === ``` \"\"\" '''' <> </s> <|x|> [INST] ### $$ && || \\\\",
    "camelCase PascalCase snake_case SCREAMING_CASE kebab-case x1y2z3",
    "a\u00a0b\u2009c\u3000d\u200be\ufefff",
    "",
    " ",
    "\n",
    "a",
)

#: Short, of several kinds; the same for every model, so that figures can be compared.
QUESTIONS = (
    "Hello, who are you?",
    "What is the capital of France?",
    "Write a haiku about the sea.",
    "Add 17 and 25.",
    "Translate to German: good morning.",
    "用一句话介绍北京。",
    "List three colours.",
    "Why is the sky blue?",
    "¿Qué hora es?",
    "def fibonacci(n):",
)
