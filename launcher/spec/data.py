"""Section `data` of a job: data sets, and how their records are read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from artifacts.contract import Reading, RecordFormat
from launcher import remote_data
from launcher.spec.job_grammar import DIGEST_PATTERN, FilePath
from launcher.spec.section import Conflict, Section

Split = Literal["train", "eval", "test"]
SPLITS: tuple[Split, ...] = ("train", "eval", "test")

JobFormat = Literal["auto", RecordFormat]
Name = Annotated[str, Field(min_length=1)]
_FORMATS = (
    "`messages` (lists of role and content), `conversations` (ShareGPT's and Qwen's from and value), "
    "`alpaca` (instruction, input, output), `prompt_response` (two columns by name), `text` (continued "
    "pre-training), `turns` (text with `### Human:` and `### Assistant:`), `dialogue` (dialogue, summary), "
    "`input_target` (input, target or output), `jfleg` (sentence, corrections), `custom` (a Python file)"
)


class ColumnNames(Section):
    """The file's names of what a format reads."""

    prompt: Name | None = Field(None, description="The question.")
    query: Name | None = Field(None, description="What follows the question, as `input` of alpaca.")
    response: Name | None = Field(None, description="The answer.")
    history: Name | None = Field(None, description="The turns before, a list of pairs [question, answer].")
    system: Name | None = Field(None, description="The system message.")
    tools: Name | None = Field(None, description="The tools that the assistant may call.")
    messages: Name | None = Field(None, description="The list of messages.")
    text: Name | None = Field(None, description="The text.")


class Tags(Section):
    """Names inside the messages of `conversations`, as in LLaMA-Factory's `dataset_info.json`."""

    role_tag: Name | None = Field(None, description="The key of who speaks. Left out: `from` or `role`.")
    content_tag: Name | None = Field(
        None, description="The key of the words. Left out: `value` or `content`."
    )
    user_tag: Name | None = Field(None, description="The user, beside `user` and `human`.")
    assistant_tag: Name | None = Field(None, description="The assistant, beside `assistant` and `gpt`.")
    system_tag: Name | None = Field(None, description="The system message, beside `system`.")
    observation_tag: Name | None = Field(
        None, description="A tool's answer, beside `observation` and `tool`."
    )
    function_tag: Name | None = Field(None, description="A call of a tool, beside `function_call`.")


class ReadingFields(Section):
    """What a data set can say of its records; in `data` itself, what holds where a data set says nothing."""

    format: JobFormat | None = Field(
        None, description=f"Record format: {_FORMATS}. Left out: detected from the records of each file."
    )
    prompt_column: Name | None = Field(None, description="Short for `columns: {prompt: …}`.")
    response_column: Name | None = Field(None, description="Short for `columns: {response: …}`.")
    history_column: Name | None = Field(None, description="Short for `columns: {history: …}`.")
    system_column: Name | None = Field(None, description="Short for `columns: {system: …}`.")
    columns: ColumnNames | None = Field(
        None, description="Names of columns. Left out: the format's own, and those of well-known data sets."
    )
    tags: Tags | None = Field(None, description="Names inside messages.")
    instruction: str | None = Field(
        None,
        description="Text before each question, in formats of a question and an answer, as `Correct this to "
        "standard English: `. Left out: none.",
    )
    fix_spacing: bool | None = Field(
        None,
        description='Remove the spaces of tokenized text: `" ."` to `"."`, `" n\'t"` to `"n\'t"` and so on. '
        "Left out: texts stay as they are.",
    )

    def conflicts(self) -> Iterator[Conflict]:
        for role in ("prompt", "response", "history", "system"):
            if self.columns and getattr(self, f"{role}_column") and getattr(self.columns, role):
                yield Conflict(
                    (f"{role}_column", f"columns.{role}"),
                    "the same column is named twice",
                    "keep one of them",
                )

    def reading(self) -> Reading:
        """What is said of the records, beside their format."""
        columns = self.columns.model_dump(exclude_none=True) if self.columns else {}
        for role in ("prompt", "response", "history", "system"):
            if name := getattr(self, f"{role}_column"):
                columns[role] = name
        return Reading(
            columns=columns,
            tags=self.tags.model_dump(exclude_none=True) if self.tags else {},
            instruction=self.instruction or "",
            fix_spacing=bool(self.fix_spacing),
        )


class _Place(Section):
    """What stands first in a data set."""

    path: FilePath = Field(
        description="A file, a folder of them, a pattern as `data/*.jsonl`, an address, or a name in "
        "`dataset_info.json`.",
        examples=["train.jsonl"],
    )
    weight: float = Field(
        1.0,
        gt=0,
        le=100,
        description="How often its records pass per epoch: of 0.5 every second one does, of 2 each twice.",
    )
    limit: int | None = Field(None, ge=1, description="Only its first records, so many. Left out: all.")


class DataSet(ReadingFields, _Place):
    """One data set. What it leaves out is as `data` says."""


Source = FilePath | DataSet
Sources = Source | Annotated[list[Source], Field(min_length=1)]


class _Splits(Section):
    """What stands first in `data`."""

    train: Sources = Field(
        description="Training data: a file, a data set, or a list.", examples=["train.jsonl"]
    )
    eval: Sources | None = Field(
        None, description="The same for the evaluation loss during training. Left out: no evaluation."
    )
    test: Sources | None = Field(
        None, description="The same for the questions that `predict` answers. Left out: no `predict`."
    )
    eval_fraction: float | None = Field(
        None,
        gt=0,
        le=0.5,
        description="Share of the training records that is set aside for evaluation instead, by their "
        "questions, so that none is on both sides. Left out: none.",
    )
    shuffle: bool | None = Field(
        None,
        description="Mix the training records, always in the same way. Left out: mixed where there are "
        "several data sets.",
    )


class Data(ReadingFields, _Splits):
    """Data sets: JSON list, JSON lines, CSV, Parquet, Arrow or text, perhaps with gzip or zstd; local ones
    (relative paths start at the job file), `s3://bucket/key`, or `hub://datasets/ORG/NAME@COMMIT/PATH` of the
    Hugging Face hub. [docs/data.md](data.md) has an example of each format."""

    dataset_info: FilePath | None = Field(
        None,
        description="Folder of a `dataset_info.json` of LLaMA-Factory, whose names train, eval and test may "
        "use. Left out: there are paths alone.",
    )
    on_error: Literal["stop", "skip"] = Field(
        "stop", description="A bad record stops the job before training, or is skipped, counted and reported."
    )
    pins: dict[str, Annotated[str, Field(pattern=DIGEST_PATTERN)]] = Field(
        {}, description="SHA-256 of each remote file, by its address. `slipway pin JOB` writes them."
    )

    def data_sets(self, split: Split) -> list[tuple[str, DataSet]]:
        """The split's data sets, each with its place in the job (`train`, `train.1`, `train.1.path`), and
        with what `data` says for all."""
        value: Any = getattr(self, split)
        entries = value if isinstance(value, list) else [] if value is None else [value]
        found = []
        for index, entry in enumerate(entries):
            place = f"{split}.{index}" if isinstance(value, list) else split
            is_section = isinstance(entry, DataSet)
            data_set = entry if is_section else DataSet(path=entry)
            found.append((f"{place}.path" if is_section else place, self._completed(data_set)))
        return found

    def _completed(self, data_set: DataSet) -> DataSet:
        own = {name: getattr(self, name) for name in ReadingFields.model_fields}
        return data_set.model_copy(
            update={name: value for name, value in own.items() if getattr(data_set, name) is None}
        )

    def files(self, split: Split) -> list[str]:
        """What the split's data sets name, as written; empty where the job names none."""
        return [data_set.path for _, data_set in self.data_sets(split)]

    @property
    def has_eval(self) -> bool:
        """Whether there is anything to evaluate on."""
        return self.eval is not None or self.eval_fraction is not None

    def conflicts(self) -> Iterator[Conflict]:
        yield from super().conflicts()
        for split in SPLITS:
            yield from self._conflicts_of(split)
        if self.eval is not None and self.eval_fraction is not None:
            yield Conflict(("eval_fraction", "eval"), "evaluation data is given twice", "keep one of the two")

    def _conflicts_of(self, split: Split) -> Iterator[Conflict]:
        before: list[str] = []
        for place, data_set in self.data_sets(split):
            path = data_set.path
            if remote_data.is_remote(path) and not remote_data.is_known(path):
                yield Conflict(
                    (place,),
                    "no address of a data file",
                    "use s3://bucket/key, hub://datasets/ORG/NAME@<full commit>/PATH, or download it and "
                    "write its path",
                )
            elif path in before:
                yield Conflict((place,), "the same file is named twice", "remove one, or give it a weight")
            if split != "train" and data_set.weight != 1:
                at = f"{place.removesuffix('.path')}.weight"
                yield Conflict((at,), "weights are for training data", "remove it, or write a limit")
            before.append(path)

    def with_absolute_paths(self, folder: Path) -> Data:
        """The same with absolute paths: relative ones start at `folder`, `~` is the home folder. Names that
        may stand in `dataset_info.json` stay."""
        splits = {split: self._absolute(getattr(self, split), folder) for split in self.given(*SPLITS)}
        info = {"dataset_info": absolute(self.dataset_info, folder)} if self.dataset_info else {}
        return self.model_copy(update={**splits, **info})

    def _absolute(self, value: Any, folder: Path) -> Any:
        if isinstance(value, list):
            return [self._absolute(item, folder) for item in value]
        if isinstance(value, DataSet):
            return value.model_copy(update={"path": self._absolute(value.path, folder)})
        may_be_name = self.dataset_info is not None and "/" not in value
        return value if may_be_name or remote_data.is_remote(value) else absolute(value, folder)


def absolute(path: str, folder: Path) -> str:
    """`path` from `folder`; a symlink stays one."""
    return os.path.abspath(folder / Path(path).expanduser())  # noqa: PTH100 - resolve() would follow symlinks
