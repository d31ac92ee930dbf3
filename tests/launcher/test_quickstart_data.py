"""The quickstart's files: exact match after training means nothing if the test repeats the training."""

from pathlib import Path

import pytest

from artifacts.records import GoodRecord, RecordFile

FOLDER = Path(__file__).parents[2] / "examples/quickstart"


def pairs(name: str) -> list[tuple[str, str]]:
    """(question, answer) of each record; every record is a good one."""
    records = list(RecordFile(FOLDER / f"{name}.jsonl"))
    assert all(isinstance(record, GoodRecord) for record in records)
    assert all([turn["role"] for turn in record.messages] == ["user", "assistant"] for record in records)
    return [(record.messages[0]["content"], record.messages[1]["content"]) for record in records]


@pytest.mark.parametrize("name", ["dev", "test"])
def test_no_question_occurs_in_the_training_file(name):
    trained = {question.lower() for question, _ in pairs("train")}
    assert not trained & {question.lower() for question, _ in pairs(name)}


@pytest.mark.parametrize("name", ["dev", "test"])
def test_every_answer_can_be_learnt(name):
    assert {answer for _, answer in pairs(name)} <= {answer for _, answer in pairs("train")}


def test_questions_are_asked_once_and_the_sizes_are_those_announced():
    for name, size in (("train", 384), ("dev", 24), ("test", 48)):
        questions = [question for question, _ in pairs(name)]
        assert len(set(questions)) == len(questions) == size
