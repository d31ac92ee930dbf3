"""What is refused before anything is spent."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from artifacts.contract import Plan, StageKind
from artifacts.store import StoreError
from launcher.errors import UserError
from launcher.publishing import ready
from launcher.publishing.target import inside_store, parse
from tests.artifacts.remote import RemoteStore
from tests.launcher.publishing import runs, stand_in
from tests.launcher.publishing.stand_in import StandIn

PROFILE = {
    "backend": "kubernetes",
    "namespace": "ml",
    "store": "s3://bucket/runs",
    "image": {"registry": "registry.example.com/ml"},
    "nodes": {"cpus": 8.0, "memory": "32Gi"},
}


@pytest.fixture
def made(tmp_path: Path) -> tuple[Any, Plan]:
    return runs.make(tmp_path / "store", products=["adapter"])


def on_cluster(plan: Plan, **changes: object) -> Plan:
    return dataclasses.replace(plan, backend="kubernetes", cluster="prod", profile={**PROFILE, **changes})


def test_targets() -> None:
    assert parse("hub://org/name").uri == "hub://org/name"
    bucket = parse("s3://bucket/a/b/")
    assert (bucket.parent_uri, bucket.folder, bucket.uri) == ("s3://bucket/a", "b", "s3://bucket/a/b")
    for wrong in ("hub://name", "s3://bucket", "ftp://x/y", "org/name"):
        with pytest.raises(UserError, match="neither hub://"):
            parse(wrong)


@pytest.mark.parametrize(
    ("to", "store", "inside"),
    [
        ("s3://bucket/runs/bot", "s3://bucket/runs", True),
        ("s3://bucket/runs", "s3://bucket/runs", True),
        ("s3://bucket/runs", "s3://bucket/runs/team", True),
        ("s3://bucket/runs-2", "s3://bucket/runs", False),
        ("s3://other/runs", "s3://bucket/runs", False),
        ("s3://bucket/bot", "file:///x", False),
    ],
)
def test_a_publication_and_a_store_don_t_lie_in_one_another(to: str, store: str, inside: bool) -> None:
    assert inside_store(parse(to), store) == inside


def test_a_bucket_within_the_store_is_refused(tmp_path: Path) -> None:
    store, plan = runs.make(tmp_path / "store", "s3://bucket/runs/bot")
    with pytest.raises(UserError, match="lie within one another; name another prefix"):
        ready.require(dataclasses.replace(plan, store="s3://bucket/runs"), store, print)


def test_on_a_cluster_the_token_comes_from_a_secret(made: tuple[Any, Plan]) -> None:
    store, plan = made
    with pytest.raises(UserError, match=r"cluster prod gives pods no HF_TOKEN; kubectl -n ml create secret"):
        ready.require(on_cluster(plan), store, print)
    ready.require(on_cluster(plan, secrets={"HF_TOKEN": {"secret": "hub", "key": "token"}}), store, print)


def test_what_is_published_already_needs_no_token(
    made: tuple[Any, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, plan = made
    runs.put(store, plan.stage(StageKind.PUBLISH), {"published.json": b"{}"})
    monkeypatch.setattr(ready, "find_token", lambda: pytest.fail("asked for a token"))
    ready.require(plan, store, print)


def test_a_plan_without_a_publication_is_not_looked_at(made: tuple[Any, Plan]) -> None:
    store, plan = made
    rest = [stage for stage in plan.stages if stage.kind != StageKind.PUBLISH]
    ready.require(dataclasses.replace(plan, stages=rest), store, print)


@pytest.mark.parametrize(
    ("account", "words"),
    [
        ({"name": "me", "orgs": [{"name": "Org"}]}, None),
        ({"name": "org", "orgs": []}, None),
        ({"name": "me"}, None),
        ({}, None),
        ({"name": "me", "orgs": []}, "is no member of org; publish to one of me,"),
        ({"auth": {"accessToken": {"role": "read"}}}, "the token may only read"),
        ({"name": "org", "orgs": [], "auth": {"accessToken": {"role": "fineGrained"}}}, None),
    ],
)
def test_who_may_write(account: dict[str, Any], words: str | None) -> None:
    if words is None:
        return ready.require_may_write("org/bot", account)
    with pytest.raises(UserError, match=words):
        ready.require_may_write("org/bot", account)


def test_a_bucket_is_written_to_and_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = RemoteStore(tmp_path / "bucket")
    monkeypatch.setattr(ready, "open_store", lambda uri: bucket)
    store, plan = runs.make(tmp_path / "store", "s3://acme/bots/bot")
    ready.require(plan, store, print)
    assert list(bucket.list("")) == []
    for error, words in (
        (
            StoreError("store", "there is no such bucket", "correct `store` in the cluster profile"),
            "name one",
        ),
        (StoreError("store", "the credentials have expired", "sign in again"), "sign in again"),
    ):
        monkeypatch.setattr(bucket, "write_bytes", Mock(side_effect=error))
        with pytest.raises(UserError, match=f"publish.to: s3://acme/bots/bot: {error.why}; .*{words}"):
            ready.require(plan, store, print)


@pytest.mark.products
@pytest.mark.parametrize(
    ("token", "public", "words"),
    [
        (stand_in.WRITER, False, None),
        (stand_in.WRITER, True, "is public"),
        (stand_in.READER, False, "the token may only read"),
        ("hf_unknownTokenOfNobody00001", False, "doesn't accept the token"),
        ("", False, "there is no token for the hub"),
    ],
)
def test_the_hub_is_asked_before_anything_begins(
    hub: StandIn,
    made: tuple[Any, Plan],
    monkeypatch: pytest.MonkeyPatch,
    token: str,
    public: bool,
    words: str | None,
) -> None:
    store, plan = made
    monkeypatch.setenv("HF_TOKEN", token)
    if public:
        hub.make(runs.REPOSITORY, private=False)
    if words is None:
        ready.require(plan, store, print)
        assert runs.REPOSITORY not in hub.repositories  # nothing is made yet
    else:
        with pytest.raises(UserError, match=words):
            ready.require(plan, store, print)


@pytest.mark.products
def test_a_hub_out_of_reach_is_no_reason_not_to_begin(
    hub: StandIn, made: tuple[Any, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, plan = made
    said: list[str] = []
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    ready.require(plan, store, said.append)
    assert len(said) == 1 and "can't be reached" in said[0]


@pytest.mark.products
def test_a_token_that_signing_in_has_left_is_as_good(
    hub: StandIn, made: tuple[Any, Plan], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store, plan = made
    (tmp_path / "token").write_text(f"{stand_in.WRITER}\n")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    ready.require(plan, store, print)
    runs.publish(store, plan)
    assert runs.REPOSITORY in hub.repositories
