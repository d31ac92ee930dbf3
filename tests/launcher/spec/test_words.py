from __future__ import annotations

import pytest

from artifacts.redact import looks_secret
from launcher.spec.units import to_bytes
from launcher.spec.words import HIDDEN, shown, shown_path

# Of the form of secrets, put together here so that no scanner takes them for real ones.
SECRETS = [
    "hf_" + "AbCdEfGhIjKlMnOpQr",
    "AKIA" + "ABCDEFGHIJKLMNOP",
    "sk-" + "proj-abcdEFGH1234ijklMNOP",
    "sk-" + "ant-api03-abcdEFGH1234",
    "ghp_" + "a1B2" * 9,
    "glpat-" + "x" * 20,
    "xoxb-" + "1234567890-abc",
    "https://user:" + "pass@host/path",
    "-----BEGIN RSA " + "PRIVATE KEY-----",
]
HARMLESS = [
    "hf_model",
    "Qwen/Qwen3-8B",
    "sk-learn",
    "task-with-a-long-name-and-1-number",
    "a" * 40,
    "0123456789abcdef" * 4,
    "https://host:8080/path",
    "file:///home/me@work/x",
    "user@host.example",
]


@pytest.mark.parametrize("text", SECRETS)
def test_secrets(text: str) -> None:
    assert looks_secret(text)
    assert looks_secret(f"key={text} ")
    assert shown([text]) == shown_path(("model", text)) == HIDDEN


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless(text: str) -> None:
    assert not looks_secret(text)


def test_shown_fits_a_line() -> None:
    assert shown("no") == '"no"'
    assert shown(None) == "null"
    assert shown({"a": [1, True]}) == '{"a": [1, true]}'
    assert shown("x\ny" * 100).count("\n") == 0
    assert len(shown("x" * 1000)) == 60


@pytest.mark.parametrize(
    ("text", "expected"),
    [("64Gi", 64 * 2**30), ("1.5k", 1500), ("7", 7), ("5GB", 5 * 10**9), ("0.1GB", 10**8), ("2Ti", 2**41)],
)
def test_to_bytes(text: str, expected: int) -> None:
    assert to_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "Gi", "1 Gi", "-1Gi", "1gb", "1e3", "64Gi\n", ".5G"])
def test_not_an_amount(text: str) -> None:
    with pytest.raises(ValueError, match="not an amount"):
        to_bytes(text)
