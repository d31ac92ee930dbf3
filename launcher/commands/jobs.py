"""Commands about job files: init, pin, plan, submit, schema, clusters."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from launcher.commands.options import AsJson, ClusterName, Detach, Fresh, JobFile, Overrides, Rehearse
from launcher.commands.output import columns, remark, say, show_json

if TYPE_CHECKING:
    from artifacts.contract import Plan
    from launcher.commands.options import Place


def init(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the job; the file is NAME.yaml.")
    ] = "my-job",
) -> None:
    """Write a commented starter job.

    Example: slipway init support-bot, then edit support-bot.yaml
    """
    import re

    from launcher.errors import Problem, UserError
    from launcher.spec.job_grammar import NAME_PATTERN
    from launcher.spec.starter import starter_job

    path = Path(name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
    if not re.fullmatch(NAME_PATTERN, path.stem):
        why = "a job's name is lower-case letters, digits and dashes, at most 30, beginning with a letter"
        raise UserError(Problem(where="", what=path.stem, why=why))
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(starter_job(path.stem))
    except FileExistsError:
        raise UserError(
            Problem(
                where=str(path), what="init", why="the file is there already", way_out="choose another name"
            )
        ) from None
    except OSError as error:
        raise UserError(Problem(where=str(path), what="init", why=str(error.strerror))) from error
    say(f"{path} written; next: edit it, then `slipway plan {path}`")


def pin(job: JobFile, as_json: AsJson = False) -> None:
    """Write full revisions of remote inputs into the job.

    A plan needs no network, so hub models must be pinned, and artifacts of a store by their digest. Comments
    and layout of the file stay as they are.

    Example: slipway pin support-bot.yaml
    """
    from launcher.spec.pin import pin_job

    changes = pin_job(job)
    if as_json:
        show_json(changes)
    else:
        say("\n".join(map(str, changes)) or f"{job}: nothing to pin")


def plan(
    job: JobFile,
    cluster: ClusterName = "local",
    overrides: Overrides = None,
    rehearse: Rehearse = False,
    fresh: Fresh = False,
    as_json: AsJson = False,
) -> None:
    """Show what submitting the job would do, and why.

    Starts nothing, needs no network. Each derived value comes with its reason, each stage with its key and
    whether it is complete already, as far as the store can be asked.

    Example: slipway plan support-bot.yaml --set training.learning_rate=2e-4
    """
    from launcher.planning.text import render, to_json
    from launcher.stages.done import ask

    made, place = make_plan(job, cluster, overrides, rehearse=rehearse, fresh=fresh)
    answer = ask(made, place.store)
    if as_json:
        say(to_json(made, answer.complete))
    else:
        say(render(made, answer.complete, unknown=answer.why))


def submit(
    job: JobFile,
    cluster: ClusterName = "local",
    overrides: Overrides = None,
    rehearse: Rehearse = False,
    fresh: Fresh = False,
    detach: Detach = False,
    as_json: AsJson = False,
) -> None:
    """Carry a job to its end, or attach to its run.

    Data, model, tokens, training, merge, answers, report. Stages that are complete are skipped, so the same
    command goes on after a failure or a kill. While the run is alive it attaches to it; ^C detaches and the
    run goes on.

    Examples:

      slipway submit support-bot.yaml

      slipway submit support-bot.yaml --rehearse   (tiny model, a few steps: does it work at all?)

      slipway submit support-bot.yaml --set training.epochs=5 --detach
    """
    from launcher.commands.follow import attend
    from launcher.commands.starting import start

    made, place = make_plan(job, cluster, overrides, rehearse=rehearse, fresh=fresh)
    attend(place, start(made, place), detach=detach, as_json=as_json)


def schema(
    what: Annotated[str, typer.Argument(metavar="job|cluster", help="Which file's schema.")] = "job",
) -> None:
    """Print the JSON Schema of job or cluster files.

    Editors complete and check with it.

    Example: slipway schema job > job.schema.json
    """
    from launcher.errors import Problem, UserError
    from launcher.spec.schema import cluster_schema, job_schema

    if what not in ("job", "cluster"):
        raise UserError(Problem(where="", what=what, why="no such schema", way_out="job or cluster"))
    show_json(job_schema() if what == "job" else cluster_schema())


def clusters(as_json: AsJson = False) -> None:
    """List the cluster profiles that --cluster can name.

    With each its backend, where that is (this machine, or context/namespace), and the store of its artifacts.
    """
    from launcher.spec.load import summarize_clusters

    found = summarize_clusters()
    if as_json:
        show_json({summary.name: summary for summary in found})
        return
    rows = [[one.name, one.backend, one.where, one.store, str(one.path)] for one in found if not one.problem]
    say(columns(rows, ["CLUSTER", "BACKEND", "WHERE", "STORE", "FILE"]))
    for summary in found:
        if summary.problem:
            remark(f"{summary.name} can't be used: {summary.problem}")


def make_plan(
    job: Path, cluster: str, overrides: list[str] | None, *, rehearse: bool, fresh: bool
) -> tuple[Plan, Place]:
    """The plan of a job file, and where it is carried out. Raises UserError with every mistake of the job."""
    from launcher.commands.options import place_of
    from launcher.machine import detect
    from launcher.plan import make
    from launcher.spec.load import load_cluster, load_job

    loaded, profile = load_job(job, overrides or ()), load_cluster(cluster)
    salt = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()) if fresh else None
    made = make(loaded, profile, detect(), rehearse=rehearse, fresh=salt)
    return made, place_of(cluster, profile.value)
