"""A store whose files lie elsewhere: a local folder that gives out no paths, and logs what is read of it."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import BinaryIO

from artifacts.local import LocalStore
from artifacts.manifest import hash_file


class RemoteStore(LocalStore):
    """`artifacts.store.Store` without local paths. Every read and put is a line in a file beside it, so
    that those of several processes can be counted; `pause_s` goes by at each."""

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

    def put_file(self, key: str, source: Path, **options) -> None:
        with self._lock, self.log.open("a") as lines:
            lines.write(f"put {key}\n")
        super().put_file(key, source, **options)

    def holds(self, key: str, sha256: str) -> bool:
        path = self._path(key)
        return path.is_file() and hash_file(path)[1] == sha256

    def reads(self) -> list[str]:
        """The keys read so far, markers left out."""
        return [line for line in self._lines() if " " not in line and not line.endswith("COMPLETE.json")]

    def puts(self) -> list[str]:
        """The keys of files put so far."""
        return [line.split(" ")[1] for line in self._lines() if " " in line]

    def _lines(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []
