"""The cluster profile `clusters/NAME.yaml`: where stages run and where artifacts are kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from launcher.spec.kubernetes import KubernetesCluster
from launcher.spec.section import Conflict, Section


class LocalCluster(Section):
    """This machine."""

    backend: Literal["local"] = Field(
        description="Where stages run. `local`: processes on this machine, on its GPUs if it has any.",
        examples=["local"],
    )
    store: str = Field(
        ".slipway/store",
        min_length=1,
        description="Folder (relative to the working directory) or `file://` address of the object store.",
    )
    work: str = Field(
        ".slipway/work",
        min_length=1,
        description="Folder (relative to the working directory) for scratch files and logs of stages.",
    )

    def conflicts(self) -> Iterator[Conflict]:
        scheme, separator, _ = self.store.partition("://")
        if separator and scheme != "file":
            yield Conflict(("store",), f"backend local has no store for {scheme}://", "name a folder")
        if "://" in self.work:
            yield Conflict(("work",), "must be a folder on this machine")

    @property
    def where(self) -> str:
        """In a few words."""
        return "this machine"

    @property
    def store_uri(self) -> str:
        """The store's address, absolute."""
        return self.store if "://" in self.store else Path(self.store).expanduser().absolute().as_uri()

    @property
    def work_folder(self) -> Path:
        """The folder for scratch files, absolute."""
        return Path(self.work).expanduser().absolute()

    def store_environment(self) -> dict[str, str]:
        """A folder needs no settings."""
        return {}


Cluster = LocalCluster | KubernetesCluster
BACKENDS = ["local", "kubernetes"]
