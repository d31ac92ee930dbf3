"""Documents that are longer than a sequence may be."""

from __future__ import annotations

from train.data.tokenize import Document


def fit(document: Document, max_length: int) -> list[Document]:
    """The document in at most `max_length` tokens: a conversation keeps its beginning; a text loses nothing,
    but becomes several documents."""
    if len(document) <= max_length:
        return [document]
    stop = len(document) if document.is_text else max_length
    return [_part(document, start, start + max_length) for start in range(0, stop, max_length)]


def _part(document: Document, start: int, stop: int) -> Document:
    return Document(document.input_ids[start:stop].copy(), document.labels[start:stop].copy())
