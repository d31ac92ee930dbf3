"""Chat templates by name, written from the formats that the model families published, and templates in
pieces.

Each shows all that a record can hold: tools, tool calls with the text beside them, a tool's answers, and the
reasoning of the turns behind the last question. Families without a place for one of them get it in the form
of `parts`. A BOS stands once at the start where the tokenizer has one, but for Llama 2's, one a turn.
"""

from __future__ import annotations

from train.data.named_templates import chatml, llama, marked, plain
from train.data.named_templates.parts import NamedTemplate
from train.data.named_templates.pieces import from_pieces

NAMED: dict[str, NamedTemplate] = chatml.TEMPLATES | llama.TEMPLATES | marked.TEMPLATES | plain.TEMPLATES

__all__ = ["NAMED", "NamedTemplate", "from_pieces"]
