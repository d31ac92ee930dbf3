"""The frame into which a template puts the texts of one shape of record, derived once from placeholders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from train.data.texts import REASONING

Anchor = tuple[int, int]  # (texts before it, characters of the frame before it)

# Blanks around a placeholder, of a kind that no template writes, tell whether texts are trimmed; the
# quotation mark in it, whether they are written as JSON.
_BLANK = "\u2003"  # EM SPACE: stripped by str.strip
_RAW, _ESCAPED = '"', '\\"'


def placeholder(index: int) -> str:
    """Text that no conversation holds: private-use characters."""
    return f"{_core(index)}{_RAW}\ue0f1"


def padded(index: int) -> str:
    return f"{_BLANK}{placeholder(index)}{_BLANK}"


def _core(index: int) -> str:
    return f"\ue0f0{index}\ue0f3"


@dataclass(frozen=True)
class Turn:
    """What a model writes of an assistant's turn: the words with what ends them, in characters."""

    message: int
    start: int
    stop: int


@dataclass(frozen=True)
class _Slot:
    text: int  # number of the record's text
    keep_left: bool  # blanks at the text's left survive
    keep_right: bool
    as_json: bool
    start: int  # in the rendered placeholders, with the blanks that survived
    stop: int

    def fill(self, text: str) -> str:
        text = text if self.keep_left else text.lstrip()
        text = text if self.keep_right else text.rstrip()
        return json.dumps(text, ensure_ascii=False)[1:-1] if self.as_json else text


@dataclass(frozen=True)
class Skeleton:
    """`frame[0] slots[0] frame[1] … slots[-1] frame[-1]`. A turn is two anchors, which move with the lengths
    of the texts before them."""

    frame: list[str]
    slots: list[_Slot]
    turns: list[tuple[int, Anchor, Anchor]]
    lost: tuple[str, ...]  # kinds of the texts that the template leaves out

    @classmethod
    def build(cls, text: str, kinds: Sequence[str], turns: Sequence[Turn]) -> Skeleton | None:
        """`text` is the rendered placeholders. None where one can't be followed (it occurs twice, or written
        in a way of its own), or a turn starts or ends amid one."""
        slots, lost = [], []
        for index, kind in enumerate(kinds):
            if _core(index) not in text:
                lost.append(kind)
                continue
            slot = _find_slot(text, index)
            if slot is None:
                return None
            slots.append(slot)
        slots.sort(key=lambda slot: slot.start)
        bounds = [0, *(bound for slot in slots for bound in (slot.start, slot.stop)), len(text)]
        frame = [text[start:stop] for start, stop in zip(bounds[::2], bounds[1::2], strict=True)]
        anchors: dict[int, Anchor] = {}
        literal = 0
        for number, (start, piece) in enumerate(zip(bounds[::2], frame, strict=True)):
            anchors |= {start + offset: (number, literal + offset) for offset in range(len(piece) + 1)}
            literal += len(piece)
        if not all(turn.start in anchors and turn.stop in anchors for turn in turns):
            return None
        moved = [(turn.message, anchors[turn.start], anchors[turn.stop]) for turn in turns]
        return cls(frame, slots, moved, tuple(dict.fromkeys(lost)))

    def find_turns(self, text: str, texts: Sequence[str]) -> list[Turn] | None:
        """The turns in `text`, None if it is not this frame filled with `texts`."""
        pieces = [self.frame[0]]
        before = [0]  # characters of texts before the n-th piece of the frame
        for slot, piece in zip(self.slots, self.frame[1:], strict=True):
            words = slot.fill(texts[slot.text])
            pieces += (words, piece)
            before.append(before[-1] + len(words))
        if "".join(pieces) != text:
            return None
        return [
            Turn(message, before[number] + literal, before[end_number] + end_literal)
            for message, (number, literal), (end_number, end_literal) in self.turns
        ]


def _find_slot(text: str, index: int) -> _Slot | None:
    for mark in (_RAW, _ESCAPED):
        whole = placeholder(index).replace(_RAW, mark)
        start = text.find(whole)
        if start >= 0 and text.count(_core(index)) == 1:
            stop = start + len(whole)
            left, right = text[start - 1 : start] == _BLANK, text[stop : stop + 1] == _BLANK
            return _Slot(index, left, right, mark == _ESCAPED, start - left, stop + right)
    return None


def lost_texts(text: str, found: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Kinds of the record's texts that the rendered `text` does not hold: for records that fit no frame."""
    return tuple(
        dict.fromkeys(
            kind
            for kind, words in found
            if (stripped := words.strip()) not in text
            and json.dumps(stripped, ensure_ascii=False)[1:-1] not in text
        )
    )


def is_wrong_to_lose(kind: str) -> bool:
    """Reasoning of earlier turns is left out on purpose by the templates of reasoning models."""
    return kind != REASONING
