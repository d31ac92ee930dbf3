"""What a remote name means today: a hub's branch -> its full commit, a store's artifact -> its digest."""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request

from artifacts.manifest import MARKER, manifest_at
from launcher.errors import ClusterError
from launcher.spec.job_grammar import REVISION_PATTERN

_TIMEOUT_S = 20.0
_HUGGINGFACE = "https://huggingface.co"
_MODELSCOPE = "www.modelscope.cn"


class NotFoundError(Exception):
    """The hub or store answered, and has no such thing. The text says what, then the way out."""

    def __init__(self, why: str, way_out: str = "") -> None:
        self.why, self.way_out = why, way_out
        super().__init__(why)


def huggingface_commit(repository: str, revision: str | None = None) -> str:
    """The commit of a branch or tag (default: the main branch). Raises NotFoundError, ClusterError."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    endpoint = _with_scheme(os.environ.get("HF_ENDPOINT") or _HUGGINGFACE)
    try:
        info = HfApi(endpoint=endpoint).model_info(repository, revision=revision, timeout=_TIMEOUT_S)
    except GatedRepoError:
        way_out = f"ask for access at {endpoint}/{repository} and set HF_TOKEN"
        raise NotFoundError("the repository is gated", way_out) from None
    except RepositoryNotFoundError:
        way_out = "check the name, or set HF_TOKEN for a private repository"
        raise NotFoundError(f"{endpoint} has no such model", way_out) from None
    except RevisionNotFoundError:
        raise NotFoundError(f"{endpoint}/{repository} has no branch, tag or commit {revision}") from None
    except OfflineModeIsEnabled:
        raise _unreachable(endpoint, "HF_HUB_OFFLINE is set", "unset it") from None
    except (HTTPError, OSError, ValueError) as error:
        raise _unreachable(endpoint, _first_line(error), "set HF_ENDPOINT to a mirror") from error
    return _checked(info.sha, endpoint)


def modelscope_commit(repository: str, revision: str | None = None) -> str:
    """As `huggingface_commit`. `MODELSCOPE_DOMAIN` names another host, as for ModelScope's own client."""
    endpoint = _with_scheme(os.environ.get("MODELSCOPE_DOMAIN") or _MODELSCOPE)
    query = urllib.parse.urlencode({"Ref": revision or "master", "PageNumber": 1, "PageSize": 1})
    request = urllib.request.Request(f"{endpoint}/api/v1/models/{repository}/commits?{query}")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            answer = json.load(response)
        commit = answer["Data"]["Commit"][0]["Id"]
    except urllib.error.HTTPError as error:
        if error.code == 404:
            raise NotFoundError(f"{endpoint} has no such model or revision", "check the name") from None
        raise _unreachable(endpoint, _first_line(error)) from error
    except OSError as error:
        raise _unreachable(endpoint, _first_line(error)) from error
    except (ValueError, LookupError, TypeError) as error:
        raise _unreachable(endpoint, "its answer is not what ModelScope's API gives") from error
    return _checked(commit, endpoint)


def artifact_digest(uri: str) -> str:
    """The digest of the files of a complete artifact in a store. Raises NotFoundError, ClusterError."""
    try:
        manifest = manifest_at(uri)
    except ValueError as error:
        raise NotFoundError(str(error)) from None
    except OSError as error:
        raise _unreachable(uri, _first_line(error)) from error
    if manifest is None:
        raise NotFoundError(
            f"there is no complete artifact (no readable {MARKER})", "`slipway runs` lists what there is"
        )
    return manifest.content_digest


def _with_scheme(endpoint: str) -> str:
    return (endpoint if "://" in endpoint else f"https://{endpoint}").rstrip("/")


def _checked(commit: object, endpoint: str) -> str:
    if not isinstance(commit, str) or not re.fullmatch(REVISION_PATTERN, commit):
        raise _unreachable(endpoint, "its answer names no full commit")
    return commit


def _unreachable(endpoint: str, why: str, way_out: str = "") -> ClusterError:
    check = "check the network, then try again"
    return ClusterError(f"{endpoint} can't be asked", why, f"{check}, or {way_out}" if way_out else check)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
