"""A store whose files lie elsewhere: a local folder that gives out no paths, and logs what is read of it."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import BinaryIO

from artifacts.local import LocalStore


class RemoteStore(LocalStore):
    """`artifacts.store.Store` without local paths. Every read is a line in the file `reads` beside it, so
    that the reads of several processes can be counted; `pause_s` goes by at each."""

    def __init__(self, root: Path, pause_s: float = 0.0) -> None:
        super().__init__(root)
        self.log, self.pause_s = root.with_name(f"{root.name}.reads"), pause_s
        self._lock = threading.Lock()

    @property
    def uri(self) -> str:
        return f"s3://bucket/{self.root.name}"

    def local_path(self, key: str) -> Path | None:  # type: ignore[override]
        return None

    def list(self, prefix: str):
        return self._list(self._path(prefix) if prefix else self.root, f"{prefix}/" if prefix else "")

    def open_read(self, key: str) -> BinaryIO:
        with self._lock, self.log.open("a") as lines:
            lines.write(f"{key}\n")
        time.sleep(self.pause_s)
        return super().open_read(key)

    def reads(self) -> list[str]:
        """The keys read so far, markers left out."""
        lines = self.log.read_text().split() if self.log.exists() else []
        return [key for key in lines if not key.endswith("COMPLETE.json")]
