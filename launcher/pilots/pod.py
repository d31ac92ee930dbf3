"""The pilot as a pod: `launcher.run.drive` in the cluster, from whatever an earlier pod has left.

    python -m launcher.pilots.pod --plan /etc/slipway/plan.json --run RUN

Exit codes: 0 done, or drained on request; 1 and 2: the run failed, and another pod would end the same way;
anything else (the cluster, the store, a lost lease): the Job starts another pod, which goes on.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from artifacts.contract import Plan, StageKind
from artifacts.store import Store, open_store
from launcher import record, report
from launcher.backends import manifest
from launcher.backends.kubernetes import KubernetesBackend
from launcher.errors import EXIT_CLUSTER_ERROR, ClusterError, SlipwayError
from launcher.kube import Kube, Object
from launcher.pilots.lease import Lease
from launcher.pilots.progress import ANNOTATION, ProgressTeller
from launcher.run import drive
from launcher.spec.kubernetes import KubernetesCluster
from launcher.stages.image import Images, read_images

EXIT_TERMINATED = 128 + signal.SIGTERM


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m launcher.pilots.pod")
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--run", required=True)
    options = parser.parse_args(arguments)
    plan = Plan.from_json(options.plan.read_bytes())
    try:
        return pilot(plan, options.run)
    except SlipwayError as error:
        print(error, file=sys.stderr, flush=True)
        return error.exit_code


def pilot(plan: Plan, run_id: str) -> int:
    """Drive the run, once no other pod does. Returns 0; raises what `launcher.run.drive` raises."""
    profile = KubernetesCluster.model_validate(plan.profile)
    os.environ.update(profile.store_environment(in_cluster=True))
    store, kube = open_store(plan.store), Kube.connect(profile.namespace)
    record.create(store, plan, run_id)  # here where `kubectl apply` started this pod
    images = _images(store, plan)
    name = manifest.pilot_name(run_id)
    job = kube.get("Job", name)
    if job is None:
        raise ClusterError(f"job {name}", "not in the cluster", "`slipway resume` starts another pilot")
    lease = Lease(kube, name, _holder(), owner=job, labels=manifest.labels(plan, run_id), lost=_leave)
    _release_on_sigterm(lease)
    lease.acquire(waiting=lambda holder: print(f"waiting: {holder} drives {run_id}", flush=True))
    try:
        return _drive(plan, run_id, store, kube, images, job)
    except SlipwayError as error:
        if error.exit_code != EXIT_CLUSTER_ERROR:
            kube.patch("Job", name, manifest.LAST_PILOT)
        raise
    finally:
        lease.release()


def _drive(plan: Plan, run_id: str, store: Store, kube: Kube, images: Images, job: Object) -> int:
    def tell(line: str) -> None:
        print(line, flush=True)
        kube.patch("Job", manifest.pilot_name(run_id), {"metadata": {"annotations": {ANNOTATION: line}}})

    backend = KubernetesBackend(plan, run_id, store, kube, images, job["metadata"]["uid"])
    with ProgressTeller(store, run_id, [stage.kind for stage in plan.stages], tell):
        drive(plan, run_id, store, backend, write_report=lambda: report.write(store, run_id))
    return 0


def _images(store: Store, plan: Plan) -> Images:
    images = read_images(store, plan.stage(StageKind.IMAGE))
    if images is None:
        way_out = f"`slipway stage JOB --cluster {plan.cluster}`"
        raise ClusterError("image", "it is not in the store", way_out)
    return images


def _holder() -> str:
    """The pod's name: no other has it while this one's object is there."""
    return os.environ.get("POD_NAME") or os.uname().nodename


def _leave(why: str) -> None:
    """Another pod may drive from now on: end at once, in the middle of whatever this one does."""
    print(f"the lease is lost: {why}", file=sys.stderr, flush=True)
    os._exit(EXIT_CLUSTER_ERROR)


def _release_on_sigterm(lease: Lease) -> None:
    """A pod that is deleted just ends, but lets the next one begin without waiting for the lease to expire.
    The drive is not unwound: what it has started goes on."""
    told = threading.Event()

    def end() -> None:
        told.wait()
        lease.release()
        os._exit(EXIT_TERMINATED)

    threading.Thread(target=end, name="sigterm", daemon=True).start()
    signal.signal(signal.SIGTERM, lambda number, frame: told.set())


if __name__ == "__main__":
    sys.exit(main())
