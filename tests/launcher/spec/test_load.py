from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.errors import UserError
from launcher.spec import explain
from launcher.spec.job import Job
from launcher.spec.kubernetes import KubernetesCluster, SecretKey
from launcher.spec.load import list_clusters, load_cluster, load_job, summarize_clusters
from launcher.spec.overrides import Override, apply, parse_override, parse_path

JOB = """\
name: bot
model: {twin: {}}
data:
  train: [train.jsonl, ../more.jsonl]
  test: /data/test.jsonl
method: lora
training:
  epochs: 1
  learning_rate:
"""


@pytest.fixture
def job_path(tmp_path: Path) -> Path:
    path = tmp_path / "jobs" / "bot.yaml"
    path.parent.mkdir()
    path.write_text(JOB)
    return path


def test_defaults_and_what_was_left_out(job_path: Path) -> None:
    job = load_job(job_path).value
    assert job.method.type == "lora"
    assert job.training.epochs == 1
    assert job.training.learning_rate is None  # an empty value is left out
    assert "learning_rate" not in job.training.model_fields_set
    assert job.after is None


def test_relative_paths_start_at_the_job_file(job_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    job = load_job(job_path, ["model={folder: ~/models/x}", "data.eval=dev.jsonl"]).value
    folder = job_path.parent
    assert job.data.train == [str(folder / "train.jsonl"), str(folder.parent / "more.jsonl")]
    assert job.data.test == "/data/test.jsonl"
    assert job.data.eval == str(folder / "dev.jsonl")
    assert job.model.folder == str(Path.home() / "models/x")


def test_paths_keep_symlinks(job_path: Path) -> None:
    """Where a link leads is for the planner to check, so it must be seen."""
    (job_path.parent / "train.jsonl").symlink_to("/etc/hostname")
    assert load_job(job_path).value.data.files("train")[0] == str(job_path.parent / "train.jsonl")


@pytest.mark.parametrize(
    ("field", "place"),
    [
        ("name", ":1:1"),
        ("data.train", ":4:3"),
        ("data.train[1]", ":4:24"),
        ("data.train.1", ":4:24"),
        ("training.learning_rate", ":9:3"),
        ("training.seed", ":7:1"),  # left out: its section
        ("compute.workers", ":1:1"),  # its section too
        ("", ":1:1"),
    ],
)
def test_where(job_path: Path, field: str, place: str) -> None:
    assert load_job(job_path).where(field) == f"{job_path}{place}"


def test_where_of_overrides(job_path: Path) -> None:
    loaded = load_job(job_path, ["training.seed=3", "compute={workers: 2}", "strategy.type=ddp"])
    assert loaded.where("training.seed") == "--set training.seed"
    assert loaded.where("compute.workers") == "--set compute"
    assert loaded.where("strategy") == "--set strategy.type"  # a section that only the override made
    assert loaded.where("training") == f"{job_path}:7:1"


def test_overrides_are_yaml_and_the_last_wins(job_path: Path) -> None:
    texts = [
        "training.learning_rate=1e-5",
        "training.learning_rate=2e-4",
        "training.epochs=",
        "training.steps=7",
    ]
    texts += ["method.rank=8", "after=[merge]", "data.train[0]=a=b.jsonl"]
    job = load_job(job_path, texts).value
    assert (job.training.learning_rate, job.training.epochs, job.training.steps) == (2e-4, None, 7)
    assert (job.method.type, job.method.rank) == ("lora", 8)
    assert job.after == ["merge"]
    assert job.data.files("train")[0].endswith("/a=b.jsonl")


def test_all_problems_in_the_order_of_the_file(job_path: Path) -> None:
    job_path.write_text(JOB.replace("epochs: 1", "epochs: -1").replace("bot", "Bot") + "foo: 1\n")
    with pytest.raises(UserError) as raised:
        load_job(job_path, ["training.seed=x", "nonsense"])
    places = [problem.where.removeprefix(str(job_path)) for problem in raised.value.problems]
    assert places == ["", ":1:1", ":8:3", ":10:1", "--set training.seed"]


@pytest.mark.timeout(20)
def test_many_problems_are_cut(job_path: Path) -> None:
    job_path.write_text(JOB + "".join(f"key{index}: 1\n" for index in range(9000)))
    with pytest.raises(UserError) as raised:
        load_job(job_path)
    assert len(raised.value.problems) == 51
    assert str(raised.value.problems[-1]) == f"{job_path} too many problems: more are not looked for"


def test_conflicts_are_found_beside_other_errors() -> None:
    plain = {"model": {"twin": {}}, "data": 3, "training": {"epochs": 1, "steps": 2, "seed": -1}}
    value, findings = explain.check(Job, plain)
    assert value is None
    assert {finding.path for finding in findings} == {
        ("name",),
        ("data",),
        ("training", "seed"),
        ("training", "steps"),
    }


def test_no_conflict_with_a_field_that_is_wrong_itself() -> None:
    """`predict` without test data is no news where data.test is what is wrong."""
    plain = {"name": "b", "model": {"twin": {}}, "data": {"train": "a", "test": 5}, "after": ["predict"]}
    _, findings = explain.check(Job, plain)
    assert [finding.path for finding in findings] == [("data", "test")]


def test_check_leaves_the_values_alone() -> None:
    plain = {"name": "B", "model": {"twin": {"layers": "x"}}, "data": {"train": "a"}}
    before = repr(plain)
    explain.check(Job, plain)
    assert repr(plain) == before


#: Time is no matter on a busy machine.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
SECTIONS = {
    name: list(explain.section_at(Job, (name,)).model_fields)
    for name in ("model", "data", "training", "method")
}  # type: ignore[union-attr]


@UNHURRIED
@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: st.dictionaries(st.sampled_from(fields), JSON) | JSON for name, fields in SECTIONS.items()
        },
    ),
    st.dictionaries(st.sampled_from(list(Job.model_fields)), JSON, max_size=3),
)
def test_any_values_give_a_job_or_findings(sections: dict[str, Any], rest: dict[str, Any]) -> None:
    value, findings = explain.check(Job, {**rest, **sections})
    assert (value is None) == bool(findings)
    assert all(finding.why for finding in findings)


@pytest.mark.parametrize("value", [math.nan, math.inf, True, "3", [3], {}])
def test_numbers_are_numbers(value: Any) -> None:
    plain = {"name": "b", "model": {"twin": {}}, "data": {"train": "a"}, "training": {"epochs": value}}
    _, findings = explain.check(Job, plain)
    assert [finding.path for finding in findings] == [("training", "epochs")]


def test_parse_path() -> None:
    assert parse_path("data.train[1]") == parse_path("data.train.1") == ("data", "train", 1)
    assert parse_path("") == ()


@UNHURRIED
@given(st.text(max_size=30))
def test_any_text_is_an_override_or_a_user_error(text: str) -> None:
    try:
        override = parse_override(text)
    except UserError:
        return
    result, problems = apply({"name": "bot", "after": ["merge"], "method": "lora"}, [override])
    assert problems or result is not None


def test_apply_makes_sections_and_leaves_the_original() -> None:
    plain: dict[str, Any] = {"after": ["merge"]}
    result, problems = apply(plain, [Override(("training", "steps"), 3), Override(("after", 0), "predict")])
    assert (result, problems) == ({"after": ["predict"], "training": {"steps": 3}}, [])
    assert plain == {"after": ["merge"]}


def test_clusters_of_the_working_directory_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_cluster("local").value.backend == "local"
    (tmp_path / "clusters").mkdir()
    (tmp_path / "clusters/local.yaml").write_text("backend: local\nstore: mine\n")
    (tmp_path / "clusters/lab.yaml").write_text("backend: local\n")
    assert list_clusters()["lab"] == Path("clusters/lab.yaml")
    cluster = load_cluster("local")
    assert cluster.where("store") == "clusters/local.yaml:2:1"
    assert cluster.value.store_uri == (tmp_path / "mine").as_uri()
    assert cluster.value.work_folder == tmp_path / ".slipway/work"
    assert load_cluster("clusters/lab.yaml").value.store == ".slipway/store"


def test_summaries_of_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clusters").mkdir()
    (tmp_path / "clusters/lab.yaml").write_text(
        "backend: kubernetes\nstore: s3://bucket/x\nimage: {registry: r.example.com}\n"
        "nodes: {cpus: 4, memory: 8Gi}\nnamespace: ml\ncontext: lab\n"
    )
    (tmp_path / "clusters/broken.yaml").write_text("backend: kubernetes\n")
    found = {summary.name: summary for summary in summarize_clusters()}
    lab, local, broken = found["lab"], found["local"], found["broken"]
    assert (lab.backend, lab.where, lab.store, lab.problem) == ("kubernetes", "lab/ml", "s3://bucket/x", "")
    assert (local.backend, local.where, local.store) == ("local", "this machine", ".slipway/store")
    assert broken.problem.startswith("clusters/broken.yaml:1:1 store: is required")
    assert broken.problem.endswith("(and 2 more)")


def test_sections_in_a_mapping_of_the_users_own_keys() -> None:
    assert explain.section_at(KubernetesCluster, ("secrets", "HF_TOKEN")) is SecretKey
    assert explain.section_at(KubernetesCluster, ("secrets",)) is None
    assert explain.section_at(KubernetesCluster, ("labels", "team")) is None


KUBERNETES = {
    "backend": "kubernetes",
    "store": "s3://bucket/x",
    "image": {"registry": "r.example.com"},
    "nodes": {"cpus": 4, "memory": "8Gi"},
}
CLUSTER_SECTIONS = [
    name for name in KubernetesCluster.model_fields if explain.section_at(KubernetesCluster, (name,))
]


@UNHURRIED
@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: JSON
            if (section := explain.section_at(KubernetesCluster, (name,))) is None
            else st.dictionaries(st.sampled_from(list(section.model_fields)), JSON) | JSON
            for name in CLUSTER_SECTIONS
        },
    ),
    st.dictionaries(st.sampled_from(list(KubernetesCluster.model_fields)), JSON, max_size=3),
)
def test_any_values_give_a_profile_or_findings(sections: dict[str, Any], rest: dict[str, Any]) -> None:
    value, findings = explain.check(KubernetesCluster, {**KUBERNETES, **rest, **sections})
    assert (value is None) == bool(findings)
    assert all(finding.why for finding in findings)
    if value is not None:  # what a plan carries can be read back
        assert KubernetesCluster.model_validate(value.model_dump(mode="json")) == value


def test_store_settings_carry_no_credentials() -> None:
    s3 = {"endpoint": "http://here:9000", "endpoint_in_cluster": "http://there:9000", "secret": "keys"}
    profile = KubernetesCluster.model_validate({**KUBERNETES, "s3": s3})
    assert profile.store_environment() == {
        "AWS_ENDPOINT_URL_S3": "http://here:9000",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_RETRY_MODE": "standard",
        "AWS_MAX_ATTEMPTS": "8",
        "SLIPWAY_S3_CONCURRENCY": "8",
        "SLIPWAY_S3_PART_BYTES": str(16 * 2**20),
    }
    assert profile.store_environment(in_cluster=True)["AWS_ENDPOINT_URL_S3"] == "http://there:9000"
    on_aws = KubernetesCluster.model_validate(KUBERNETES).store_environment()
    assert "AWS_ENDPOINT_URL_S3" not in on_aws


@pytest.mark.parametrize("profile", list_clusters().values(), ids=lambda path: path.stem)
def test_profiles_of_the_repository(profile: Path) -> None:
    load_cluster(profile)
