"""Look-ups in a registry, with and without credentials."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from launcher.errors import ClusterError
from launcher.images.registry import Reference, credentials, find_digest
from tests.launcher.images.fake_registry import USER, serve

DIGEST = "sha256:" + "ab" * 32


def test_takes_references_apart() -> None:
    assert Reference.parse("localhost:5000/a/b:t") == Reference("localhost:5000", "a/b", "t")
    assert Reference.parse(f"r.example.com/a@{DIGEST}") == Reference("r.example.com", "a", DIGEST)


def test_finds_an_image_by_tag_and_by_digest() -> None:
    with serve() as registry:
        registry.add("team/ml", "train-1", DIGEST)
        assert find_digest(f"{registry.host}/team/ml:train-1", insecure=True) == DIGEST
        assert find_digest(f"{registry.host}/team/ml@{DIGEST}", insecure=True) == DIGEST
        assert find_digest(f"{registry.host}/team/ml:train-2", insecure=True) is None


@pytest.mark.parametrize("guard", ["basic", "bearer"])
def test_answers_a_challenge(guard: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "auth.json"
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(path))
    with serve(guard) as registry:
        registry.add("ml", "t", DIGEST)
        path.write_text(json.dumps({"auths": {registry.host: {"auth": USER}}}))
        assert find_digest(f"{registry.host}/ml:t", insecure=True) == DIGEST
        path.write_text(json.dumps({"auths": {registry.host: {"auth": "d3Jvbmc="}}}))
        with pytest.raises(ClusterError, match=f"401.*docker login {registry.host}"):
            find_digest(f"{registry.host}/ml:t", insecure=True)


def test_a_registry_that_is_not_there() -> None:
    with serve() as registry:
        host = registry.host
    with pytest.raises(ClusterError, match=r"can't be reached.*image\.registry"):
        find_digest(f"{host}/ml:t", insecure=True)


def test_plain_http_has_to_be_allowed() -> None:
    with serve() as registry, pytest.raises(ClusterError, match=r"image\.insecure"):
        find_digest(f"{registry.host}/ml:t")


def test_credentials_lie_where_the_builders_put_them(tmp_path: Path) -> None:
    docker, podman = tmp_path / "docker", tmp_path / "run"
    (podman / "containers").mkdir(parents=True)
    docker.mkdir()
    hub = "https://index.docker.io/v1/"
    (docker / "config.json").write_text(
        json.dumps({"auths": {hub: {"auth": "aHVi"}, "r.io": {"auth": "YQ=="}}})
    )
    (podman / "containers/auth.json").write_text(json.dumps({"auths": {"r.io": {"auth": "Yg=="}}}))
    environment = {"HOME": str(tmp_path), "DOCKER_CONFIG": str(docker), "XDG_RUNTIME_DIR": str(podman)}
    assert credentials("docker.io", environment) == "aHVi"
    assert credentials("r.io", environment) == "Yg=="
    assert credentials("other.io", environment) is None


def test_asks_a_credential_helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "docker-credential-test"
    helper.write_text(
        '#!/bin/sh\nread name\n[ "$name" = r.io ] && echo \'{"Username":"user","Secret":"right"}\'\n'
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"r.io": {}}, "credsStore": "test"}))
    assert credentials("r.io", {"DOCKER_CONFIG": str(tmp_path)}) == USER
    assert credentials("other.io", {"DOCKER_CONFIG": str(tmp_path)}) is None
