"""Stage `publish`: products of the run and their card, to where others find them."""

from __future__ import annotations

import os
from collections.abc import Callable

from artifacts.contract import Plan, PublishParams, StageKind, canonical_json
from artifacts.events import Events
from artifacts.manifest import ArtifactWriter
from artifacts.redact import Redactor
from artifacts.store import Store, open_store
from launcher.publishing import base_model, bucket, card, curves, licence, products, ready
from launcher.publishing.hub import Repository, find_token
from launcher.publishing.products import PublishedFile
from launcher.publishing.target import Target, parse
from launcher.reporting.collect import collect

RESULT = "published.json"


def run(plan: Plan, run_id: str, store: Store, events: Events) -> None:
    """Publish, and make the artifact: `published.json`, `{"address", "revision", "private", "files":
    [{"path", "size_bytes", "sha256"}]}`; `private` is null of a bucket.

    Raises UserError (token, permission, a public repository where a private one is asked for), ClusterError
    (the hub), StoreError (the bucket) and DamagedError; then nothing shows that was not there before.
    """
    stage = plan.stage(StageKind.PUBLISH)
    params: PublishParams = stage.params
    target = parse(params.to)
    repository = ready.repository(target, params) if target.kind == "hub" else None

    def progress(done: int, total: int) -> None:
        events.progress(done, total, "bytes")

    files = _files(plan, run_id, store, target, progress)
    private, address = None, target.uri
    if repository is not None:
        private = _make_ready(repository, params, events)
        message = f"{plan.name}: {', '.join(params.products)} ({run_id})"
        address, revision = repository.address, repository.upload(files, message, progress)
    else:
        revision = bucket.put(open_store(target.parent_uri), target.folder, files, progress)
    _record(store, stage.output, address, revision, private, files)
    events.say("note", text=f"published at {address}, revision {revision[:12]}")


def _files(
    plan: Plan, run_id: str, store: Store, target: Target, progress: Callable[[int, int], None]
) -> list[PublishedFile]:
    """The products' files, each checked, their curves and their card."""
    stage = plan.stage(StageKind.PUBLISH)
    params: PublishParams = stage.params
    wanted = products.manifests(stage, params.products, store)
    base_name = base_model.hub_name(plan, "adapter")
    files = products.collect(stage, wanted, store, base_name=base_name, progress=progress)
    facts = collect(store, run_id)
    drawing = curves.draw(facts.steps, facts.evaluations)
    if drawing is not None:
        files.append(PublishedFile.of_bytes(curves.FILE, drawing.encode()))
    stated = licence.find(plan, store, params, ask_hub=target.kind == "hub")
    text = card.render(facts, stage, wanted, stated, files, target, has_curves=drawing is not None)
    secrets = dict(os.environ)
    if target.kind == "hub" and (token := find_token()):
        secrets[ready.TOKEN] = token
    return [*files, PublishedFile.of_bytes(card.FILE, Redactor(secrets)(text).encode())]


def _make_ready(repository: Repository, params: PublishParams, events: Events) -> bool:
    """The repository, made where it is not there. Returns whether it is private."""
    there = repository.is_private()
    if there is None:
        repository.create(private=params.private)
        there = repository.is_private()
    private = ready.require_as_private(repository, params, there)
    if private and not params.private:
        events.say("note", text=f"{repository.address} is private and stays so: its settings change that")
    return private


def _record(
    store: Store,
    output: str,
    address: str,
    revision: str,
    private: bool | None,
    files: list[PublishedFile],
) -> None:
    writer = ArtifactWriter(store, output)
    listed = [
        {"path": file.path, "size_bytes": file.size_bytes, "sha256": file.sha256}
        for file in sorted(files, key=lambda file: file.path)
    ]
    result = {"address": address, "revision": revision, "private": private, "files": listed}
    writer.write_bytes(RESULT, canonical_json(result) + b"\n")
    writer.commit(address=address, revision=revision)
