from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from artifacts.contract import DataFile, Plan, StageKind
from launcher.errors import UserError
from launcher.planning.text import render
from tests.launcher.plans import make_plan, reasons, write_data, write_job

LLAMA_FACTORY = Path(__file__).parents[2] / "data/llama_factory"
FORMATS = Path(__file__).parents[2] / "data/formats"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROW = json.dumps({"instruction": "a?", "output": "b"}) + "\n"


def plan_of(folder: Path, **data: Any) -> Plan:
    write_job(folder, data={"train": "train.jsonl", **data}, after=[])
    return make_plan(folder)


def files(plan: Plan, split: str = "train") -> list[DataFile]:
    found: list[DataFile] = plan.stage(StageKind.DATA).params.splits[split]
    return found


def names(plan: Plan, split: str = "train") -> list[str]:
    return [Path(file.path).name for file in files(plan, split)]


def problems(folder: Path, **data: Any) -> str:
    with pytest.raises(UserError) as refused:
        plan_of(folder, **data)
    return "\n".join(map(str, refused.value.problems))


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A folder of data beside the job, with what lies about in such folders."""
    shelf = tmp_path / "shelf"
    (shelf / "more").mkdir(parents=True)
    (shelf / "b.jsonl").write_text(ROW)
    (shelf / "a.json.gz").write_bytes(gzip.compress(f"[{ROW}]".encode()))
    (shelf / "more/c.jsonl").write_text(ROW)
    for name in ("README.md", "dataset_info.json", "state.json", ".hidden.jsonl", "notes.pdf"):
        (shelf / name).write_text("{}")
    return shelf


def test_a_folder_is_its_data_files_in_order(tmp_path: Path, shelf: Path) -> None:
    plan = plan_of(tmp_path, train="shelf")
    assert names(plan) == ["a.json.gz", "b.jsonl"]
    assert {file.data_set for file in files(plan)} == {0}


def test_a_pattern_is_the_files_it_fits(tmp_path: Path, shelf: Path) -> None:
    assert names(plan_of(tmp_path, train="shelf/**/*.jsonl")) == ["b.jsonl", "c.jsonl"]
    assert "shelf/*.csv: no file has a name of this pattern" in problems(tmp_path, train="shelf/*.csv")


def test_an_empty_folder_names_those_in_it(tmp_path: Path) -> None:
    (tmp_path / "top/train").mkdir(parents=True)
    told = problems(tmp_path, train="top")
    assert "the folder holds no data file; name a folder in it" in told and "top/train" in told


def test_data_sets_with_what_is_said_of_each(tmp_path: Path) -> None:
    (tmp_path / "qa.csv").write_text("ask,reply\na,b\n")
    section = {
        "path": "qa.csv",
        "prompt_column": "ask",
        "response_column": "reply",
        "weight": 0.5,
        "limit": 3,
    }
    plan = plan_of(tmp_path, train=["train.jsonl", section], fix_spacing=True)
    first, second = files(plan)
    assert (first.weight, first.limit_records, first.data_set) == (1.0, None, 0)
    assert (second.weight, second.limit_records, second.data_set) == (0.5, 3, 1)
    assert second.format == "prompt_response"
    assert second.reading.columns == {"prompt": "ask", "response": "reply"}
    assert first.reading.fix_spacing and second.reading.fix_spacing
    assert plan.stage(StageKind.DATA).params.shuffle
    assert not plan_of(tmp_path).stage(StageKind.DATA).params.shuffle
    assert "columns ask and reply" in reasons(plan)["data.train[1].format"][1]
    assert "qa.csv" in render(plan, [])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            {"train": [{"path": "train.jsonl", "wieght": 1}]},
            "data.train[0].wieght: 1: unknown key; did you mean `weight`?",
        ),
        ({"train": {"path": "train.jsonl", "weight": 0}}, "data.train.weight: 0: must be above 0"),
        ({"train": {"weight": 2}}, "data.train.path: is required"),
        ({"eval": {"path": "dev.jsonl", "weight": 2}}, "data.eval.weight: 2: weights are for training data"),
        ({"eval": "dev.jsonl", "eval_fraction": 0.1}, "evaluation data is given twice"),
        ({"eval_fraction": 0.9}, "data.eval_fraction: 0.9: must be at most 0.5"),
        (
            {"prompt_column": "a", "columns": {"prompt": "b"}},
            'data.prompt_column: "a": the same column is named twice',
        ),
        ({"columns": {"question": "a"}}, 'data.columns.question: "a": unknown key'),
        ({"train": ["train.jsonl", {"path": "train.jsonl"}]}, "the same file is named twice"),
        ({"format": "sharegpt"}, "must be `auto`, `messages`"),
    ],
)
def test_what_does_not_fit_is_named(data: dict[str, Any], expected: str, tmp_path: Path) -> None:
    assert expected in problems(tmp_path, **data)


def test_wrong_columns_are_told_in_the_plan(tmp_path: Path) -> None:
    (tmp_path / "qa.csv").write_text("ask,reply\na,b\n")
    told = problems(tmp_path, train={"path": "qa.csv", "prompt_column": "ask", "response_column": "answer"})
    assert "data.train.path: " in told and "found ask, reply" in told


def test_names_of_dataset_info(tmp_path: Path) -> None:
    shutil.copytree(LLAMA_FACTORY, tmp_path / "lf")
    plan = plan_of(tmp_path, train=["identity", "poems", "train.jsonl"], eval="tools", dataset_info="lf")
    assert names(plan) == ["identity.json", "poems.jsonl", "train.jsonl"]
    assert [file.limit_records for file in files(plan)] == [None, 2, None]
    assert files(plan, "eval")[0].format == "conversations"
    assert "as lf/dataset_info.json says" in reasons(plan)["data.train[1].format"][1]
    assert "data.train[0]: pairs: entry 'pairs' is for preference" in problems(
        tmp_path, train=["pairs"], dataset_info="lf"
    )
    assert "has no entry 'idnetity'; did you mean identity?" in problems(
        tmp_path, train="idnetity", dataset_info="lf"
    )


def test_columns_of_an_entry_can_be_named_otherwise(tmp_path: Path) -> None:
    shutil.copytree(LLAMA_FACTORY, tmp_path / "lf")
    section = {"path": "poems", "history_column": "history", "limit": 1}
    (file,) = files(plan_of(tmp_path, train=section, dataset_info="lf"))
    assert file.reading.columns["history"] == "history" and file.reading.columns["prompt"] == "topic"
    assert file.limit_records == 1


def test_a_remote_pattern_is_what_is_pinned(tmp_path: Path) -> None:
    pins = {f"s3://bucket/data/{name}.jsonl": "0" * 64 for name in ("b", "a", "deep/c")}
    plan = plan_of(tmp_path, train="s3://bucket/data/*.jsonl", pins=pins)
    assert names(plan) == ["a.jsonl", "b.jsonl"]
    told = problems(tmp_path, train=f"hub://datasets/org/set@{COMMIT}/data/*.parquet", pins=pins)
    assert "nothing that it stands for is pinned" in told and "slipway pin" in told


def test_a_custom_file_goes_with_nothing_else(tmp_path: Path) -> None:
    write_data(tmp_path)
    shutil.copy(FORMATS / "custom.py", tmp_path / "mine.py")
    plan = plan_of(tmp_path, train="mine.py", eval="mine.py")
    assert [file.format for file in (*files(plan), *files(plan, "eval"))] == ["custom", "custom"]
    assert "run by the stage prepare" in reasons(plan)["data.train.format"][1]
    (tmp_path / "other.py").write_text((tmp_path / "mine.py").read_text() + "\n# other\n")
    for data, expected in (
        ({"train": ["mine.py", "train.jsonl"]}, "a custom file is a data set of its own"),
        ({"train": "mine.py", "eval_fraction": 0.1}, "nothing can be set aside"),
        ({"train": "mine.py", "eval": "other.py"}, "one custom file serves all splits"),
        ({"test": "mine.py"}, "write the questions to a file"),
    ):
        assert expected in problems(tmp_path, **data)
    (tmp_path / "mine.py").write_text("def get_data(): ...\n")
    assert "defines no function get_custom_dataset" in problems(tmp_path, train="mine.py")


@pytest.mark.parametrize(
    "path",
    [path.name for path in sorted(FORMATS.iterdir()) if path.suffix != ".py"],
)
def test_every_format_is_said_in_the_plan(path: str, tmp_path: Path) -> None:
    shutil.copy(FORMATS / path, tmp_path / path)
    plan = plan_of(tmp_path, train=path)
    value, reason = reasons(plan)["data.train.format"]
    assert value == Path(path).stem and f"format {value} (detected)" in reason
