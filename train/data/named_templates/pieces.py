"""A template in pieces: what stands before and behind the words of each role."""

from __future__ import annotations

from collections.abc import Mapping

from train.data.named_templates.parts import NamedTemplate, literal

_ROLES = {"user": "user", "tool": "observation"}  # the role, and the name of its pieces


def from_pieces(pieces: Mapping[str, str]) -> NamedTemplate:
    """`pieces` maps `system_prefix`, `system_suffix`, `user_prefix`, … to texts.

    Without `observation` a tool's answer is refused; without `system` a system text has no place, which the
    preparation reports (`train.data.audit`).
    """

    def piece(name: str) -> str:
        return literal(pieces.get(name, ""))

    lines = ["{{- bos }}"]
    if any(name.startswith("system_") for name in pieces):
        system = f"{piece('system_prefix')} + head + {piece('system_suffix')}"
        lines.append(f"{{%- if head %}}{{{{- {system} }}}}{{%- endif %}}")
    lines.append("{%- for message in turns %}")
    answer = f"{piece('assistant_prefix')} + words(message, loop.index0) + {piece('assistant_suffix')}"
    lines.append(f"{{%- if message.role == 'assistant' %}}{{{{- {answer} }}}}")
    for role, name in _ROLES.items():
        lines.append(f"{{%- elif message.role == '{role}' %}}")
        if role == "tool" and not any(each.startswith("observation_") for each in pieces):
            lines.append("{{- raise_exception('the template has no piece `observation` for a tool') }}")
        else:
            words = f"{piece(f'{name}_prefix')} + message.content + {piece(f'{name}_suffix')}"
            lines.append(f"{{{{- {words} }}}}")
    lines += ["{%- endif %}", "{%- endfor %}"]
    lines.append(f"{{%- if add_generation_prompt %}}{{{{- {piece('assistant_prefix')} }}}}{{%- endif %}}")
    return NamedTemplate(source="\n".join(lines))
