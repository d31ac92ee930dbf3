"""What the store knows of images."""

from __future__ import annotations

from dataclasses import dataclass

from artifacts.contract import ImageParams, StageKind, decode
from artifacts.manifest import MARKER, read_marker
from artifacts.store import Store


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    key: str
    made_s: float | None  # Unix time of the record; the image itself may be older
    pilot: str
    train: str
    content: str  # what went in beside code and locks


def list_images(store: Store) -> list[ImageRecord]:
    """The images of `images/` in the store, newest first."""
    folder = StageKind.IMAGE.folder
    prefixes = [
        info.key.removesuffix(f"/{MARKER}") for info in store.list(folder) if info.key.endswith(MARKER)
    ]
    found = [record for prefix in prefixes if (record := _record(store, prefix)) is not None]
    return sorted(found, key=lambda record: (-(record.made_s or 0), record.key))


def _record(store: Store, prefix: str) -> ImageRecord | None:
    manifest = read_marker(store, prefix)
    if manifest is None:
        return None
    facts = manifest.facts
    params = decode(ImageParams, facts.get("params", {}))
    return ImageRecord(
        key=prefix.rpartition("/")[2],
        made_s=facts.get("made_s"),
        pilot=facts["pilot"],
        train=facts["train"],
        content=_content(params),
    )


def _content(params: ImageParams) -> str:
    if params.given is not None:
        return "given"
    architectures = " ".join(params.architectures)
    flash_attention = f" + flash-attention for {architectures}" if params.flash_attention else ""
    return params.base + flash_attention + (" + llama.cpp" if params.gguf else "")
