"""Section `data` of a job: files, and how their records are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from launcher import remote_data
from launcher.spec.job_grammar import DIGEST_PATTERN, FilePath
from launcher.spec.section import Conflict, Section

Split = Literal["train", "eval", "test"]
SPLITS: tuple[Split, ...] = ("train", "eval", "test")


class Data(Section):
    """Files, each JSON list, JSON lines, CSV or Parquet: local ones (relative paths start at the job file),
    `s3://bucket/key`, or `hub://datasets/ORG/NAME@COMMIT/PATH` of the Hugging Face hub."""

    train: FilePath | Annotated[list[FilePath], Field(min_length=1)] = Field(
        description="Training file or files.", examples=["train.jsonl"]
    )
    eval: FilePath | Annotated[list[FilePath], Field(min_length=1)] | None = Field(
        None, description="File or files for the evaluation loss during training. Left out: no evaluation."
    )
    test: FilePath | Annotated[list[FilePath], Field(min_length=1)] | None = Field(
        None, description="File or files whose questions `predict` answers. Left out: no `predict`."
    )
    format: Literal["auto", "messages", "alpaca"] = Field(
        "auto",
        description="Record format: `messages` (a list of role and content) or `alpaca` (instruction, input, "
        "output). `auto` detects it from the records of each file.",
    )
    on_error: Literal["stop", "skip"] = Field(
        "stop", description="A bad record stops the job before training, or is skipped, counted and reported."
    )
    pins: dict[str, Annotated[str, Field(pattern=DIGEST_PATTERN)]] = Field(
        {}, description="SHA-256 of each remote file, by its address. `slipway pin JOB` writes them."
    )

    def files(self, split: Split) -> list[str]:
        """The split's files as a list, empty where the job names none."""
        value: str | list[str] | None = getattr(self, split)
        return [value] if isinstance(value, str) else list(value or [])

    def conflicts(self) -> Iterator[Conflict]:
        for split in SPLITS:
            files = self.files(split)
            for index, file in enumerate(files):
                place = split if isinstance(getattr(self, split), str) else f"{split}.{index}"
                if remote_data.is_remote(file) and not remote_data.is_known(file):
                    yield Conflict(
                        (place,),
                        "no address of a data file",
                        "use s3://bucket/key, hub://datasets/ORG/NAME@<full commit>/PATH, or download it and "
                        "write its path",
                    )
                elif file in files[:index]:
                    yield Conflict((place,), "the same file is named twice", "remove one")
