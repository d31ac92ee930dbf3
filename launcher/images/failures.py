"""Why a build failed, read from what the builder wrote."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    why: str
    way_out: str


#: Builders and what they call say the same thing in many words; the first pattern that is found decides, so
#: what is particular stands before what is general.
_REASONS: tuple[tuple[str, Reason], ...] = (
    (
        r"no space left on device|disk quota exceeded",
        Reason("the builder's disk is full", "free space there, as with `{builder} system prune`"),
    ),
    (
        r"hash mismatch|do not match the hashes",
        Reason(
            "a package is not the one that is locked",
            "if the package index is a mirror, look what it serves; `make lock` resolves anew",
        ),
    ),
    (
        r"is not compatible with the current python|no wheels? with a matching python|"
        r"not a supported wheel on this platform|incompatible with (?:the|your) (?:current )?platform",
        Reason(
            "a package does not fit the Python of the base image",
            "flash-attention is compiled for Python 3.12: a base with it, or image.flash_attention: false",
        ),
    ),
    (
        r"gave http response to https client",
        Reason("the registry speaks plain HTTP", "set image.insecure: true, and allow it on the nodes too"),
    ),
    (
        r"cannot connect to the docker daemon|docker\.sock|podman\.sock|is the docker daemon running",
        Reason("the builder's daemon does not run, or is not yours", "start it; `{builder} info` shows more"),
    ),
    (
        r"x509: |certificate verify failed|invalid peer certificate|self.signed certificate",
        Reason(
            "a certificate is not trusted",
            "bring your CA with the base image, or mount it with image.builder_options",
        ),
    ),
    (
        r"(?:initializing source|failed to resolve source metadata|pull access denied).*"
        r"(?:denied|unauthorized|authentication|authorization|40[13])",
        Reason("the registry does not give out the base image", "`{builder} login` there, or image.base"),
    ),
    (
        r"manifest unknown|name unknown|repository does not exist|reading manifest .*not found|"
        r"failed to resolve source metadata.*not found|: not found|no such image",
        Reason("the base image is not there", "check image.base; `{builder} pull` tries it"),
    ),
    (
        r"denied|unauthorized|authentication required|authorization failed|insufficient_scope|"
        r"no basic auth credentials|40[13] (?:forbidden|unauthorized)",
        Reason("the registry refuses the push", "`{builder} login` to it, with a user that may push there"),
    ),
    (
        r"temporary failure (?:in name resolution|resolving)|could not resolve|no such host|i/o timeout|"
        r"connection (?:refused|reset|timed out)|network is unreachable|failed to fetch|"
        r"error sending request|max retries exceeded",
        Reason(
            "a server could not be reached", "check the network, the proxy and the package index; try again"
        ),
    ),
    (
        r"signal: killed|killed signal terminated|\bkilled\b|out of memory|cannot allocate memory",
        Reason("the build ran out of memory", "give the builder more; flash-attention needs 5 GB a compiler"),
    ),
)


def reason_of(lines: Sequence[str], builder: str) -> Reason | None:
    """The reason that the last lines name; None where they name none that is known. The end of what was
    written counts first: warnings before it may name other things."""
    for line in reversed(lines):
        for pattern, reason in _REASONS:
            if re.search(pattern, line.lower()):
                return Reason(reason.why, reason.way_out.format(builder=builder))
    return None
