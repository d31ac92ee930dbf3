"""Asks a registry for an image's digest, over its HTTP API (OCI distribution specification 1.1).

The builders' own look-ups differ from each other (and docker's needs a running daemon), so the API is spoken
here, with the credentials that the builders have stored.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from launcher.errors import ClusterError

TIMEOUT_S = 20
_MANIFESTS = ", ".join(
    f"application/vnd.{kind}+json"
    for kind in (
        "oci.image.manifest.v1",
        "oci.image.index.v1",
        "docker.distribution.manifest.v2",
        "docker.distribution.manifest.list.v2",
    )
)
#: Docker Hub's API lies elsewhere than its name says, and its credentials under a third name.
_API_HOSTS = {"docker.io": "registry-1.docker.io"}
_CREDENTIAL_NAMES = {"docker.io": ("docker.io", "https://index.docker.io/v1/")}


@dataclass(frozen=True)
class Reference:
    """`host/path:tag` or `host/path@sha256:…`, taken apart."""

    host: str
    path: str
    version: str

    @classmethod
    def parse(cls, text: str) -> Reference:
        host, _, rest = text.partition("/")
        if "@" in rest:
            path, _, version = rest.partition("@")
        else:
            path, _, version = rest.partition(":")
        return cls(host, path, version or "latest")


def find_digest(reference: str, *, insecure: bool = False) -> str | None:
    """`sha256:…` of the image, None where the registry has none of that name.

    Raises ClusterError where the registry can't be reached, or refuses with the credentials that are there.
    """
    wanted = Reference.parse(reference)
    scheme = "http" if insecure else "https"
    host = _API_HOSTS.get(wanted.host, wanted.host)
    url = f"{scheme}://{host}/v2/{wanted.path}/manifests/{wanted.version}"
    try:
        return _head(url, None)
    except urllib.error.HTTPError as error:
        if error.code == 401:
            return _find_with_credentials(url, wanted, error.headers.get("WWW-Authenticate", ""))
        raise _refused(wanted, error) from error
    except (OSError, HTTPException) as error:
        raise _unreachable(wanted, error) from error


def require_push(repository: str, *, insecure: bool = False) -> None:
    """Begin an upload to `host/path` and take it back: the one way to know that pushing is allowed.

    Raises ClusterError where the registry can't be reached or refuses.
    """
    wanted = Reference.parse(repository)
    host = _API_HOSTS.get(wanted.host, wanted.host)
    url = f"{'http' if insecure else 'https'}://{host}/v2/{wanted.path}/blobs/uploads/"
    try:
        try:
            place = _begin_upload(url, None)
        except urllib.error.HTTPError as error:
            if error.code != 401:
                raise
            challenge = error.headers.get("WWW-Authenticate", "")
            place = _begin_upload(url, _authorization(challenge, credentials(wanted.host)))
    except urllib.error.HTTPError as error:
        raise _refused(wanted, error) from error
    except (OSError, HTTPException, ValueError) as error:
        raise _unreachable(wanted, error) from error
    with contextlib.suppress(OSError, HTTPException):  # the registry drops it by itself, later
        urllib.request.urlopen(
            urllib.request.Request(urllib.parse.urljoin(url, place), method="DELETE"), timeout=TIMEOUT_S
        ).close()


def _begin_upload(url: str, authorization: str | None) -> str:
    headers = {"Content-Length": "0", **({"Authorization": authorization} if authorization else {})}
    request = urllib.request.Request(url, method="POST", headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        return str(answer.headers.get("Location", ""))


def _find_with_credentials(url: str, wanted: Reference, challenge: str) -> str | None:
    try:
        return _head(url, _authorization(challenge, credentials(wanted.host)))
    except urllib.error.HTTPError as error:
        raise _refused(wanted, error) from error
    except (OSError, HTTPException, ValueError) as error:
        raise _unreachable(wanted, error) from error


def _head(url: str, authorization: str | None) -> str | None:
    headers = {"Accept": _MANIFESTS, **({"Authorization": authorization} if authorization else {})}
    request = urllib.request.Request(url, method="HEAD", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            digest = answer.headers.get("Docker-Content-Digest")
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
    return str(digest) if digest else None


def _authorization(challenge: str, basic: str | None) -> str | None:
    """The header that answers a registry's challenge: a token of its token service, or the credentials."""
    scheme, _, rest = challenge.partition(" ")
    if scheme.lower() != "bearer":
        return f"Basic {basic}" if basic else None
    fields = dict(re.findall(r'(\w+)="([^"]*)"', rest))
    query = urllib.parse.urlencode({name: fields[name] for name in ("service", "scope") if name in fields})
    headers = {"Authorization": f"Basic {basic}"} if basic else {}
    request = urllib.request.Request(f"{fields.get('realm', '')}?{query}", headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        said = json.loads(answer.read())
    return f"Bearer {said.get('token') or said.get('access_token')}"


def credentials(host: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """What `docker login`, `podman login` or `buildah login` have stored for the registry: base64 of
    `user:password`. None where there is nothing."""
    for path in _credential_files(environment):
        try:
            config = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        for name in _CREDENTIAL_NAMES.get(host, (host, f"https://{host}")):
            helper = config.get("credHelpers", {}).get(name) or config.get("credsStore")
            stored = config.get("auths", {}).get(name, {}).get("auth")
            if found := stored or (_ask_helper(helper, name) if helper else None):
                return str(found)
    return None


def _credential_files(environment: Mapping[str, str]) -> Iterator[Path]:
    home = Path(environment.get("HOME", "/"))
    if named := environment.get("REGISTRY_AUTH_FILE"):
        yield Path(named)
    if runtime := environment.get("XDG_RUNTIME_DIR"):
        yield Path(runtime) / "containers/auth.json"
    yield Path(environment.get("DOCKER_CONFIG", home / ".docker")) / "config.json"


def _ask_helper(helper: str, name: str) -> str | None:
    """Docker's protocol of credential helpers: the registry's name in, JSON out."""
    command = [f"docker-credential-{helper}", "get"]
    try:
        result = subprocess.run(command, input=name, capture_output=True, text=True, timeout=TIMEOUT_S)
        said = json.loads(result.stdout)
        return base64.b64encode(f"{said['Username']}:{said['Secret']}".encode()).decode()
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError):
        return None


def _refused(wanted: Reference, error: urllib.error.HTTPError) -> ClusterError:
    why = f"it answers {error.code} {error.reason}"
    return ClusterError(f"registry {wanted.host}, {wanted.path}", why, f"docker login {wanted.host}")


def _unreachable(wanted: Reference, error: Exception) -> ClusterError:
    why = f"it can't be reached ({getattr(error, 'reason', None) or error})"
    way_out = "check image.registry and the network; for plain HTTP set image.insecure: true"
    return ClusterError(f"registry {wanted.host}", why, way_out)
