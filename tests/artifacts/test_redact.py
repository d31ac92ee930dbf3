"""`artifacts.redact`: secrets by name of their variable and by form; ordinary text stays."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest

from artifacts.redact import HIDDEN, RedactedStream, Redactor, names_secret

redact = Redactor(
    {
        "MY_API_KEY": "sesame-sesame",
        "HF_TOKEN": "sesame-sesame-longer",
        "S3_SECRET": "ab",
        "HOME": "/root-dir",
    }
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("key sesame-sesame!", f"key {HIDDEN}!"),
        ("sesame-sesame-longer", HIDDEN),  # the longer one first, or its end would stay
        ("about ab and /root-dir", "about ab and /root-dir"),  # too short to be one; no secret's name
        ("token hf_abcdefghijklmnopqrstuvwx.", f"token {HIDDEN}."),
        ("AKIAIOSFODNN7EXAMPLE", HIDDEN),
        ("glpat-" + "x" * 20, HIDDEN),
        ("-----BEGIN PRIVATE " + "KEY-----\nMIIE\n-----END PRIVATE KEY-----\nnext", f"{HIDDEN}\nnext"),
        ("https://me:pass@word.example/x", f"https://me:{HIDDEN}@word.example/x"),
        ("Authorization: Bearer abc.def", f"Authorization: Bearer {HIDDEN}"),
        ("https://s3/x?X-Amz-Signature=0f&y=1", f"https://s3/x?X-Amz-Signature={HIDDEN}&y=1"),
        ("loss 0.25 at step 3: https://host:80/a", "loss 0.25 at step 3: https://host:80/a"),
        ("models/9f86d081884c7d65 hf_hub", "models/9f86d081884c7d65 hf_hub"),
    ],
)
def test_redacts(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("AWS_SECRET_ACCESS_KEY", True),
        ("hf_token", True),
        ("DB_PASSWORD", True),
        ("HF_TOKEN_PATH", False),
        ("HF_ENDPOINT", False),
        ("TOKENIZERS_PARALLELISM", False),
    ],
)
def test_variables_that_hold_secrets_by_their_names(name: str, secret: bool) -> None:
    assert names_secret(name) is secret


def test_a_stream_passes_the_filter() -> None:
    target = io.StringIO()
    stream = RedactedStream(target, redact)
    print("key", "sesame-sesame", file=stream)
    stream.writelines(["sesame-sesame", "\n"])
    assert target.getvalue() == f"key {HIDDEN}\n{HIDDEN}\n"
    assert not stream.isatty()


def test_the_command_line_shows_no_secret() -> None:
    """An error that quotes the user's input."""
    ended = subprocess.run(
        [sys.executable, "-m", "launcher.cli", "pin", "canary-0123456789.yaml"],
        env={"CANARY_TOKEN": "canary-0123456789", "PATH": "/usr/bin", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2
    assert "canary" not in ended.stdout + ended.stderr and HIDDEN in ended.stderr
