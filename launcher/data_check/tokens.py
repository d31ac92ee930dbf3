"""Lengths in tokens, counted by a process of `train`, so that nothing here imports a tokenizer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from artifacts.contract import EXIT_USER_ERROR, canonical_json
from artifacts.records import RecordFile
from launcher.backends.processes import environment
from launcher.data_check.report import Bucket, Tokens
from launcher.errors import Problem, RunFailed, UserError


class TokenCount:
    """`python -m train.data.check`, beside this process; ended with the `with` block."""

    def __init__(self, path: Path, records: RecordFile, tokenizer: Path, max_length: int) -> None:
        command = [sys.executable, "-P", "-m", "train.data.check", str(path), f"--format={records.format}"]
        command += [f"--reading={canonical_json(records.reading).decode()}"]
        command += [f"--tokenizer={tokenizer}", f"--max-length={max_length}"]
        self._tokenizer = tokenizer
        self._process = subprocess.Popen(
            command,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> TokenCount:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def result(self) -> dict[str, Any]:
        output, messages = self._process.communicate()
        if self._process.returncode == EXIT_USER_ERROR:
            why = messages.strip().splitlines()[-1] if messages.strip() else "no usable tokenizer"
            raise UserError(Problem(where="", what=f"--tokenizer {self._tokenizer}", why=why))
        if self._process.returncode != 0:
            raise RunFailed("data check", "counting tokens failed", "see the output below", messages.strip())
        result: dict[str, Any] = json.loads(output.splitlines()[-1])
        return result


def token_buckets(measured: dict[str, Any]) -> list[Bucket]:
    return [Bucket(row["up_to"], row["documents"]) for row in measured["tokens"]["length_histogram"]]


def tokens_of(measured: dict[str, Any], tokenizer: Path, max_length: int) -> Tokens:
    counts = measured["tokens"]
    dropped = counts["dropped"]
    unsupervised = dropped.get("no supervised token", 0)
    return Tokens(
        tokenizer=str(tokenizer),
        max_length=max_length,
        truncated=counts["truncated"],
        truncated_numbers=measured["truncated"],
        unsupervised=unsupervised,
        unsupervised_numbers=measured["unsupervised"],
        refused=sum(dropped.values()) - unsupervised,
        refused_reasons=[f"record {entry['number']}: {entry['reason']}" for entry in measured["refused"]],
        total=counts["tokens"],
        supervised=counts["supervised_tokens"],
        longest=counts["longest_document"],
    )
