"""The filter that everything printed passes: secrets of the environment and what looks like one."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, TextIO

HIDDEN = "[redacted]"

#: Environment variables whose values are never shown. Paths (as HF_TOKEN_PATH) are no secrets.
_SECRET_NAME = re.compile(
    r"(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY)$", re.I
)
_SHORTEST_SECRET = 8  # characters; shorter values would hide words of the language

#: Tokens, keys and passwords by their form, wherever they come from. The part in group `keep` is none.
_TOKENS = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{16,}",  # Hugging Face
        r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[0-9A-Z]{16}",  # AWS access key id
        # OpenAI, Anthropic and others
        r"(?<![A-Za-z0-9])sk-(?=[\w-]*[0-9])(?=[\w-]*[A-Za-z])[A-Za-z0-9_-]{20,}",
        r"(?<![A-Za-z0-9])(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,})",  # GitHub
        r"(?<![A-Za-z0-9])glpat-[\w-]{20,}",  # GitLab
        r"(?<![A-Za-z0-9])xox[abprs]-[A-Za-z0-9-]{10,}",  # Slack
        r"(?<![A-Za-z0-9])AIza[\w-]{35}",  # Google
        r"(?<![A-Za-z0-9])eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]+",  # JSON web token
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:[\s\S]*?-----END [A-Z ]*PRIVATE KEY-----)?",
        r"(?P<keep>://[^/\s:@]*:)[^/\s@]+(?=@)",  # user:password@ in an address
    )
)
#: What only output holds: headers and signed addresses.
_HEADERS = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?P<keep>(?i:authorization:\s*(?:bearer|basic|token)\s+))\S+",
        r"(?P<keep>[?&](?i:x-amz-signature|x-amz-security-token|signature|sig)=)[^&\s]+",
    )
)


def names_secret(name: str) -> bool:
    """Whether a variable of that name holds a secret, as `AWS_SECRET_ACCESS_KEY` does."""
    return _SECRET_NAME.search(name) is not None


def looks_secret(text: str) -> bool:
    """Whether the text holds something of the form of a token, a private key or a password in an address."""
    return any(pattern.search(text) for pattern in _TOKENS)


class Redactor:
    """`redact(text)` with the secrets of one environment."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        values = {
            value
            for name, value in environment.items()
            if names_secret(name) and len(value) >= _SHORTEST_SECRET
        }
        self._values = sorted(values, key=len, reverse=True)  # a value may contain another

    def __call__(self, text: str) -> str:
        for value in self._values:
            text = text.replace(value, HIDDEN)
        for pattern in (*_TOKENS, *_HEADERS):
            text = pattern.sub(lambda match: (match.groupdict().get("keep") or "") + HIDDEN, text)
        return text


class RedactedStream:
    """A text stream that passes the filter; all else is the stream's own."""

    def __init__(self, stream: TextIO, redact: Redactor) -> None:
        self._stream, self._redact = stream, redact

    def write(self, text: str) -> int:
        self._stream.write(self._redact(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
