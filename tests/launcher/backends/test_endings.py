"""`launcher.backends.endings`: only agreement is success, and every other ending has its name."""

from __future__ import annotations

import pytest

from launcher.backends.endings import Ending, ending, pause, queue_says
from tests.launcher.backends.api_answers import answer


@pytest.mark.parametrize("case", ["no-gpu", "quota", "deadline-stopping"])
def test_a_job_that_waits_or_stops_has_not_ended(case: str) -> None:
    body, pods, _ = answer("jobs", case)
    assert ending(body, pods) is None


@pytest.mark.parametrize(
    ("case", "end"),
    [
        ("complete", Ending(0)),
        ("exit-75", Ending(75)),
        (
            "memory-limit",
            Ending(
                -9,
                "memory-limit",
                "it reached its memory limit of 64Mi",
                "raise resources.prepare.memory in the cluster profile",
            ),
        ),
        (
            "deadline",
            Ending(None, "deadline", "it ran longer than limits.stage_s and limits.pending_s together"),
        ),
    ],
)
def test_how_a_job_ended(case: str, end: Ending) -> None:
    assert ending(*answer("jobs", case)[:2]) == end


def test_a_failed_job_whose_pod_is_gone() -> None:
    body, _, _ = answer("jobs", "exit-75")
    assert ending(body, []) == Ending(None, "deleted", "its pod is gone")


def test_a_stage_that_saved_while_it_was_put_out_is_drained_not_evicted() -> None:
    body, [pod], _ = answer("jobs", "exit-75")
    put_out = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
    pod["status"]["conditions"].append(put_out)
    assert ending(body, [pod]) == Ending(75, "", "its node put it out")
    pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] = 143
    assert ending(body, [pod]) == Ending(-15, "evicted", "its node put it out")


@pytest.mark.parametrize("case", ["running", "quota", "no-gpu", "suspended", "head-terminating"])
def test_a_training_that_goes_on_has_not_ended(case: str) -> None:
    body, pods, _ = answer("ray_jobs", case)
    assert ending(body, pods) is None


def test_how_a_training_ended() -> None:
    assert ending(*answer("ray_jobs", "succeeded")[:2]) == Ending(0)
    drained = ending(*answer("ray_jobs", "exit-75")[:2])
    assert drained is not None and (drained.exit_code, drained.ended_by) == (75, "")
    assert "Running entrypoint" in drained.output
    killed = ending(*answer("ray_jobs", "entrypoint-killed")[:2])
    assert killed is not None and (killed.exit_code, killed.ended_by) == (-9, "")
    assert killed.advice == "raise resources.head.memory in the cluster profile, if it was memory"


@pytest.mark.parametrize(
    ("status", "ended_by", "words"),
    [
        ({"jobStatus": "STOPPED", "jobDeploymentStatus": "Complete"}, "stopped", "stopped the Ray job"),
        ({"reason": "DeadlineExceeded", "message": "StartTime: …"}, "deadline", "limits.train_s"),
        ({"reason": "PreRunningDeadlineExceeded"}, "never-started", "not ready in time"),
        ({"reason": "SubmissionFailed", "message": "401"}, "cluster-trouble", "did not accept the job (401)"),
        ({"reason": "JobStatusCheckTimeoutExceeded"}, "cluster-trouble", "did not answer for too long"),
        ({"reason": "JobDeploymentStatusTransitionGracePeriodExceeded"}, "cluster-trouble", "notice in time"),
        (
            {"jobDeploymentStatus": "ValidationFailed", "reason": "ValidationFailed", "message": "bad"},
            "never-started",
            "the operator refuses the RayJob (bad)",
        ),
        ({"reason": "AppFailed", "message": "The actor died unexpectedly"}, "cluster-trouble", "actor died"),
        ({"reason": "AppFailed", "message": ""}, "cluster-trouble", "no reason was given"),
    ],
)
def test_reasons_of_the_operator(status: dict[str, str], ended_by: str, words: str) -> None:
    body, pods, _ = answer("ray_jobs", "exit-75")
    body["status"] |= {"message": "", **status}
    end = ending(body, pods)
    assert end is not None and (end.exit_code, end.ended_by) == (None, ended_by) and words in end.cause


def test_a_worker_out_of_memory_explains_a_failed_training_but_not_a_drained_one() -> None:
    body, pods, _ = answer("ray_jobs", "exit-75")
    worker = next(pod for pod in pods if pod["metadata"]["labels"]["ray.io/node-type"] == "worker")
    last = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    worker["status"]["containerStatuses"][0]["lastState"] = last
    drained = ending(body, pods)
    assert drained is not None and drained.exit_code == 75
    body["status"]["message"] = "Job entrypoint command failed with exit code 1, last available logs …"
    end = ending(body, pods)
    assert end is not None and end.ended_by == "memory-limit"
    assert "the worker reached" in end.cause and "resources.worker.memory" in end.advice


def test_why_nothing_runs_by_intention() -> None:
    body, _, _ = answer("ray_jobs", "suspended")
    assert pause(body) == "suspended by its queue: waits to be admitted"
    body["status"]["jobDeploymentStatus"] = "Retrying"
    assert "anew" in pause(body)
    job, _, _ = answer("jobs", "no-gpu")
    assert pause(job) == ""
    job["spec"]["suspend"] = True
    assert "queue" in pause(job)


def pending(workload: str, message: str, at: str, reason: str = "Pending") -> dict[str, object]:
    about = {"kind": "Workload", "name": workload}
    return {"involvedObject": about, "reason": reason, "message": message, "lastTimestamp": at}


def test_the_queues_newest_word_is_told() -> None:
    body = {"kind": "RayJob", "metadata": {"name": "slipway-train-1a2b"}}
    short = "couldn't assign flavors to pod set workers: insufficient unused quota for nvidia.com/gpu"
    events = [
        pending("rayjob-slipway-train-1a2b-5c3f2", "borrowing is not allowed", "2026-11-21T10:00:00Z"),
        pending("rayjob-slipway-train-1a2b-5c3f2", short, "2026-11-21T10:05:00Z"),
        pending("rayjob-slipway-train-1a2b-5c3f2", "Quota reserved", "2026-11-21T10:06:00Z", "QuotaReserved"),
        pending("rayjob-slipway-train-9999-5c3f2", "another's", "2026-11-21T10:07:00Z"),
        pending("job-slipway-train-1a2b-5c3f2", "of another kind", "2026-11-21T10:07:00Z"),
    ]
    assert queue_says(body, events) == short
    assert queue_says(body, []) == ""
