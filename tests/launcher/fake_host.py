"""A stage host without libraries: the protocol of `train.host`, with stages that only sleep and write. With
arguments it is one stage by itself, as `python -m train`.

How a stage behaves is read from the file in $FAKE_BEHAVIOUR: `{"<kind>": ["<attempt 1>", "<attempt 2>", …]}`,
each of `ok` (the default), `exit:N`, `kill:N`, `fail:<cause>|<advice>`, `user:<cause>`, `silent` (exit code 0
and no artifact), `late` (artifact, then exit code 1), `print:<text>` (log it, exit code 1), `slow:S`.
Every start is a line in the ledger beside it; `OVERLAP` there means that two processes made one artifact.
"""

from __future__ import annotations

import fcntl
import json
import os
import selectors
import signal
import sys
import time
from pathlib import Path

from artifacts.contract import Plan, StageKind, StagePlan
from artifacts.events import Events, stop_key
from artifacts.manifest import MARKER, ArtifactWriter, is_complete
from artifacts.store import Store, open_store

STEPS = 6
STEP_S = 0.01


def main() -> None:
    if sys.argv[1:]:
        sys.exit(run_arguments(sys.argv[1:]))
    if os.environ.get("FAKE_HOST_FAILS"):
        sys.exit("no such library")
    print(json.dumps({"ready": True}), flush=True)
    children: dict[int, str] = {}
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    rest = b""
    while True:
        if selector.select(timeout=0.01):
            block = os.read(0, 65536)
            if not block:
                break
            *lines, rest = (rest + block).split(b"\n")
            for request in map(json.loads, lines):
                pid = os.fork()
                if pid == 0:
                    os._exit(run_child(request))
                children[pid] = request["id"]
                print(json.dumps({"id": request["id"], "pid": pid}), flush=True)
        reap(children)
    end(children)


def reap(children: dict[int, str]) -> None:
    for pid in list(children):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            try:
                print(json.dumps({"id": children.pop(pid), "exit": code}), flush=True)
            except BrokenPipeError:
                sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115


def end(children: dict[int, str]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in children:
            os.kill(pid, number)
        deadline = time.monotonic() + 2
        while children and time.monotonic() < deadline:
            reap(children)
            time.sleep(0.01)


def run_child(request: dict) -> int:
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    return run_arguments(request["argv"])


def run_arguments(argv: list[str]) -> int:
    plan = Plan.from_json(Path(argv[argv.index("--plan") + 1]).read_bytes())
    stage = plan.stage(argv[0])
    try:
        return run_stage(stage, open_store(plan.store), argv[argv.index("--run") + 1])
    except SystemExit as ending:
        return int(ending.code or 0)


def run_stage(stage: StagePlan, store: Store, run_id: str) -> int:
    if is_complete(store, stage.output):
        return 0
    behaviour_file = Path(os.environ["FAKE_BEHAVIOUR"])
    ledger = behaviour_file.with_name("ledger")
    alone = open(behaviour_file.with_name(f"alone-{stage.key}"), "w")  # noqa: PTH123, SIM115
    try:
        fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        write(ledger, "OVERLAP " + stage.kind)
    attempt = ledger.read_text().splitlines().count(str(stage.kind)) if ledger.exists() else 0
    write(ledger, stage.kind)
    events = Events(store, run_id, stage.kind, flush_every_s=0.0)
    events.say("started", pid=os.getpid())
    print(f"{stage.kind}: attempt {attempt + 1}", flush=True)
    plan = json.loads(behaviour_file.read_text()).get(stage.kind, [])
    what, _, more = (plan[attempt] if attempt < len(plan) else "ok").partition(":")
    work(stage, store, run_id, events, slow=float(more) if what == "slow" else 0.0, before=what)
    if what == "print":
        print(more, flush=True)
        return 1
    if what == "exit":
        return int(more)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if what == "kill":
        os.kill(os.getpid(), int(more))
    if what in ("fail", "user"):
        cause, _, advice = more.partition("|")
        events.say("failed", cause=cause, advice=advice)
        return 2 if what == "user" else 1
    if what != "silent":
        writer = ArtifactWriter(store, stage.output)
        writer.write_bytes("made-by.txt", stage.kind.encode())
        if stage.kind == StageKind.PREDICT:
            predictions(writer)
        writer.commit()
    if what == "late":
        return 1
    events.say("finished")
    return 0


def work(stage: StagePlan, store: Store, run_id: str, events: Events, *, slow: float, before: str) -> None:
    """Training saves a checkpoint at each step and stops on request; attempts that fail do so half-way."""
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(1) if stage.kind == "train" else sys.exit(143))
    prefix = f"train/{stage.key}"
    saved = [int(info.key.split("/")[2].split("-")[1]) for info in store.list(prefix) if MARKER in info.key]
    first = max(saved, default=0) + 1 if stage.kind == "train" else 1
    steps = STEPS if before in ("ok", "slow", "silent", "late") else STEPS // 2
    for step in range(first, steps + 1):
        time.sleep(slow / STEPS if slow else STEP_S)
        if stage.kind == "train":
            checkpoint = ArtifactWriter(store, f"{prefix}/checkpoint-{step}-1")
            checkpoint.write_bytes("adapter.safetensors", b"weights %d" % step)
            checkpoint.commit()
            events.say("checkpoint", step=step, prefix=checkpoint.prefix)
        events.progress(step, STEPS, "steps", loss=1 / step, tokens_per_second=1000.0, epoch=step / STEPS)
        events.flush()
        if stage.kind == "train" and (asked or store.exists(stop_key(run_id))):
            events.say("drained", text="stopped on request")
            sys.exit(75)


def predictions(writer: ArtifactWriter) -> None:
    rows = [
        {
            "index": index,
            "prompt": [{"role": "user", "content": f"question {index}?"}],
            "reference": f"answer {index}",
            "base": "noise",
            "tuned": f"answer {index}",
        }
        for index in range(5)
    ]
    writer.write_bytes("predictions.jsonl", b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    base, tuned = ({"exact_match": share, "bleu4": share} for share in (0.0, 100.0))
    writer.write_bytes("scores.json", json.dumps({"base": base, "tuned": tuned, "records": 5}).encode())


def write(path: Path, line: str) -> None:
    with path.open("a") as stream:
        stream.write(f"{line}\n")


if __name__ == "__main__":
    main()
