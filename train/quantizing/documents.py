"""Which of the prepared documents calibrate, and which the perplexity is measured on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from artifacts.contract import IGNORED_LABEL, QuantizeParams
from train.data.reader import PreparedSplit
from train.stage import StageUserError

#: Tokens of a document that the perplexity looks at, at most: their logits are in memory at once.
EVALUATION_LENGTH = 2048
_HELD_OUT = 5  # one in so many, where there are too few to calibrate and to measure on others


@dataclass(frozen=True)
class Document:
    """One conversation or text. `learnt` says of which tokens training learns to predict."""

    input_ids: np.ndarray  # (tokens,) int32
    learnt: np.ndarray  # (tokens,) bool


@dataclass(frozen=True)
class Choice:
    """`split` is that of `evaluation`; those that calibrate are always of the split `train`."""

    calibration: list[Document]
    evaluation: list[Document]
    split: str


def choose(train: PreparedSplit, evaluation: PreparedSplit | None, params: QuantizeParams) -> Choice:
    """Documents by the seed, without their neighbours in a packed row. Those that calibrate are cut after
    `calibration_length`; of those that measure the end is kept, where a conversation's answers are.

    Without an evaluation split, training documents that don't calibrate measure; raises StageUserError where
    there are not two.
    """
    wanted = params.calibration_sequences
    drawn = drawn_documents(train, params.seed)
    measuring = [] if evaluation is None else drawn_documents(evaluation, params.seed)
    measured = list(islice(measuring, params.evaluation_sequences))
    split = "eval"
    if not measured:
        taken = list(islice(drawn, wanted + params.evaluation_sequences))
        if len(taken) < 2:
            raise StageUserError(
                f"the prepared data holds {len(taken)} training sequences: none to measure the perplexity on",
                "name data.eval, or more training data",
            )
        held = held_out(len(taken), wanted, params.evaluation_sequences)
        split, measured, drawn = "train", taken[-held:], iter(taken[:-held])
    calibrating = list(islice(drawn, wanted))
    return Choice(
        calibration=[_cut(each, slice(params.calibration_length)) for each in calibrating],
        evaluation=[_cut(each, slice(-EVALUATION_LENGTH, None)) for each in measured],
        split=split,
    )


def held_out(found: int, calibrating: int, measuring: int) -> int:
    """How many of `found` documents measure, where so many are wanted for either."""
    return min(measuring, max(found - calibrating, found // _HELD_OUT, 1))


def drawn_documents(split: PreparedSplit, seed: int) -> Iterator[Document]:
    """Its documents of two tokens or more: rows in an order drawn by the seed, each cut up."""
    for row in np.random.default_rng(seed).permutation(len(split)):
        stored = split[int(row)]
        ends = np.cumsum(stored["document_lengths"])
        for start, end in zip(ends - stored["document_lengths"], ends, strict=True):
            if end - start > 1:
                labels = stored["labels"][start:end]
                yield Document(stored["input_ids"][start:end], labels != IGNORED_LABEL)


def _cut(document: Document, part: slice) -> Document:
    return Document(document.input_ids[part], document.learnt[part])
