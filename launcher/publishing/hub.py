"""A repository of the model hub: who may write it, and everything into it in one commit.

Large files are sent first and belong to nothing until the commit names them, so that nobody meets half a
model. What the hub holds already, by its own list of digests, is not sent again; neither is what an attempt
that was cut off has sent.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any
from urllib.parse import urlsplit

from launcher.errors import ClusterError
from launcher.publishing import hub_errors
from launcher.publishing.hub_errors import Conflict, OutOfReach, in_words
from launcher.publishing.listing import Listing, Remote, is_there, stale_weights
from launcher.publishing.products import PublishedFile

#: huggingface_hub's own default; `HF_ENDPOINT` names another hub.
PUBLIC_HUB = "https://huggingface.co"
#: Files on their way at a time.
_UPLOADS = 4
#: From here on a file is asked about and sent by itself; smaller ones all together.
_ALONE_BYTES = 1_000_000
#: Between attempts of the whole, beside the retries of single requests by huggingface_hub.
_PAUSES_S = (2.0, 10.0, 30.0)
Told = Callable[[int, int], None]  # (bytes done, bytes in all)


def endpoint() -> str:
    """The hub's address, without user and password."""
    named = os.environ.get("HF_ENDPOINT") or PUBLIC_HUB
    parts = urlsplit(named if "://" in named else f"https://{named}")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")


def find_token() -> str | None:
    """HF_TOKEN, else the one that `hf auth login` has left."""
    from huggingface_hub import get_token

    token: str | None = get_token()
    return token


class Repository:
    """One repository, with one token. Every method raises what `in_words` makes of the hub's refusals."""

    def __init__(self, name: str, token: str | None) -> None:
        from huggingface_hub import HfApi
        from huggingface_hub.utils import disable_progress_bars

        self.name = name
        disable_progress_bars()
        _use_xet_where_it_is(endpoint())
        self._api: Any = HfApi(
            endpoint=os.environ.get("HF_ENDPOINT") or None, token=token or False, library_name="slipway"
        )

    @property
    def address(self) -> str:
        return f"{endpoint()}/{self.name}"

    def account(self) -> dict[str, Any]:
        """Who the token belongs to, as the hub describes it."""
        with self._in_words():
            account: dict[str, Any] = self._api.whoami()
        return account

    def is_private(self) -> bool | None:
        """None where there is no such repository, or the token may not see it."""
        from huggingface_hub.errors import RepositoryNotFoundError

        with self._in_words():
            try:
                return bool(self._api.repo_info(self.name).private)
            except RepositoryNotFoundError as error:
                if error.response.status_code == 401:  # the hub says so of a token that it does not know
                    raise
                return None

    def create(self, *, private: bool) -> None:
        """Make it, unless it is there."""
        with self._in_words():
            self._api.create_repo(self.name, private=private, exist_ok=True)

    def upload(self, files: Sequence[PublishedFile], message: str, progress: Told) -> str:
        """Bring the repository to hold `files`, in one commit; returns the commit. Weights of other models
        that lie in the same folders go in that commit; any other file stays."""
        operations: dict[str, Any] = {}
        for pause_s in (*_PAUSES_S, None):
            try:
                with self._in_words():
                    return self._upload(files, operations, message, progress)
            except (OutOfReach, Conflict):
                if pause_s is None:
                    raise
                time.sleep(pause_s)
        raise AssertionError("the last attempt returns or raises")

    def card(self, revision: str | None) -> dict[str, Any]:
        """The metadata of its card; empty where it has none or can't be asked."""
        try:
            with self._in_words():
                card = self._api.model_info(self.name, revision=revision).card_data
        except Exception:  # a licence that can't be looked up is left out, and the card says so
            return {}
        return dict(card.to_dict()) if card is not None else {}

    # ------------------------------------------------------------------------------------------------------

    def _upload(
        self, files: Sequence[PublishedFile], operations: dict[str, Any], message: str, progress: Told
    ) -> str:
        from huggingface_hub import CommitOperationDelete

        there = self._listing()
        missing = [file for file in files if not is_there(file, there.files)]
        stale = stale_weights(there.files, [file.path for file in files])
        total_bytes = sum(file.size_bytes for file in files)
        done_bytes = total_bytes - sum(file.size_bytes for file in missing)
        progress(done_bytes, total_bytes)
        if not missing and not stale:
            return there.revision
        for file in missing:
            operations.setdefault(file.path, _operation(file))
        self._send(missing, operations, done_bytes, total_bytes, progress)
        _require_kept(self.name, [path for path, one in operations.items() if one._should_ignore])
        changes = [operations[file.path] for file in missing]
        changes += [CommitOperationDelete(path_in_repo=path, is_folder=False) for path in stale]
        commit = self._api.create_commit(
            self.name, changes, commit_message=message, parent_commit=there.revision
        )
        after = self._listing(commit.oid)
        if lost := [file.path for file in files if not is_there(file, after.files)]:
            raise ClusterError(f"hub://{self.name}", f"commit {commit.oid[:12]} lacks {', '.join(lost[:3])}")
        return str(commit.oid)

    def _send(
        self,
        missing: Sequence[PublishedFile],
        operations: Mapping[str, Any],
        done_bytes: int,
        total_bytes: int,
        progress: Told,
    ) -> None:
        """Send what the hub takes as large, the largest first. The others travel in the commit itself."""
        ordered = sorted(missing, key=lambda file: -file.size_bytes)
        groups = [[file] for file in ordered if file.size_bytes >= _ALONE_BYTES]
        groups += [[file for file in ordered if file.size_bytes < _ALONE_BYTES]]
        with ThreadPoolExecutor(_UPLOADS, "upload") as pool:
            sent = {
                pool.submit(
                    self._api.preupload_lfs_files,
                    self.name,
                    [operations[file.path] for file in group],
                    num_threads=1,
                    free_memory=False,
                ): group
                for group in groups
                if group
            }
            try:
                for future in as_completed(sent):
                    future.result()
                    done_bytes += sum(file.size_bytes for file in sent[future])
                    progress(done_bytes, total_bytes)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _listing(self, revision: str | None = None) -> Listing:
        from huggingface_hub import RepoFile

        revision = revision or str(self._api.repo_info(self.name).sha)
        listed = self._api.list_repo_tree(self.name, recursive=True, revision=revision)
        files = {
            entry.path: Remote(entry.lfs.sha256 if entry.lfs else None, entry.blob_id)
            for entry in listed
            if isinstance(entry, RepoFile)
        }
        return Listing(revision=revision, files=files)

    @contextlib.contextmanager
    def _in_words(self) -> Iterator[None]:
        with in_words(self.name, endpoint()):
            yield


def _operation(file: PublishedFile) -> Any:
    from huggingface_hub import CommitOperationAdd

    operation = CommitOperationAdd(path_in_repo=file.path, path_or_fileobj=file.source or file.content)
    operation.upload_info.sha256 = bytes.fromhex(file.sha256)  # checked a moment ago: not read once more
    return operation


def _require_kept(name: str, ignored: Sequence[str]) -> None:
    """huggingface_hub would leave them out of the commit without a word."""
    if ignored:
        why = f"its .gitignore leaves out {', '.join(ignored[:3])}"
        raise hub_errors.problem(name, why, "change the repository's .gitignore")


def _use_xet_where_it_is(address: str) -> None:
    """Xet, which huggingface_hub uploads by where it is installed, is a service of huggingface.co alone; any
    other hub speaks LFS. The library reads its variable HF_HUB_DISABLE_XET only as it is imported."""
    from huggingface_hub import constants

    host = urlsplit(address).hostname or ""
    if host != "huggingface.co" and not host.endswith((".huggingface.co", ".hf.co")):
        constants.HF_HUB_DISABLE_XET = True
