"""The patterns that values of a job file must match, and their names in plain words."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from launcher.spec.units import MEMORY_PATTERN, SIZE_PATTERN

NAME_PATTERN = r"^[a-z]([a-z0-9-]{0,28}[a-z0-9])?$"
REVISION_PATTERN = r"^[0-9a-f]{40}$"
DIGEST_PATTERN = r"^[0-9a-f]{64}$"
HUB_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?$"
LICENSE_PATTERN = r"^[a-z0-9][a-z0-9.+-]{0,63}$"

#: The patterns in plain words, for error messages ("must be …").
GRAMMARS = {
    NAME_PATTERN: "1 to 30 lower-case letters, digits and dashes, from a letter to a letter or digit",
    REVISION_PATTERN: "a full commit (40 hexadecimal digits), which `slipway pin JOB` writes",
    DIGEST_PATTERN: "a SHA-256 digest (64 hexadecimal digits), which `slipway pin JOB` writes",
    HUB_ID_PATTERN: "a repository id as `Qwen/Qwen3-8B`, not an address",
    LICENSE_PATTERN: "a licence's identifier on the hub, as `apache-2.0`",
    MEMORY_PATTERN: "an amount of memory as `64Gi` or `500M`",
    SIZE_PATTERN: "a size as `5GB` or `500MB`",
}

MAX_SEED = 2**32 - 1  # numpy's limit

FilePath = Annotated[str, Field(min_length=1)]
