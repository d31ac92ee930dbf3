"""Stands in for a stage's program: does what the variable STAND_IN_<STAGE> says, step by step.

`commit` writes the artifact's marker, `eat:MIB` takes memory, `exit:CODE` ends, `print:TEXT`, `sleep:SECONDS`
(or until told to drain: exit code 75), `rounds:N:WORKERS` runs N half-second tasks on as many Ray workers.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path

STOP = Path("/work/stop")
DRAINED = 75


def main(stage: str, plan: dict) -> None:
    for action in os.environ.get(f"STAND_IN_{stage.upper()}", "commit").split(","):
        what, _, value = action.partition(":")
        match what:
            case "commit":
                commit(plan["store"], next(item for item in plan["stages"] if item["kind"] == stage))
            case "eat":
                held = bytearray(int(value) * 1024**2)
                print(len(held))
            case "exit":
                sys.exit(int(value))
            case "print":
                print(value, flush=True)
            case "sleep":
                sleep(float(value))
            case "rounds":
                count, _, workers = value.partition(":")
                rounds(int(count), int(workers))


def commit(store: str, stage: dict) -> None:
    import boto3

    bucket, _, prefix = store.removeprefix("s3://").partition("/")
    marker = {"facts": {}, "files": [], "location": None}
    marker["sha256"] = hashlib.sha256(canonical(marker)).hexdigest()
    key = f"{prefix}/{stage['output']}/COMPLETE.json"
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=canonical(marker))


def canonical(value: dict) -> bytes:
    """As `artifacts.contract.canonical_json` writes it."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def sleep(duration_s: float) -> None:
    end = time.monotonic() + duration_s
    while time.monotonic() < end:
        if STOP.exists():
            sys.exit(DRAINED)
        time.sleep(0.2)


def rounds(count: int, workers: int) -> None:
    import ray

    ray.init(log_to_driver=False)

    @ray.remote(num_cpus=1, max_retries=-1)
    def where() -> str:
        time.sleep(0.5)
        return os.environ["NODE_NAME"]

    done = 0
    while done < count:
        if STOP.exists():
            sys.exit(DRAINED)
        if ray.cluster_resources().get("CPU", 0) < workers:
            time.sleep(0.2)
            continue
        try:
            tasks = [where.options(scheduling_strategy="SPREAD").remote() for _ in range(workers)]
            print(done, *ray.get(tasks, timeout=20), flush=True)
            done += 1
        except ray.exceptions.RayError as error:
            print(type(error).__name__, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(Path(sys.argv[sys.argv.index("--plan") + 1]).read_text()))
