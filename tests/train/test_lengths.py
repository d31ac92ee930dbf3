import numpy as np

from train.data.lengths import fit
from train.data.tokenize import Document


def document(tokens: int, *, is_text: bool = False) -> Document:
    ids = np.arange(tokens, dtype=np.int32)
    return Document(ids, ids, is_text=is_text)


def test_what_fits_is_left_alone():
    whole = document(10)
    assert fit(whole, 10) == [whole]


def test_a_conversation_keeps_its_beginning():
    (kept,) = fit(document(10), 4)
    assert kept.labels.tolist() == [0, 1, 2, 3]


def test_a_text_loses_nothing():
    pieces = fit(document(10, is_text=True), 4)
    assert [piece.input_ids.tolist() for piece in pieces] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
