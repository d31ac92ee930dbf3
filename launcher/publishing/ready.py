"""What must hold before a run that ends in a publication begins: looked at before anything is spent."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from artifacts.contract import Plan, PublishParams, StageKind
from artifacts.store import Store, StoreError, open_store
from launcher.errors import Problem, UserError
from launcher.publishing import hub_errors
from launcher.publishing.hub import Repository, find_token
from launcher.publishing.hub_errors import NO_TOKEN, OutOfReach
from launcher.publishing.target import Target, inside_store, parse
from launcher.spec.kubernetes import KubernetesCluster
from launcher.stages.done import is_done

TOKEN = "HF_TOKEN"
_PROBE = b"slipway"


def require(plan: Plan, store: Store, say: Callable[[str], None]) -> None:
    """Raises UserError where the plan's publication could not be made: no token or a wrong one, a repository
    that is public, a bucket within the store. What is said of a hub or bucket that gives no answer now goes
    to `say`: it may by then. Makes nothing."""
    if not plan.has(StageKind.PUBLISH):
        return
    stage = plan.stage(StageKind.PUBLISH)
    params: PublishParams = stage.params
    target = parse(params.to)
    if target.kind == "s3" and inside_store(target, plan.store):
        why = "it and the run's store lie within one another"
        raise UserError(
            Problem(where="", what=f"publish.to: {target.uri}", why=why, way_out="name another prefix")
        )
    if is_done(stage, store):
        return
    if plan.backend == "kubernetes":
        if target.kind == "hub":
            _require_secret(plan)
    elif target.kind == "hub":
        _require_hub(target, params, say)
    else:
        _require_bucket(target)


def repository(target: Target, params: PublishParams) -> Repository:
    """Raises UserError where there is no token."""
    token = find_token()
    if not token:
        raise hub_errors.problem(target.name, "there is no token for the hub", NO_TOKEN)
    return Repository(target.name, token)


def require_as_private(repository: Repository, params: PublishParams, private: bool | None) -> bool:
    """`private`: what the repository is, None where it can't be seen. Returns it. Raises UserError where it
    is public and a private one is asked for: its visibility is not ours to change, nor to ignore."""
    if private is None:
        why = "it is there and not to be seen with this token, or could not be made"
        raise hub_errors.problem(repository.name, why, "use a token that reaches it, or another name")
    if params.private and not private:
        why = f"{repository.address} is public, and publish.private asks for a private one"
        way_out = "make it private in its settings, name another, or say publish.private: false"
        raise hub_errors.problem(repository.name, why, way_out)
    return private


def require_may_write(name: str, account: dict[str, Any]) -> None:
    """Raises UserError where the hub's description of the token's owner says that it may not write to the
    namespace of the repository `name`. What the description leaves open, the upload meets."""
    token = (account.get("auth") or {}).get("accessToken") or {}
    if token.get("role") == "read":
        raise hub_errors.problem(name, "the token may only read", NO_TOKEN)
    namespace, orgs = name.partition("/")[0], account.get("orgs")
    if account.get("name") and isinstance(orgs, list):
        names = [str(account["name"]), *(str(org.get("name", "")) for org in orgs)]
        if namespace.lower() not in {one.lower() for one in names}:
            why = f"the token's account is no member of {namespace}"
            way_out = f"publish to one of {', '.join(names[:5])}, or use another account's token"
            raise hub_errors.problem(name, why, way_out)


def _require_secret(plan: Plan) -> None:
    """Pods get the token from the profile's Secrets alone."""
    profile = KubernetesCluster.model_validate(plan.profile)
    if TOKEN in profile.secrets:
        return
    why = f"cluster {plan.cluster} gives pods no {TOKEN}"
    way_out = (
        f"kubectl -n {profile.namespace} create secret generic hub --from-literal=token=…, then add to the "
        f"profile `secrets: {{{TOKEN}: {{secret: hub, key: token}}}}`"
    )
    params: PublishParams = plan.stage(StageKind.PUBLISH).params
    raise UserError(Problem(where="", what=f"publish.to: {params.to}", why=why, way_out=way_out))


def _require_hub(target: Target, params: PublishParams, say: Callable[[str], None]) -> None:
    wanted = repository(target, params)
    try:
        require_may_write(target.name, wanted.account())
        private = wanted.is_private()
        if private is not None:
            require_as_private(wanted, params, private)
    except OutOfReach as error:
        say(f"{error} (the stage publish will ask again)")


def _require_bucket(target: Target) -> None:
    """One small object is written there and deleted again. Raises UserError."""
    store = open_store(target.parent_uri)
    key = f"{target.folder}/probe-{uuid.uuid4().hex}"
    try:
        store.write_bytes(key, _PROBE)
        store.delete(key)
    except StoreError as error:
        way_out = error.way_out
        if not way_out or "profile" in way_out:  # a profile says where the store is, not this bucket
            way_out = (
                "it is reached with the endpoint, region and credentials of the store: name one they open"
            )
        what = f"publish.to: {target.uri}"
        raise UserError(Problem(where="", what=what, why=error.why, way_out=way_out)) from error
