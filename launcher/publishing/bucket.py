"""A publication in a bucket: an artifact like any other, whose marker is written last.

The bucket is reached with the store's settings: its endpoint, region and credentials.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from artifacts.manifest import MARKER, ArtifactWriter, FileEntry, Manifest, read_marker
from artifacts.store import Store
from launcher.publishing.products import PublishedFile


def put(
    store: Store, prefix: str, files: Sequence[PublishedFile], progress: Callable[[int, int], None]
) -> str:
    """Make `files` the artifact `prefix` of the store; returns the digest of its content.

    A publication that is there stops to exist before the first of its files is replaced; files that it alone
    had are removed in the end. Objects that no publication has made stay. What an attempt that was cut off
    has sent is not sent again.
    """
    wanted = Manifest(files=sorted(FileEntry(file.path, file.size_bytes, file.sha256) for file in files))
    before = read_marker(store, prefix)
    total_bytes = wanted.size_bytes
    if before is not None and before.files == wanted.files:
        progress(total_bytes, total_bytes)
        return before.content_digest
    if before is not None:
        store.delete(f"{prefix}/{MARKER}")
    writer, done_bytes = ArtifactWriter(store, prefix), 0

    def sent(size_bytes: int) -> None:
        nonlocal done_bytes
        done_bytes += size_bytes
        progress(done_bytes, total_bytes)

    digests = {file.source: (file.size_bytes, file.sha256) for file in files if file.source}
    sources = {file.path: file.source for file in files if file.source}
    writer.add_files(sources, sent=sent, digest=lambda source: digests[source])
    for file in files:
        if not file.source:
            writer.write_bytes(file.path, file.content)
            sent(file.size_bytes)
    manifest = writer.commit()
    if before is not None:
        kept = {entry.path for entry in manifest.files}
        store.delete_many(f"{prefix}/{entry.path}" for entry in before.files if entry.path not in kept)
    return manifest.content_digest
