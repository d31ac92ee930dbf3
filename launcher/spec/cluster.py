"""The cluster profile `clusters/NAME.yaml`: where stages run and where artifacts are kept."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from launcher.spec.job import Section


class Cluster(Section):
    backend: Literal["local"] = Field(description="Where stages run.")
    store: str = Field(".slipway/store", description="Folder (relative to the working directory) or URI of the object store.")
    work: str = Field(".slipway/work", description="Folder for scratch files and logs of stages.")
