"""Where something is published: `hub://org/name` or `s3://bucket/prefix`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from launcher.errors import Problem, UserError


@dataclass(frozen=True)
class Target:
    """`name`: `org/name` of a hub repository, `bucket/prefix` of a bucket."""

    kind: Literal["hub", "s3"]
    name: str

    @property
    def uri(self) -> str:
        return f"{self.kind}://{self.name}"

    @property
    def parent_uri(self) -> str:
        """Of a bucket: the store that holds the publication as the artifact `folder`."""
        return f"s3://{self.name.rpartition('/')[0]}"

    @property
    def folder(self) -> str:
        return self.name.rpartition("/")[2]


def parse(to: str) -> Target:
    """Raises UserError for any other address; the job's grammar lets none pass."""
    kind, _, name = to.partition("://")
    name = name.strip("/")
    if kind == "hub" and name.count("/") == 1:
        return Target("hub", name)
    if kind == "s3" and "/" in name:
        return Target("s3", name)
    raise UserError(Problem(where="", what=to, why="is neither hub://org/name nor s3://bucket/prefix"))


def inside_store(target: Target, store_uri: str) -> bool:
    """Whether it lies within the run's own store, or the store within it: each would take the other's
    objects for its own."""
    to, store = f"{target.uri}/", f"{store_uri.rstrip('/')}/"
    return to.startswith(store) or store.startswith(to)
