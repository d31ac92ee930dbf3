from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifacts.contract import StageKind
from launcher.names import (
    ArtifactReference,
    RunReference,
    artifact_prefix,
    match_artifacts,
    parse_reference,
    short_key,
)
from launcher.spec.job_grammar import NAME_PATTERN

KEYS = st.text("0123456789abcdef", min_size=64, max_size=64)


@given(name=st.from_regex(NAME_PATTERN, fullmatch=True), digest=KEYS)
def test_every_run_id_is_read_as_one(name: str, digest: str) -> None:
    run_id = f"{name}-{digest[:8]}"
    assert parse_reference(run_id) == RunReference(run_id)
    assert parse_reference(f"runs/{run_id}") == RunReference(run_id)


@given(kind=st.sampled_from(StageKind), key=KEYS, digits=st.integers(4, 64))
def test_every_artifact_is_found_by_its_first_digits(kind: StageKind, key: str, digits: int) -> None:
    named = StageKind.MODEL if kind is StageKind.ORIGINAL else kind  # the same folder
    assert parse_reference(artifact_prefix(kind, key)) == ArtifactReference(key, named)
    assert parse_reference(f"{kind.folder}/{key[:digits]}/") == ArtifactReference(key[:digits], named)
    reference = parse_reference(key[:digits])
    assert reference == ArtifactReference(key[:digits])
    assert match_artifacts(reference, {kind: [key]}) == [artifact_prefix(kind, key)]


@pytest.mark.parametrize(
    "text", ["", "abc", "Bot-12345678", "bot-1234567", "train/xyz1", "nothing/abcd1234", "../train/abcd1234"]
)
def test_anything_else_is_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(ValueError, match="neither a run id"):
        parse_reference(text)


def test_ambiguous_digits_match_every_artifact() -> None:
    keys = {StageKind.DATA: ["abcd1", "abce2"], StageKind.TRAIN: ["abcd3"]}
    assert match_artifacts(ArtifactReference("abcd"), keys) == ["data/abcd1", "train/abcd3/final"]
    assert match_artifacts(ArtifactReference("abcd", StageKind.TRAIN), keys) == ["train/abcd3/final"]


def test_short_keys_are_still_references() -> None:
    assert parse_reference(short_key("f" * 64)) == ArtifactReference("f" * 12)
