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

#: Secrets by their form, wherever they come from. The part in group `keep` stays.
_PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        r"\bhf_[A-Za-z0-9]{20,}",  # Hugging Face
        r"\bgh[pousr]_[A-Za-z0-9]{30,}",  # GitHub
        r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",  # AWS access key id
        r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}",  # JSON web token
        r"(?P<keep>[a-z][a-z0-9+.-]*://[^\s/:@]*:)[^\s/@]+(?=@)",  # password in a URL
        r"(?P<keep>(?i:authorization:\s*(?:bearer|basic|token)\s+))\S+",
        r"(?P<keep>[?&](?i:x-amz-signature|x-amz-security-token|signature|sig)=)[^&\s]+",  # signed URLs
    )
)


class Redactor:
    """`redact(text)` with the secrets of one environment."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        values = {
            value
            for name, value in environment.items()
            if _SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET
        }
        self._values = sorted(values, key=len, reverse=True)  # a value may contain another

    def __call__(self, text: str) -> str:
        for value in self._values:
            text = text.replace(value, HIDDEN)
        for pattern in _PATTERNS:
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
