"""What can go wrong, as users see it. `launcher.cli` turns these into one message and an exit code."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass

from artifacts.store import StoreError

EXIT_RUN_FAILED = 1
EXIT_USER_ERROR = 2
EXIT_CLUSTER_ERROR = 3
EXIT_DETACHED = 130  # ^C


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One mistake: where it is (`jobs/bot.yaml:14:3`), what (`training.epochs: -1`), why, and the way out."""

    where: str
    what: str
    why: str
    way_out: str = ""

    def __str__(self) -> str:
        text = f"{self.where} {self.what}: {self.why}" if self.where else f"{self.what}: {self.why}"
        return f"{text}; {self.way_out}" if self.way_out else text


class SlipwayError(Exception):
    exit_code = EXIT_RUN_FAILED


class UserError(SlipwayError):
    """The user's mistakes, all of them at once. Nothing has been started or written."""

    exit_code = EXIT_USER_ERROR

    def __init__(self, problems: Problem | Sequence[Problem]) -> None:
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ClusterError(SlipwayError):
    """The cluster, its capacity or its store: not the job's fault."""

    exit_code = EXIT_CLUSTER_ERROR

    def __init__(self, what: str, why: str, way_out: str = "") -> None:
        super().__init__(str(Problem(where="", what=what, why=why, way_out=way_out)))


class RunFailed(SlipwayError):  # noqa: N818 - a state of the run, named so in the design
    """The run itself failed: which stage ("run": none of them), the classified cause, what to do, where the
    evidence is."""

    exit_code = EXIT_RUN_FAILED

    def __init__(self, stage: str, cause: str, advice: str, evidence: str) -> None:
        self.stage, self.cause, self.advice, self.evidence = stage, cause, advice, evidence
        what = "the run" if stage == "run" else f"stage {stage}"
        advised = f"\n  advice: {advice}" if advice else ""
        super().__init__(f"{what} failed: {cause}{advised}\n  evidence: {evidence}")


def known_error(error: Exception) -> SlipwayError | None:
    """An error of the store or of a file operation in the user's words, where it is of a known kind."""
    if isinstance(error, StoreError):
        return ClusterError(error.what, error.why, error.way_out)
    return of_os_error(error) if isinstance(error, OSError) else None


def of_os_error(error: OSError) -> SlipwayError | None:
    """A failed file operation in the user's words: a disk that is full, or a path to mend. None where the
    error names neither."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        way_out = "free space (`slipway gc` removes what no run refers to)"
        return ClusterError(str(error.filename or "output"), "the disk is full", way_out)
    if error.filename is None or error.strerror is None:
        return None
    return UserError(Problem(where="", what=str(error.filename), why=error.strerror.lower()))
