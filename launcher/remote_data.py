"""Data files that lie elsewhere: `s3://bucket/key`, and `hub://datasets/ORG/NAME@COMMIT/PATH` of the Hugging
Face hub (`HF_ENDPOINT` names a mirror, `HF_TOKEN` opens private ones). A job pins each by its SHA-256; a
pattern (`s3://bucket/folder/*.jsonl`) stands for those that are pinned."""

from __future__ import annotations

import fnmatch
import os
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from artifacts.manifest import hash_file, hash_stream
from artifacts.store import ObjectMissingError, open_store
from launcher.errors import ClusterError, Problem, UserError

S3_FILE_PATTERN = r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/(?:[^/]+/)*[^/]+"
HUB_FILE_PATTERN = r"hub://datasets/(?P<repository>[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)?)@(?P<commit>[0-9a-f]{40})/(?P<path>.+)"
_BLOCK_BYTES = 4 * 1024 * 1024


def is_remote(name: str) -> bool:
    """Whether a job's data file is an address, not a path."""
    return "://" in name


def is_known(address: str) -> bool:
    """Whether it is an address that `fetch` understands."""
    return re.fullmatch(f"{S3_FILE_PATTERN}|{HUB_FILE_PATTERN}", address) is not None


def has_pattern(address: str) -> bool:
    """Whether it stands for several files, as `s3://bucket/folder/*.jsonl`."""
    return any(character in address for character in "*?")


def matching(pattern: str, addresses: Iterable[str]) -> list[str]:
    """Those of `addresses` that a pattern stands for, sorted. A wildcard does not reach over a slash."""
    parts = pattern.split("/")
    return sorted(
        address
        for address in addresses
        if len(names := address.split("/")) == len(parts)
        and all(fnmatch.fnmatchcase(name, part) for name, part in zip(names, parts, strict=True))
    )


def listing(pattern: str) -> list[str]:
    """The files that a pattern stands for as they are now. Raises UserError where there are none, and as
    `fetch`."""
    if match := re.fullmatch(HUB_FILE_PATTERN, pattern):
        addresses = _HubFile(pattern, **match.groupdict()).beside()
    else:
        folder = re.split(r"/[^/]*[*?]", pattern, maxsplit=1)[0]
        addresses = [f"{folder}/{info.key}" for info in open_store(folder).list("")]
    if found := matching(pattern, addresses):
        return found
    raise _missing(pattern)


def fetch(address: str, folder: Path) -> Path:
    """The file, below `folder` and under its own name. Raises UserError where there is no such file,
    ClusterError where the hub is out of reach, StoreError."""
    if match := re.fullmatch(HUB_FILE_PATTERN, address):
        return _HubFile(address, **match.groupdict()).download(folder)
    parent, _, name = address.rpartition("/")
    path = folder / PurePosixPath(name).name
    try:
        with open_store(parent).open_read(name) as stream, path.open("wb") as file:
            while block := stream.read(_BLOCK_BYTES):
                file.write(block)
    except ObjectMissingError:
        raise _missing(address) from None
    return path


def digest(address: str) -> str:
    """The file's SHA-256 as it is now. Reads all of it, but for large files of the hub, which lists theirs.
    Raises as `fetch`."""
    if match := re.fullmatch(HUB_FILE_PATTERN, address):
        file = _HubFile(address, **match.groupdict())
        if listed := file.listed_digest():
            return listed
        with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
            return hash_file(file.download(Path(folder)))[1]
    parent, _, name = address.rpartition("/")
    try:
        with open_store(parent).open_read(name) as stream:
            return hash_stream(stream)[1]
    except ObjectMissingError:
        raise _missing(address) from None


@dataclass(frozen=True)
class _HubFile:
    """One file of a data set on the Hugging Face hub."""

    address: str
    repository: str
    commit: str
    path: str

    def download(self, folder: Path) -> Path:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, HTTPError

        try:
            path = hf_hub_download(
                self.repository,
                self.path,
                repo_type="dataset",
                revision=self.commit,
                cache_dir=folder,
                endpoint=os.environ.get("HF_ENDPOINT"),
            )
        except (EntryNotFoundError, HTTPError, OSError) as error:
            raise self._told(error) from error
        return Path(path)

    def beside(self) -> list[str]:
        """The addresses of all files of the data set."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HTTPError

        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
        try:
            names = api.list_repo_files(self.repository, revision=self.commit, repo_type="dataset")
        except (HTTPError, OSError) as error:
            raise self._told(error) from error
        return [f"hub://datasets/{self.repository}@{self.commit}/{name}" for name in names]

    def listed_digest(self) -> str | None:
        """Of a file in LFS; None for a small one."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HTTPError
        from huggingface_hub.hf_api import RepoFile

        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
        try:
            found = api.get_paths_info(
                self.repository, [self.path], revision=self.commit, repo_type="dataset"
            )
        except (HTTPError, OSError) as error:
            raise self._told(error) from error
        files = [entry for entry in found if isinstance(entry, RepoFile)]
        if not files:
            raise _missing(self.address)
        return files[0].lfs.sha256 if files[0].lfs else None

    def _told(self, error: Exception) -> UserError | ClusterError:
        from huggingface_hub.errors import (
            EntryNotFoundError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        absent = (EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError)  # gated ones, too
        if isinstance(error, absent) and not isinstance(error, LocalEntryNotFoundError):
            return _missing(self.address, "; HF_TOKEN opens a private or gated one")
        way_out = "check the network or HF_ENDPOINT, then try again"
        return ClusterError(self.address, f"the hub is out of reach: {error}".splitlines()[0], way_out)


def _missing(address: str, hint: str = "") -> UserError:
    return UserError(
        Problem(where="", what=address, why="there is no such file", way_out=f"check the address{hint}")
    )
