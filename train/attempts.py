"""Attempts of a training: every start of the group of ranks, with how its ranks ended.

`<train prefix>/attempts/<attempt>/claim.json` is written by whoever starts it, before anything else; two
claimants get different numbers, and the earlier group commits nothing any more. `stop.json` asks the group to
save and end. `rank-<rank>.json` is the rank's own word on its ending.
"""

from __future__ import annotations

import json
import time

from artifacts.contract import canonical_json, decode
from artifacts.store import Store
from train.engines.base import Ending
from train.stage import StageError


def claim_attempt(store: Store, train_prefix: str) -> int:
    """The next attempt's number, from 1 on."""
    prefix = f"{train_prefix}/attempts"
    attempt = latest_attempt(store, train_prefix) + 1
    while not store.write_bytes(
        _claim(prefix, attempt), canonical_json({"time_s": round(time.time(), 3)}), if_absent=True
    ):
        attempt += 1
    return attempt


def latest_attempt(store: Store, train_prefix: str) -> int:
    """0 where nothing was started yet."""
    prefix = f"{train_prefix}/attempts"
    return max(
        (int(info.key.removeprefix(f"{prefix}/").split("/")[0]) for info in store.list(prefix)), default=0
    )


def check_current(store: Store, train_prefix: str, attempt: int) -> None:
    """Before something is committed. An earlier group may still be at work when a later one was started: on
    machines that lost their cluster's head, say. Raises StageError for it."""
    if store.exists(_claim(f"{train_prefix}/attempts", attempt + 1)):
        raise StageError(f"attempt {attempt} is over: a later one has taken its place")


def stop_attempt_key(train_prefix: str, attempt: int) -> str:
    return f"{train_prefix}/attempts/{attempt:03d}/stop.json"


def write_ending(store: Store, train_prefix: str, attempt: int, ending: Ending) -> None:
    key = f"{train_prefix}/attempts/{attempt:03d}/rank-{ending.rank}.json"
    store.write_bytes(key, canonical_json(ending))


def read_endings(store: Store, train_prefix: str, attempt: int) -> list[Ending]:
    """Of the ranks that could still tell, by rank."""
    prefix = f"{train_prefix}/attempts/{attempt:03d}"
    keys = [info.key for info in store.list(prefix) if "/rank-" in info.key]
    endings = [decode(Ending, json.loads(store.read_bytes(key))) for key in keys]
    return sorted(endings, key=lambda ending: ending.rank)


def _claim(prefix: str, attempt: int) -> str:
    return f"{prefix}/{attempt:03d}/claim.json"
