"""Job files and cluster profiles: text -> frozen, typed values, or every mistake at once with its place."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from launcher.errors import Problem, UserError
from launcher.spec import explain
from launcher.spec.cluster import BACKENDS, Cluster, LocalCluster
from launcher.spec.job import Job
from launcher.spec.kubernetes import KubernetesCluster
from launcher.spec.overrides import Override, apply, parse_override, parse_path
from launcher.spec.section import Section
from launcher.spec.words import shown, shown_path
from launcher.spec.yaml import Document, FieldPath, Position, read_mapping

T = TypeVar("T", bound=Section)
V = TypeVar("V", covariant=True)

_REPOSITORY_CLUSTERS = Path(__file__).resolve().parents[2] / "clusters"


@dataclass(frozen=True)
class Loaded(Generic[V]):
    """A typed value and where each field of it was written. `path` is the file as the user named it."""

    value: V
    path: Path
    document: Document = field(repr=False)
    overridden: tuple[FieldPath, ...] = ()

    def where(self, field: str = "") -> str:
        """`jobs/bot.yaml:14:3` or `--set training.steps` for a field as `training.steps` or `data.train[1]`.

        A field that was left out is where its section is."""
        return _where(self.path, self.document, self.overridden, parse_path(field))


def load_job(path: str | Path, overrides: Sequence[str] = ()) -> Loaded[Job]:
    """The job at `path` with `overrides` as `training.learning_rate=2e-4` in the order given.

    Relative paths in it (also in overrides) start at the job file and are absolute in the value. Only the job
    file is read: `launcher.spec.files` looks at what it names. Raises UserError."""
    loaded = _load(Job, Path(path), overrides)
    folder = Path(os.path.abspath(loaded.path)).parent  # noqa: PTH100 - resolve() would follow symlinks
    return Loaded(loaded.value.with_absolute_paths(folder), loaded.path, loaded.document, loaded.overridden)


def load_cluster(name_or_path: str | Path) -> Loaded[Cluster]:
    """The profile at a path (with a `/` or ending in .yaml), or of that name. Raises UserError."""
    path = _cluster_path(str(name_or_path))
    document = read_mapping(path)
    backend = document.value.get("backend")
    if backend == "kubernetes":
        return _load(KubernetesCluster, path, ())
    if backend == "local":
        return _load(LocalCluster, path, ())
    finding = explain.no_choice(("backend",), backend, BACKENDS)
    raise UserError(_problem(path, document, (), document.value, finding))


def list_clusters() -> dict[str, Path]:
    """Known profiles by name: of `clusters/` in the working directory, then of the repository."""
    found: dict[str, Path] = {}
    for home in (Path("clusters"), _REPOSITORY_CLUSTERS):
        for path in sorted(home.glob("*.yaml")):
            found.setdefault(path.stem, path)
    return found


@dataclass(frozen=True)
class ClusterSummary:
    """One line of `slipway clusters`. `problem` tells what is wrong with a profile that can't be used."""

    name: str
    path: Path
    backend: str = ""
    where: str = ""
    store: str = ""
    problem: str = ""


def summarize_clusters() -> list[ClusterSummary]:
    """Known profiles, and what each is of. A broken one is listed with its first mistake."""
    return [_summary(name, path) for name, path in list_clusters().items()]


def _summary(name: str, path: Path) -> ClusterSummary:
    try:
        value = load_cluster(str(path)).value
    except UserError as error:
        more = f" (and {len(error.problems) - 1} more)" if len(error.problems) > 1 else ""
        return ClusterSummary(name, path, problem=f"{error.problems[0]}{more}")
    return ClusterSummary(name, path, value.backend, value.where, value.store)


def _cluster_path(name_or_path: str) -> Path:
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        return Path(name_or_path)
    known = list_clusters()
    if name_or_path in known:
        return known[name_or_path]
    near = difflib.get_close_matches(name_or_path, known, n=1)
    listing = f"known: {', '.join(sorted(known))}; a new one is a file clusters/NAME.yaml"
    way_out = f"did you mean `{near[0]}`? ({listing})" if near else listing
    raise UserError(
        Problem(where="", what=f"cluster {shown(name_or_path)}", why="no such profile", way_out=way_out)
    )


def _load(model: type[T], path: Path, overrides: Sequence[str]) -> Loaded[T]:
    problems: list[Problem] = []
    parsed: list[Override] = []
    for text in overrides:
        try:
            parsed.append(parse_override(text))
        except UserError as error:
            problems += error.problems
    try:
        document = read_mapping(path)
    except UserError as error:
        raise UserError(error.problems + problems) from None
    plain, conflicts = apply(document.value, parsed)
    overridden = tuple(override.path for override in parsed)
    value, findings = explain.check(model, plain)

    def order(finding: explain.Finding) -> tuple[bool, Position]:
        overriding = _overriding(document, overridden, finding.path)
        return (overriding is not None, _place(document, finding.path))

    problems += conflicts
    problems += [
        _problem(path, document, overridden, plain, finding) for finding in sorted(findings, key=order)
    ]
    if len(findings) == explain.MAX_FINDINGS:
        problems.append(Problem(where=str(path), what="too many problems", why="more are not looked for"))
    if problems or value is None:
        raise UserError(problems)
    return Loaded(value, path, document, overridden)


def _problem(
    path: Path, document: Document, overridden: Sequence[FieldPath], plain: Any, finding: explain.Finding
) -> Problem:
    where = _where(path, document, overridden, finding.path)
    what = shown_path(finding.path)
    value, is_there = _value_at(plain, finding.path)
    if finding.path in overridden:
        what = f"= {shown(value)}"
    elif is_there and not isinstance(value, dict):
        what += f": {shown(value)}"
    way_out = finding.way_out
    in_file = [other for other in finding.also if other in document.keys and other not in overridden]
    if finding.path in overridden and in_file:
        way_out += f" (--set {shown_path(in_file[0])}= leaves out what the file says)"
    return Problem(where=where, what=what, why=finding.why, way_out=way_out)


def _where(path: Path, document: Document, overridden: Sequence[FieldPath], field: FieldPath) -> str:
    if override := _overriding(document, overridden, field):
        return f"--set {shown_path(override)}"
    place = _place(document, field)
    return f"{path}:{place.line}:{place.column}"


def _overriding(document: Document, overridden: Sequence[FieldPath], field: FieldPath) -> FieldPath | None:
    """The override that the field comes from: of the field itself, of a section above it, or of a field in a
    section that only the command line has."""
    above = [other for other in overridden if field[: len(other)] == other]
    below = [other for other in overridden if other[: len(field)] == field and field not in document.values]
    return max(above, key=len) if above else below[0] if below else None


def _place(document: Document, field: FieldPath) -> Position:
    """The key's position in the file, else that of the section where it is missing."""
    for length in range(len(field), 0, -1):
        if place := document.keys.get(field[:length]) or document.values.get(field[:length]):
            return place
    return Position(1, 1)


def _value_at(plain: Any, path: FieldPath) -> tuple[Any, bool]:
    for part in path:
        try:
            plain = plain[part]
        except (KeyError, IndexError, TypeError):
            return None, False
    return plain, True
