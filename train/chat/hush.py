"""What libraries print while they load and compute, kept off the conversation."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Generator, Iterator
from typing import TypeVar

Item = TypeVar("Item")


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Standard output and error lead nowhere, for extensions and child processes, too; with SLIPWAY_DEBUG=1
    everything is shown."""
    if os.environ.get("SLIPWAY_DEBUG") == "1":
        yield
        return
    _flush()
    own = os.dup(1), os.dup(2)
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        yield
    finally:
        _flush()
        os.dup2(own[0], 1)
        os.dup2(own[1], 2)
        for descriptor in (*own, nothing):
            os.close(descriptor)


def quietly(items: Iterator[Item]) -> Generator[Item]:
    """The items, each made while hushed. Closing this one closes `items`."""
    try:
        while True:
            with hushed():
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item
    finally:
        items.close()  # type: ignore[attr-defined] - generators, all of them


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
