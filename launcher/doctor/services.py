"""The services beside the API server: bucket and registry, and whether clocks agree."""

from __future__ import annotations

import contextlib
import datetime
import time
import uuid

from artifacts.store import ObjectMissingError, Store, StoreError
from launcher.doctor.check import Check, failure, ok, warning
from launcher.errors import ClusterError, UserError
from launcher.images.registry import find_digest, require_push
from launcher.kube import Kube, KubeError
from launcher.spec.kubernetes import KubernetesCluster
from launcher.stages import image as image_stage

#: S3 refuses signatures that are 15 minutes off; tokens and leases suffer sooner.
MAX_SKEW_S = 60.0

_PROBE = b"slipway doctor"


def bucket(store: Store) -> Check:
    """Write, write on a condition, read, list and delete one small object."""
    what, key = f"store {store.uri}", f"doctor/{uuid.uuid4().hex}"
    try:
        return _bucket(store, key, what)
    except StoreError as error:
        return failure(what, error.why, error.way_out)
    except (OSError, ObjectMissingError) as error:
        return failure(what, str(error))
    finally:
        with contextlib.suppress(Exception):  # a bucket that refuses us has said so already
            store.delete(key)


def _bucket(store: Store, key: str, what: str) -> Check:
    if not store.write_bytes(key, _PROBE, if_absent=True):
        return failure(what, "said that a new object was there already: its conditional writes are broken")
    if store.write_bytes(key, _PROBE, if_absent=True):
        why = "ignores conditional writes (If-None-Match): two writers would overwrite each other"
        return failure(what, why, "use a service that knows them (AWS S3, MinIO, Ceph Squid, versitygw)")
    if store.read_bytes(key) != _PROBE or key not in {info.key for info in store.list("doctor")}:
        return failure(what, "does not give back what was written")
    return ok(what, "writes, conditional writes, reads and lists")


def registry(profile: KubernetesCluster) -> Check:
    """The image that is given is there, or images may be pushed."""
    image = profile.image
    try:
        if image.name is not None:
            what = f"image {image.name}"
            if find_digest(image.name, insecure=image.insecure) is None:
                return failure(what, "the registry has none of that digest", "mend image.name")
            return ok(what, "is there")
        repository = image_stage.params(profile).repository
        what = f"registry {repository}"
        require_push(repository, insecure=image.insecure)
    except (UserError, ClusterError) as error:
        return failure("registry", str(error))
    return ok(what, "answers, and takes images of this user")


def clock(kube: Kube) -> Check:
    """This machine's clock against the API server's, by the time that it gives an object (kept nowhere)."""
    what = "clock"
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"doctor-{uuid.uuid4().hex[:8]}"}}
    try:
        stamp = kube.create(body, dry_run=True)["metadata"]["creationTimestamp"]
    except KubeError as error:
        return warning(what, f"could not be compared ({error.reason})")
    there_s = datetime.datetime.fromisoformat(stamp).timestamp()
    skew_s = max(0.0, abs(time.time() - there_s) - 1.0)  # stamps are whole seconds
    if skew_s > MAX_SKEW_S:
        return failure(
            what, f"{skew_s:.0f} s off the API server's", "set it by NTP: signatures and leases fail"
        )
    return ok(what, "agrees with the API server's")
