"""Base models from the Hugging Face hub or ModelScope, at a full revision, into the hub's own cache.

Every file is read back and checked against the digest that the hub lists for it. `HF_ENDPOINT` and
`MODELSCOPE_DOMAIN` name mirrors; `HF_TOKEN` opens gated repositories.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts.contract import ModelParams
from artifacts.manifest import ArtifactWriter, FileEntry, hash_file
from train.stage import StageError, StageUserError

#: What a model needs, at the top of its repository: no other formats, no copies in sub-folders.
WANTED = ("*.json", "*.jinja", "*.model", "*.tiktoken", "*.txt", "*.py", "*.cu", "*.cpp")
WEIGHTS = ("*.safetensors",)
UNWANTED = ("consolidated*", "*.msgpack", "training_args*")

PARALLEL_DOWNLOADS = 8
#: Files on their way from the hub to the store: one comes while one goes.
PARALLEL_TRANSFERS = 2
_TIMEOUT_S = 60
_BLOCK_BYTES = 4 * 1024 * 1024

Progress = Callable[[int, int], None]  # (bytes done, bytes in all)


@dataclass(frozen=True)
class HubFile:
    """A file as the hub lists it: LFS files by SHA-256, small ones by git's object id (SHA-1)."""

    path: str
    size_bytes: int
    sha256: str | None = None
    git_id: str | None = None


@dataclass(frozen=True)
class Snapshot:
    folder: Path
    files: list[FileEntry]


def download(
    params: ModelParams, *, weights: bool = True, cache: Path | None = None, progress: Progress | None = None
) -> Snapshot:
    """The repository `params.location` at `params.revision`; without `weights` its config, tokenizer, code.

    Files already in the cache are not fetched again, but checked. Raises StageUserError (no such repository
    or revision, no access, no safetensors) and StageError (hub out of reach, a digest that differs).
    """
    hub = (ModelScope if params.hub == "modelscope" else HuggingFace)(params.location, params.revision, cache)
    files = _model_files(hub, params) if weights else select(hub.list_files(), weights=False)
    total_bytes = sum(file.size_bytes for file in files)
    done_bytes = 0
    entries = []
    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        fetches = {pool.submit(_fetch, hub, file): file for file in files}
        for fetch in as_completed(fetches):
            folder, entry = fetch.result()
            entries.append(entry)
            done_bytes += entry.size_bytes
            if progress is not None:
                progress(done_bytes, total_bytes)
    return Snapshot(folder, sorted(entries))


def transfer(
    params: ModelParams, artifact: ArtifactWriter, scratch: Path, progress: Progress | None = None
) -> None:
    """The same repository into an artifact of a remote store: each file is downloaded into `scratch`,
    checked, put into the store and removed, two at a time, so that scratch holds no whole model.

    A file that the store is known to hold already is left there. Raises what `download` does.
    """
    hub = (ModelScope if params.hub == "modelscope" else HuggingFace)(
        params.location, params.revision, scratch
    )
    files = _model_files(hub, params)
    total_bytes, done_bytes = sum(file.size_bytes for file in files), 0
    with ThreadPoolExecutor(PARALLEL_TRANSFERS) as pool:
        moves = [pool.submit(_move, hub, file, artifact) for file in files]
        try:
            for move in as_completed(moves):
                done_bytes += move.result()
                if progress is not None:
                    progress(done_bytes, total_bytes)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _model_files(hub: HuggingFace | ModelScope, params: ModelParams) -> list[HubFile]:
    """Raises StageUserError where the weights are in no safe format."""
    files = select(hub.list_files(), weights=True)
    if not any(fnmatch.fnmatch(file.path, WEIGHTS[0]) for file in files):
        raise StageUserError(
            f"{params.location} has no safetensors at that revision",
            "choose a revision or model that has them",
        )
    return files


def _move(hub: HuggingFace | ModelScope, file: HubFile, artifact: ArtifactWriter) -> int:
    """One file from the hub to the store; returns its bytes."""
    if file.sha256 is not None and artifact.adopt(FileEntry(file.path, file.size_bytes, file.sha256)):
        return file.size_bytes
    path = hub.fetch(file)
    entry = check(file, path)
    artifact.add_files({file.path: path}, digest=lambda _: (entry.size_bytes, entry.sha256))
    path.resolve().unlink(missing_ok=True)  # the hub's cache links to where its blobs lie
    path.unlink(missing_ok=True)
    return entry.size_bytes


def select(files: Iterable[HubFile], *, weights: bool) -> list[HubFile]:
    """The files that a model folder needs."""
    patterns = WANTED + WEIGHTS if weights else WANTED
    return [
        file
        for file in files
        if "/" not in file.path
        and any(fnmatch.fnmatch(file.path, pattern) for pattern in patterns)
        and not any(fnmatch.fnmatch(file.path, pattern) for pattern in UNWANTED)
    ]


def check(file: HubFile, path: Path) -> FileEntry:
    """Raises StageError where the bytes are not those that the hub lists."""
    size_bytes, sha256 = hash_file(path)
    if file.sha256 is not None:
        right = sha256 == file.sha256
    elif file.git_id is not None:
        right = git_object_id(path) == file.git_id
    else:
        right = size_bytes == file.size_bytes
    if not right:
        raise StageError(
            f"{file.path}: its digest is not the one that the hub lists",
            f"the download is damaged: delete {path.resolve()} and submit again",
        )
    return FileEntry(file.path, size_bytes, sha256)


def git_object_id(path: Path) -> str:
    """git's id of a file: SHA-1 over `blob <size>\\0` and its bytes."""
    content = path.read_bytes()  # small: large files are in LFS
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _fetch(hub: HuggingFace | ModelScope, file: HubFile) -> tuple[Path, FileEntry]:
    path = hub.fetch(file)
    return path.parent, check(file, path)


class HuggingFace:
    """Through `huggingface_hub`, into its cache (`HF_HOME`)."""

    def __init__(self, repository: str, revision: str, cache: Path | None) -> None:
        self.repository, self.revision, self.cache = repository, revision, cache
        self.endpoint = os.environ.get("HF_ENDPOINT")

    def list_files(self) -> list[HubFile]:
        from huggingface_hub import HfApi

        with _hub_errors(self.repository):
            info = HfApi(endpoint=self.endpoint).model_info(
                self.repository, revision=self.revision, files_metadata=True
            )
        return [
            HubFile(file.rfilename, file.size or 0, file.lfs.sha256 if file.lfs else None, file.blob_id)
            for file in info.siblings or []
        ]

    def fetch(self, file: HubFile) -> Path:
        from huggingface_hub import hf_hub_download

        with _hub_errors(self.repository):
            path = hf_hub_download(
                self.repository,
                file.path,
                revision=self.revision,
                cache_dir=self.cache,
                endpoint=self.endpoint,
            )
        return Path(path)


class ModelScope:
    """Through its HTTP interface, into `MODELSCOPE_CACHE` (default `~/.cache/modelscope`)."""

    def __init__(self, repository: str, revision: str, cache: Path | None) -> None:
        domain = os.environ.get("MODELSCOPE_DOMAIN", "https://www.modelscope.cn")
        endpoint = domain if "://" in domain else f"https://{domain}"
        self.repository, self.revision = repository, revision
        self.url = f"{endpoint.rstrip('/')}/api/v1/models/{repository}/repo"
        root = cache or Path(os.environ.get("MODELSCOPE_CACHE", Path.home() / ".cache" / "modelscope"))
        self.folder = root / "slipway" / repository / revision

    def list_files(self) -> list[HubFile]:
        with self._open("/files", Revision=self.revision, Recursive="true") as reply:
            listing = json.load(reply)
        files = (listing.get("Data") or {}).get("Files") or []
        return [
            HubFile(file["Path"], file["Size"], file.get("Sha256") or None)
            for file in files
            if file.get("Type") != "tree"
        ]

    def fetch(self, file: HubFile) -> Path:
        path = self.folder / file.path
        if path.is_file() and path.stat().st_size == file.size_bytes:
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part-{os.getpid()}")
        try:
            with (
                self._open("", Revision=self.revision, FilePath=file.path) as reply,
                part.open("wb") as stream,
            ):
                while block := reply.read(_BLOCK_BYTES):
                    stream.write(block)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return path

    def _open(self, path: str, **query: str) -> Any:
        url = f"{self.url}{path}?{urllib.parse.urlencode(query)}"
        try:
            return urllib.request.urlopen(url, timeout=_TIMEOUT_S)
        except urllib.error.HTTPError as error:
            if error.code in (401, 403, 404):
                raise StageUserError(
                    f"{self.repository} at {self.revision}: ModelScope answers {error.code}",
                    "check the repository's name and revision",
                ) from error
            raise StageError(f"{url}: {error}", "submit again") from error
        except (urllib.error.URLError, TimeoutError) as error:
            raise StageError(
                f"{url}: {error}", "check the network or MODELSCOPE_DOMAIN, then submit again"
            ) from error


@contextlib.contextmanager
def _hub_errors(repository: str) -> Iterator[None]:
    """Turn what `huggingface_hub` raises into what a user can act on."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise StageUserError(
            f"{repository} is gated",
            "accept its terms on the hub, and set HF_TOKEN to a token that may read it",
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise StageUserError(
            f"{repository}: the hub has no such repository or revision (or it is private)",
            "check model.hub and model.revision (`slipway pin` writes it); HF_TOKEN opens private ones",
        ) from error
    # HTTPError is the HTTP library's, for connections; HfHubHTTPError is an OSError, too.
    except (errors.EntryNotFoundError, errors.HTTPError, OSError) as error:
        raise StageError(
            f"the hub is out of reach: {error}".splitlines()[0],
            "check the network or HF_ENDPOINT, then submit again",
        ) from error
