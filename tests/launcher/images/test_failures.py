"""Reasons of failed builds, from what builders really write."""

from __future__ import annotations

import pytest

from launcher.images.failures import reason_of

HOST = "localhost:5000"
SAID = {
    "the base image is not there": [
        f"Error: creating build container: initializing source docker://{HOST}/base:none: reading manifest "
        f"none in {HOST}/base: manifest unknown: manifest unknown",
        f"ERROR: failed to solve: {HOST}/base:none: failed to resolve source metadata for {HOST}/base:none: "
        f"{HOST}/base:none: not found",
    ],
    "the registry does not give out the base image": [
        "ERROR: failed to solve: acme/base: failed to resolve source metadata for docker.io/acme/base: "
        "pull access denied, repository does not exist or may require authorization: server message: "
        "insufficient_scope: authorization failed"
    ],
    "the registry refuses the push": [
        "Error: pushing image: trying to reuse blob sha256:00 at destination: checking whether a blob exists "
        "in registry.example.com/ml: authentication required",
        "denied: requested access to the resource is denied",
        "ERROR: failed to push registry.example.com/ml: unexpected status: 403 Forbidden",
        "Error: writing blob: initiating layer upload: unauthorized: access to the requested resource is not "
        "authorized",
    ],
    "the builder's disk is full": [
        "Error: committing container: copying layers and metadata: write /var/tmp/x: no space left on device"
    ],
    "a package is not the one that is locked": [
        "  × Failed to download `six==1.17.0`\n  ╰─▶ Hash mismatch for `six==1.17.0`",
        "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.",
    ],
    "a package does not fit the Python of the base image": [
        "  hint: You're using CPython 3.11 (`cp311`), but only the wheel /wheels/flash_attn.whl is given: no "
        "wheel with a matching Python ABI tag"
    ],
    "a server could not be reached": [
        "W: Failed to fetch http://deb.debian.org/debian/dists/bookworm/InRelease  Temporary failure "
        "resolving 'deb.debian.org'",
        "error: dial tcp: lookup registry.example.com: no such host",
    ],
    "the registry speaks plain HTTP": [
        'Get "https://10.0.0.1:5000/v2/": http: server gave HTTP response to HTTPS client'
    ],
    "a certificate is not trusted": [
        "tls: failed to verify certificate: x509: certificate signed by unknown"
    ],
    "the builder's daemon does not run, or is not yours": [
        "ERROR: Cannot connect to the Docker daemon at unix:///var/run/docker.sock."
    ],
    "the build ran out of memory": ["c++: fatal error: Killed signal terminated program cicc"],
}


@pytest.mark.parametrize(("why", "text"), [(why, text) for why, texts in SAID.items() for text in texts])
def test_names_the_reason(why: str, text: str) -> None:
    lines = ["STEP 1/3: FROM base", *text.splitlines(), 'Error: building at STEP "RUN x": exit status 1']
    reason = reason_of(lines, "buildah")
    assert reason is not None and reason.why == why
    assert reason.way_out and "{" not in reason.way_out


def test_knows_what_it_does_not_know() -> None:
    assert reason_of(["Error: something new"], "docker") is None
