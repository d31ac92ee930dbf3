"""What a hub refuses, in users' words. No error passes on a request: its headers and signed addresses are
secret."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from artifacts.redact import Redactor
from launcher.errors import ClusterError, Problem, SlipwayError, UserError

TOKENS_PAGE = "https://huggingface.co/settings/tokens"
NO_TOKEN = (
    f"set HF_TOKEN to one that may write (its hub's settings make one, as {TOKENS_PAGE}), "
    "or run `hf auth login`"
)
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_SAID_CHARACTERS = 300


class OutOfReach(ClusterError):  # noqa: N818 - a state of the hub
    """The hub gave no answer, or asks for patience."""

    def __init__(self, what: str, why: str, way_out: str = "") -> None:
        again = "submit again: what was sent is not sent again"
        super().__init__(what, why, f"{way_out}, or {again}" if way_out else again)


class Conflict(ClusterError):  # noqa: N818 - a state of the repository
    """Somebody else changed the repository meanwhile."""


@contextlib.contextmanager
def in_words(name: str, hub: str) -> Iterator[None]:
    """Raises UserError (token, permission, name), OutOfReach, Conflict or ClusterError for whatever
    huggingface_hub raises about the repository `name`."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HTTPError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
    )

    failure: SlipwayError
    try:
        yield
        return
    except SlipwayError:
        raise
    except Exception as error:
        # huggingface_hub wraps what happens to one file in a RuntimeError
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        if isinstance(cause, LocalTokenNotFoundError):
            failure = problem(name, "there is no token for the hub", NO_TOKEN)
        elif isinstance(cause, OfflineModeIsEnabled):
            failure = problem(name, "HF_HUB_OFFLINE is set", "unset it")
        elif isinstance(cause, HfHubHTTPError):
            failure = refusal(name, hub, cause.response.status_code, _said(cause))
        elif isinstance(cause, HTTPError | ConnectionError | TimeoutError):
            failure = OutOfReach(
                f"hub {hub}", f"can't be reached ({type(cause).__name__})", "check HF_ENDPOINT"
            )
        elif isinstance(cause, ValueError):  # of an answer that it does not understand, or a card
            failure = ClusterError(f"hub://{name}", _shortened(str(cause)))
        else:
            raise
    raise failure from None


def refusal(name: str, hub: str, status: int, said: str) -> SlipwayError:
    """What an answer of that HTTP status means for who publishes. `said`: the hub's own words."""
    words = f" ({said})" if said else ""
    if status == 401:
        return problem(name, f"{hub} doesn't accept the token: wrong, expired or revoked", NO_TOKEN)
    if status == 403:
        way_out = (
            f"use a token that may write to repositories of {name.partition('/')[0]}, and a name of an "
            "account or organization that it belongs to"
        )
        return problem(name, f"the token may not do that{words}", way_out)
    if status == 404:
        why = f"{hub} has no such repository, or the token may not see it{words}"
        return problem(name, why, "check the name, and that the token reaches its organization")
    if status in (409, 412):
        return Conflict(f"hub://{name}", f"somebody else is changing it{words}", "submit again")
    if status in (400, 413, 422):
        return problem(name, f"{hub} doesn't accept it{words}", "check the name, and the hub's limits")
    if status in _TRANSIENT:
        why = "asks for patience (too many requests)" if status == 429 else f"answers {status}{words}"
        return OutOfReach(f"hub {hub}", why)
    return ClusterError(f"hub {hub}", f"answers {status}{words}")


def problem(name: str, why: str, way_out: str = "") -> UserError:
    return UserError(Problem(where="", what=f"publish to hub://{name}", why=why, way_out=way_out))


def _said(error: Any) -> str:
    return _shortened(str(getattr(error, "server_message", "") or ""))


def _shortened(text: str) -> str:
    line = " ".join(Redactor()(text).split())
    return line if len(line) <= _SAID_CHARACTERS else f"{line[:_SAID_CHARACTERS]} …"
