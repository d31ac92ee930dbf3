"""The runs that are compared, as the store has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from artifacts.contract import StageKind, TrainParams
from artifacts.store import Store
from launcher import record
from launcher.errors import Problem, UserError
from launcher.reporting.collect import RunFacts, collect

#: Runs are called by letters, and drawn in as many colours.
LETTERS = "ABCDEFGH"


@dataclass(frozen=True)
class Run:
    """One of them. `letter` names it in the comparison; the first, A, is what the others are held against."""

    letter: str
    cluster: str
    facts: RunFacts

    @property
    def run_id(self) -> str:
        return self.facts.run_id

    @property
    def style(self) -> str:
        """Class of the style sheet: its colour."""
        return self.letter.lower()

    @property
    def training(self) -> TrainParams | None:
        plan = self.facts.plan
        return plan.stage(StageKind.TRAIN).params if plan.has(StageKind.TRAIN) else None

    def key(self, kind: StageKind) -> str | None:
        plan = self.facts.plan
        return plan.stage(kind).key if plan.has(kind) else None


def contents(runs: Sequence[Run], kind: StageKind) -> list[str | None]:
    """What tells the runs' artifacts of a kind apart: digests of their files, as other keys may well lead to
    the same; keys where not all are complete. None for a run without such a stage."""
    keys = [run.key(kind) for run in runs]
    made = [run.facts.manifests.get(kind.value) for run in runs]
    if len(set(keys)) == 1 or any(key and not manifest for key, manifest in zip(keys, made, strict=True)):
        return keys
    return [manifest.content_digest if manifest else None for manifest in made]


def read(store: Store, run_id: str) -> RunFacts:
    """All that a run left, every answer among it. Raises UserError for a plan of another version."""
    record.load_plan(store, run_id)
    return collect(store, run_id, predictions_at_most=None)


def lettered(found: list[tuple[str, RunFacts]]) -> list[Run]:
    """`found`: each run's cluster and facts. Raises UserError for too few, too many or twice the same."""
    if len(found) < 2:
        raise UserError(
            Problem(
                where="",
                what="one run alone",
                why="there is nothing to compare it with",
                way_out="name another; `slipway runs` lists them",
            )
        )
    if len(found) > len(LETTERS):
        why = f"a comparison holds {len(LETTERS)} at most"
        raise UserError(Problem(where="", what=f"{len(found)} runs", why=why))
    seen = set[tuple[str, str]]()
    for cluster, facts in found:
        if (cluster, facts.run_id) in seen:
            way_out = "`slipway runs` lists them"
            raise UserError(
                Problem(where="", what=f"run {facts.run_id}", why="is named twice", way_out=way_out)
            )
        seen.add((cluster, facts.run_id))
    return [Run(letter, cluster, facts) for letter, (cluster, facts) in zip(LETTERS, found, strict=False)]
