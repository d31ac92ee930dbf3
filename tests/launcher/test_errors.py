"""`launcher.errors`: whose fault an error is, and what the command ends with."""

from __future__ import annotations

import errno

import pytest

from artifacts.store import StoreError
from launcher.errors import ClusterError, UserError, known_error


def test_a_store_that_cannot_be_used_is_the_clusters_fault() -> None:
    known = known_error(StoreError("store s3://bucket/p", "there is no such bucket", "make it"))
    assert isinstance(known, ClusterError) and known.exit_code == 3
    assert str(known) == "store s3://bucket/p: there is no such bucket; make it"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "x"), ClusterError),
        (FileNotFoundError(errno.ENOENT, "No such file", "x"), UserError),
        (OSError("no path"), type(None)),
        (ValueError("x"), type(None)),
    ],
)
def test_file_operations(error: Exception, kind: type) -> None:
    assert type(known_error(error)) is kind
