"""`python -m train STAGE --plan FILE --run RUN_ID --work DIR`: one stage of a plan, as a process.

The exit code is one of `artifacts.contract.EXIT_*`; what happened is told in the run's events.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from pathlib import Path

from artifacts.contract import EXIT_DONE, EXIT_FAILED, Plan
from artifacts.download import InputError
from artifacts.events import Events
from artifacts.manifest import is_complete
from artifacts.store import open_store
from train.stage import Drained, StageContext, StageError

# Each module has `run(context)`. Imported only when its stage runs: prepare needs no torch.
MODULES = {
    "model": "train.model",
    "original": "train.model",
    "adapter": "train.adapter",
    "prepare": "train.prepare",
    "train": "train.entrypoint",
    "merge": "train.merge",
    "quantize": "train.quantize",
    "gguf": "train.gguf",
    "predict": "train.predict",
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m train", description=__doc__)
    parser.add_argument("stage", choices=MODULES)
    parser.add_argument("--plan", type=Path, required=True, help="plan.json")
    parser.add_argument("--run", required=True, help="run id")
    parser.add_argument("--work", type=Path, required=True, help="scratch folder")
    options = parser.parse_args(argv)
    plan = Plan.from_json(options.plan.read_bytes())
    store = open_store(plan.store)
    context = StageContext(
        plan=plan,
        run_id=options.run,
        stage=plan.stage(options.stage),
        store=store,
        work=options.work,
        events=Events(store, options.run, options.stage),
    )
    return run_stage(context)


def run_stage(context: StageContext) -> int:
    """Run the stage unless its artifact is complete; returns the exit code, having told the events why."""
    events = context.events
    if is_complete(context.store, context.stage.output):
        return EXIT_DONE
    events.say("started", pid=os.getpid())
    try:
        context.work.mkdir(parents=True, exist_ok=True)
        importlib.import_module(MODULES[context.stage.kind]).run(context)
    except Drained as ending:
        events.say("drained", text=ending.cause)
        return ending.exit_code
    except StageError as error:
        print(f"error: {error}", file=sys.stderr)
        events.say("failed", cause=error.cause, advice=error.advice)
        return error.exit_code
    except InputError as error:
        print(f"error: {error}; {error.advice}", file=sys.stderr)
        events.say("failed", cause=error.cause, advice=error.advice)
        return EXIT_FAILED
    except Exception as error:
        traceback.print_exc()
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        events.say("failed", cause=cause, advice="", detail=traceback.format_exc())
        return EXIT_FAILED
    finally:
        events.flush()
    events.say("finished")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
