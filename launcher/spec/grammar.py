"""What names may look like in Kubernetes and around it: patterns, and the same in plain words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated

from pydantic import Field

from launcher.spec.section import Conflict
from launcher.spec.units import MEMORY_PATTERN

#: A DNS-1123 label: names of namespaces, Secrets, service accounts.
LABEL_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
#: A DNS-1123 subdomain: names of priority classes and schedulers.
SUBDOMAIN_PATTERN = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"
#: The key of a label, with or without a domain before it.
LABEL_KEY_PATTERN = r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"
LABEL_VALUE_PATTERN = r"^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$"
SECRET_KEY_PATTERN = r"^[A-Za-z0-9._-]{1,253}$"
VARIABLE_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
S3_URI_PATTERN = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._-]+)*/?$"
ENDPOINT_PATTERN = r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?/?$"
REPOSITORY_PATTERN = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$"
DIGEST_REFERENCE_PATTERN = r"^[a-z0-9][^\s@]*@sha256:[0-9a-f]{64}$"
TAGGED_REFERENCE_PATTERN = r"^[a-z0-9][^\s@]*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|@sha256:[0-9a-f]{64})$"
CAPABILITY_PATTERN = r"^[0-9]{1,2}\.[0-9]$"
ABSOLUTE_PATTERN = r"^/[^\s]*$"

#: The patterns in plain words, for error messages ("must be …").
GRAMMARS = {
    LABEL_PATTERN: "1 to 63 lower-case letters, digits and dashes, from a letter or digit to one",
    SUBDOMAIN_PATTERN: "lower-case letters, digits, dashes and dots, from a letter or digit to one",
    LABEL_KEY_PATTERN: "a name as `example.com/pool`: after the `/` 63 letters, digits, `.`, `-`, `_`",
    SECRET_KEY_PATTERN: "a key of a Secret: letters, digits, dots, dashes and underscores",
    S3_URI_PATTERN: "`s3://BUCKET/PREFIX`, the bucket of 3 to 63 lower-case letters, digits, dots and dashes",
    ENDPOINT_PATTERN: "an address as `https://s3.example.com` or `http://10.0.0.1:9000`, without a path",
    REPOSITORY_PATTERN: "a registry and path as `registry.example.com/ml`, without scheme, tag or digest",
    DIGEST_REFERENCE_PATTERN: "an image by digest, as `registry.example.com/ml/slipway@sha256:…`",
    TAGGED_REFERENCE_PATTERN: "an image with a tag or digest, as `nvidia/cuda:12.8.1-devel-ubuntu24.04`",
    CAPABILITY_PATTERN: 'a compute capability in quotes, as "9.0"',
    ABSOLUTE_PATTERN: "an absolute path",
}

Memory = Annotated[str, Field(pattern=MEMORY_PATTERN)]
Label = Annotated[str, Field(pattern=LABEL_PATTERN)]
LabelKey = Annotated[str, Field(pattern=LABEL_KEY_PATTERN)]

#: Domains of labels that the launcher, Kubernetes and KubeRay set themselves.
_OWN_LABELS = ("slipway/", "app.kubernetes.io/managed-by", "ray.io/cluster", "ray.io/node-type")


def label_conflicts(field: str, labels: Mapping[str, str], *, selects: bool = False) -> Iterator[Conflict]:
    """What is wrong with labels. Those that `selects` nodes may be anyone's."""
    for key, value in labels.items():
        place = ((*field.split("."), key),)
        if not re.fullmatch(LABEL_KEY_PATTERN, key):
            yield Conflict(place, f"the key must be {GRAMMARS[LABEL_KEY_PATTERN]}")
        elif not re.fullmatch(LABEL_VALUE_PATTERN, value):
            yield Conflict(
                place, "a label's value is at most 63 letters, digits, dots, dashes and underscores"
            )
        elif not selects and key.startswith(_OWN_LABELS):
            yield Conflict(place, "this label is set by the launcher or KubeRay", "remove it")


def annotation_conflicts(field: str, annotations: Iterable[str]) -> Iterator[Conflict]:
    for key in annotations:
        if not re.fullmatch(LABEL_KEY_PATTERN, key):
            yield Conflict(((*field.split("."), key),), f"the key must be {GRAMMARS[LABEL_KEY_PATTERN]}")
