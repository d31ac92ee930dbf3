from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from launcher.planning.batch import arithmetic, default_sequences, indivisible, sequences_of_tokens

WORKERS = st.integers(1, 64)


def test_shows_the_arithmetic() -> None:
    assert arithmetic(4, 4, 2) == "32 sequences = 4 per worker × 4 accumulation × 2 workers"
    assert arithmetic(1, 1, 1) == "1 sequence = 1 per worker × 1 accumulation × 1 worker"


def test_an_indivisible_batch_names_the_numbers_that_would_work() -> None:
    problem = indivisible("job.yaml:9:3", 30, 4, 2)
    assert str(problem) == (
        "job.yaml:9:3 training.global_batch_size: 30: 30 sequences do not divide into 4 workers "
        "× 2 sequences (micro_batch_size); use 24 or 32, or compute.workers: 1 or 3"
    )
    problem = indivisible("job.yaml:9:3", 12, 2, 4)
    assert problem is not None
    assert problem.way_out == "use 8 or 16, or compute.workers: 1, or micro_batch_size: 1, 2, 3 or 6"


@given(sequences=st.integers(1, 4096), workers=WORKERS, micro=st.none() | st.integers(1, 32))
def test_refuses_exactly_what_does_not_divide(sequences: int, workers: int, micro: int | None) -> None:
    unit = workers * (micro or 1)
    problem = indivisible("here", sequences, workers, micro)
    assert (problem is None) == (sequences % unit == 0)
    if problem is not None:
        suggested = int(problem.way_out.removeprefix("use ").replace(",", " ").split()[0])
        assert suggested % unit == 0


@given(unit=st.integers(1, 500))
def test_the_default_batch_always_divides(unit: int) -> None:
    sequences, reason = default_sequences(unit)
    assert sequences > 0 and sequences % unit == 0
    assert "32" in reason


@given(tokens=st.integers(1, 10**7), length=st.integers(8, 8192), unit=st.integers(1, 64))
def test_tokens_become_the_most_sequences_below(tokens: int, length: int, unit: int) -> None:
    found = sequences_of_tokens(tokens, length, unit)
    if found is None:
        assert tokens < length * unit
    else:
        assert found[0] % unit == 0
        assert found[0] * length <= tokens < (found[0] + unit) * length
