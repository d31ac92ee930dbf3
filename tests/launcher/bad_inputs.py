"""Bad jobs, profiles and paths, and what Slipway must say about each.

A list, so that the same cases go through the loader (test_bad_input.py) and through the command line.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

RECORD = '{"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]}\n'

MODEL = "model: {twin: {}}\n"
DATA = "data: {train: train.jsonl}\n"
JOB = f"name: bot\n{MODEL}{DATA}"  # three lines; what a case adds starts on line 4
TOKEN = "hf_" + "aB3dE5gH7jK9mN1pQ2"  # the form of a token, of nobody


@dataclass(frozen=True)
class BadInput:
    """`expected` has one entry per problem, in order: its place, then fragments of its message."""

    name: str
    expected: tuple[tuple[str, ...], ...]
    files: dict[str, str | bytes] = field(default_factory=dict)  # written below the working directory
    make: Callable[[Path], None] | None = None  # what can't be written as a file
    job: str = "job.yaml"
    overrides: tuple[str, ...] = ()  # as given to --set
    cluster: str = "local"
    hidden: str = ""  # must not be shown

    def write(self, folder: Path) -> None:
        """Create the case's files in `folder`, with a good data file beside them."""
        for path, content in {"train.jsonl": RECORD, **self.files}.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content.encode() if isinstance(content, str) else content)
        if self.make is not None:
            self.make(folder)


def bad_job(
    name: str, text: str | bytes, *expected: tuple[str, ...], sets: tuple[str, ...] = (), hidden: str = ""
) -> BadInput:
    return BadInput(name, expected, {"job.yaml": text}, overrides=sets, hidden=hidden)


def bad_value(name: str, lines: str, *expected: tuple[str, ...], sets: tuple[str, ...] = ()) -> BadInput:
    """A good job with `lines` added from line 4 on."""
    return bad_job(name, JOB + lines, *expected, sets=sets)


def bad_model(name: str, model: str, *expected: tuple[str, ...]) -> BadInput:
    """The model is on line 2 and starts in column 9."""
    return bad_job(name, f"name: bot\nmodel: {{{model}}}\n{DATA}", *expected)


def bad_profile(name: str, text: str, *expected: tuple[str, ...]) -> BadInput:
    return BadInput(name, expected, {"job.yaml": JOB, "clusters/mine.yaml": text}, cluster="mine")


def bad_path(
    name: str, make: Callable[[Path], None] | None, *expected: tuple[str, ...], job: str = "job.yaml"
) -> BadInput:
    return BadInput(name, expected, make=make, job=job)


YAML = [
    bad_job("empty file", "", ("", "job.yaml: the file is empty (0 bytes)")),
    bad_job(
        "only comments", "# a job\n\n", ("job.yaml:1:1", "not a mapping", "only comments or blank lines")
    ),
    bad_job("a list", "- a\n- b\n", ("job.yaml:1:1", "not a mapping", "found a list")),
    bad_job("plain text", "hello\n", ("job.yaml:1:1", "not a mapping", "found text")),
    bad_job(
        "invalid UTF-8",
        JOB.encode() + b"# caf\xe9\n",
        ("job.yaml:4:6", "not UTF-8", f"byte 0xe9 at byte offset {len(JOB) + 5}", "save the file as UTF-8"),
    ),
    bad_job("UTF-16", JOB.encode("utf-16"), ("job.yaml:1:1", "not UTF-8", "UTF-16")),
    bad_job("binary", b"\x7fELF\x02\x01\x00\x00", ("job.yaml:1:1", "not valid YAML", "U+007F")),
    bad_job("too large", "# " + "x" * 1024 * 1024, ("job.yaml", "too large", "1,048,576 bytes")),
    bad_job(
        "5,000 brackets", "name: " + "[" * 5000, ("job.yaml:1:38", "nested too deeply", "more than 32 levels")
    ),
    bad_job(
        "repeated key",
        JOB + "name: other\n",
        ("job.yaml:4:1", "name", "given twice", "the first is on line 1"),
    ),
    bad_job(
        "anchor and alias",
        "a: &x {b: 1}\nc: *x\n",
        ("job.yaml:1:4", "an anchor", "not allowed", "write the value out"),
    ),
    bad_job(
        "merge key", JOB + "training: {<<: {epochs: 1}}\n", ("job.yaml:4:12", "a merge key", "not allowed")
    ),
    bad_job("tag", "name: !!python/object:os.system bot\n", ("job.yaml:1:7", "a tag", "not allowed")),
    bad_job("two documents", JOB + "---\nname: b\n", ("job.yaml:4:1", "a second document", "remove `---`")),
    bad_job("YAML 1.1", f"%YAML 1.1\n---\n{JOB}", ("job.yaml:2:1", "a directive", "only `%YAML 1.2`")),
    bad_job("tab", JOB + "training:\n\tepochs: 1\n", ("job.yaml:5:1", "not valid YAML", "a tab")),
    bad_job(
        "indentation",
        JOB + "training:\n  epochs: 1\n seed: 2\n",
        ("job.yaml:6:2", "not valid YAML", "indentation"),
    ),
    bad_job("open bracket", "name: [a, b\n", ("job.yaml:2:1", "not valid YAML", "`]` is missing")),
    bad_job("open quote", 'name: "bot\n', ("job.yaml:2:1", "not valid YAML", "ends inside quotes")),
    bad_job("colon in text", "name: a: b\n", ("job.yaml:1:8", "not valid YAML", "quote the text")),
    bad_job("number as key", JOB + "1: 2\n", ("job.yaml:4:1", "key 1", "must be text", "quote it")),
    bad_job(
        "endless number", JOB + f"training: {{seed: {'9' * 5000}}}\n", ("job.yaml:4:18", "5,000 characters")
    ),
]

VALUES = [
    bad_job(
        "nothing required",
        "compute: {workers: 2}\n",
        ("job.yaml:1:1", "name: is required", '`name: "support-bot"`'),
        ("job.yaml:1:1", "model: is required"),
        ("job.yaml:1:1", "data: is required"),
    ),
    bad_value(
        "unknown key",
        "training:\n  lerning_rate: 1e-4\n",
        ("job.yaml:5:3", "training.lerning_rate: 0.0001", "unknown key", "did you mean `learning_rate`?"),
    ),
    bad_value(
        "unknown key, none near",
        "callbacks: []\n",
        ("job.yaml:4:1", "unknown key", "known here: name, model, data"),
    ),
    bad_value(
        "key of another section",
        "learning_rate: 1e-4\n",
        ("job.yaml:4:1", "unknown key", "belongs under `training`"),
    ),
    bad_value(
        "text for a number",
        "training: {epochs: three}\n",
        ("job.yaml:4:12", 'training.epochs: "three"', "must be a number, not text"),
    ),
    bad_value(
        "number in quotes",
        "training: {steps: '100'}\n",
        ("job.yaml:4:12", "whole number", "remove the quotes"),
    ),
    bad_value(
        "float for an integer", "training: {steps: 1e3}\n", ("job.yaml:4:12", "whole number", "write 1000")
    ),
    bad_value(
        "negative", "training: {epochs: -1}\n", ("job.yaml:4:12", "training.epochs: -1", "must be above 0")
    ),
    bad_value("not finite", "training: {learning_rate: .nan}\n", ("job.yaml:4:12", "a finite number")),
    bad_value(
        "too large a number",
        "method: {rank: 5000}\n",
        ("job.yaml:4:10", "method.rank: 5000", "at most 1,024"),
    ),
    bad_value(
        "yes is text",
        "training: {packing: yes}\n",
        ("job.yaml:4:12", 'training.packing: "yes"', "must be true or false", "write true"),
    ),
    bad_value(
        "wrong choice",
        "training: {schedule: cosin}\n",
        ("job.yaml:4:12", "must be `cosine`, `linear` or `constant`", "did you mean `cosine`?"),
    ),
    bad_value(
        "wrong short form",
        "strategy: zero4\n",
        ("job.yaml:4:1", 'strategy: "zero4"', "did you mean `zero3`?"),
    ),
    bad_value(
        "list for a section",
        "training: [epochs]\n",
        ("job.yaml:4:1", "training", "must be a mapping", "not a list"),
    ),
    bad_value(
        "choice or number",
        "training: {save_every: often}\n",
        ("job.yaml:4:12", "must be `epoch` or a number"),
    ),
    bad_value(
        "part of a step", "training: {save_every: 2.5}\n", ("job.yaml:4:12", "a whole number of steps")
    ),
    bad_value(
        "memory", "compute: {memory: 64GB}\n", ("job.yaml:4:11", 'compute.memory: "64GB"', "as `64Gi`")
    ),
    bad_value(
        "item of a list",
        "after: [merge, quantise]\n",
        ("job.yaml:4:16", "after[1]", "must be `merge` or `predict`"),
    ),
    bad_job(
        "name",
        f"name: Support Bot\n{MODEL}{DATA}",
        ("job.yaml:1:1", 'name: "Support Bot"', "lower-case letters"),
    ),
    bad_job(
        "no data files",
        f"name: bot\n{MODEL}data: {{train: []}}\n",
        ("job.yaml:3:8", "data.train: []", "must not be empty"),
    ),
    bad_job(
        "numbers as files",
        f"name: bot\n{MODEL}data:\n  train:\n  - a.jsonl\n  - 7\n",
        ("job.yaml:6:5", "data.train[1]: 7", "must be text", "put it in quotes"),
    ),
    bad_job(
        "remote data",
        f"name: bot\n{MODEL}data: {{train: 's3://bucket/train.jsonl'}}\n",
        ("job.yaml:3:8", "data.train", "only local files"),
    ),
    bad_job(
        "everything at once",
        "name: Bot\nmodel: {}\ndata: {train: a, tset: b}\ntraining: {epochs: 0, steps: x}\n",
        ("job.yaml:1:1", "name"),
        ("job.yaml:2:1", "exactly one source, found none"),
        ("job.yaml:3:18", "did you mean `test`?"),
        ("job.yaml:4:12", "above 0"),
        ("job.yaml:4:23", "whole number"),
    ),
]

CONFLICTS = [
    bad_value(
        "epochs and steps",
        "training:\n  epochs: 3\n  steps: 100\n",
        ("job.yaml:6:3", "training.steps: 100", "steps and epochs are two ways", "keep one"),
    ),
    bad_value(
        "warm-up twice",
        "training: {warmup_steps: 3, warmup_share: 0.1}\n",
        ("job.yaml:4:12", "two ways to say"),
    ),
    bad_value(
        "batch size twice",
        "training: {global_batch_size: 3, global_batch_tokens: 4096}\n",
        ("job.yaml:4:34", "training.global_batch_tokens: 4096", "two ways to say"),
    ),
    bad_value(
        "less than a sequence",
        "training: {global_batch_tokens: 1000}\n",
        ("job.yaml:4:12", "1,000 tokens are less than one sequence of 2,048"),
    ),
    bad_value(
        "micro above global",
        "training: {global_batch_size: 4, micro_batch_size: 8}\n",
        ("job.yaml:4:34", "8 sequences are more than global_batch_size 4"),
    ),
    bad_value(
        "long warm-up",
        "training: {steps: 10, warmup_steps: 20}\n",
        ("job.yaml:4:23", "longer than the training"),
    ),
    bad_value(
        "offload with ddp",
        "strategy: {type: ddp, offload: optimizer}\n",
        ("job.yaml:4:23", 'strategy.offload: "optimizer"', "use strategy zero2 or zero3"),
    ),
    bad_value(
        "weights with zero2",
        "strategy: {type: zero2, offload: params}\n",
        ("job.yaml:4:25", "use strategy zero3"),
    ),
    bad_value(
        "optimizer with fsdp",
        "strategy: {type: fsdp, offload: optimizer}\n",
        ("job.yaml:4:24", "offload: params"),
    ),
    bad_value(
        "rank of full",
        "method: {type: full, rank: 8}\n",
        ("job.yaml:4:22", "method.rank: 8", "only goes with method lora"),
    ),
    bad_value(
        "predict without questions",
        "after: [predict]\n",
        ("job.yaml:4:1", "after", "name a file in data.test"),
    ),
    bad_value("repeated stage", "after: [merge, merge]\n", ("job.yaml:4:16", "after[1]", "named twice")),
    bad_value(
        "evaluation of nothing",
        "training: {evaluate_every: 10}\n",
        ("job.yaml:4:12", "name a file in data.eval"),
    ),
    bad_value(
        "conflict of sections",
        "data2: 1\ntraining: {epochs: 1, steps: 2}\n",
        ("job.yaml:4:1", "unknown key", "did you mean `data`?"),
        ("job.yaml:5:23", "two ways"),
    ),
    bad_model(
        "two models", "twin: {}, folder: x", ("job.yaml:2:19", "exactly one source, found folder and twin")
    ),
    bad_model(
        "a branch", "hub: a/b, revision: main", ("job.yaml:2:19", "a full commit", "`slipway pin JOB`")
    ),
    bad_model(
        "an address", "hub: 'https://huggingface.co/Qwen/Qwen3-8B'", ("job.yaml:2:9", "as `Qwen/Qwen3-8B`")
    ),
    bad_model(
        "revision of a folder", f"folder: x, revision: {'a' * 40}", ("job.yaml:2:20", "only goes with hub")
    ),
    bad_model(
        "remote code unpinned",
        "hub: a/b, trust_remote_code: true",
        ("job.yaml:2:19", "needs a pinned model, and revision is left out", "`slipway pin JOB` writes it"),
    ),
    bad_model(
        "heads",
        "twin: {attention_heads: 5, key_value_heads: 5}",
        ("job.yaml:2:16", "5 heads do not divide hidden_size 128", "use 1, 2, 4, 8, 16 or 32 heads"),
    ),
    bad_model(
        "grouped heads",
        "twin: {key_value_heads: 3}",
        ("job.yaml:2:16", "do not divide the 4 attention_heads", "1, 2 or 4"),
    ),
]

OVERRIDES = [
    bad_value(
        "override without value",
        "",
        ("", "--set training.epochs: is not FIELD=VALUE"),
        sets=("training.epochs",),
    ),
    bad_value(
        "override of an unknown field",
        "",
        ("--set training.epoch", "= 3: unknown key", "did you mean `epochs`?"),
        sets=("training.epoch=3",),
    ),
    bad_value(
        "override out of range",
        "training: {epochs: 1}\n",
        ("--set training.epochs", "= -1: must be above 0"),
        sets=("training.epochs=-1",),
    ),
    bad_value(
        "override against the file",
        "training: {epochs: 1}\n",
        ("--set training.steps", "= 5: steps and epochs are two ways", "--set training.epochs= leaves"),
        sets=("training.steps=5",),
    ),
    bad_value("override below text", "", ("--set name.first", "= 1: name is text"), sets=("name.first=1",)),
    bad_value(
        "override past a list",
        "after: [merge]\n",
        ("--set after[3]", "after has 1 item"),
        sets=("after[3]=predict",),
    ),
    bad_value(
        "override in bad YAML", "", ("--set after", "not valid YAML", "is missing"), sets=("after=[merge",)
    ),
]

SECRETS = [
    bad_job(
        "token as value",
        JOB + f"compute: {{accelerator: {TOKEN}}}\n",
        ("job.yaml:4:11", "compute.accelerator: (hidden", "looks like a secret", "HF_TOKEN"),
        hidden=TOKEN,
    ),
    bad_job("token as key", JOB + f"{TOKEN}: 1\n", ("job.yaml:4:1", "looks like a secret"), hidden=TOKEN),
    bad_job("token in bad YAML", JOB + f"x: {TOKEN}: 1\n", ("job.yaml:4:25", "not valid YAML"), hidden=TOKEN),
    bad_job(
        "password in an address",
        f"name: bot\nmodel: {{store: 'https://me:hunter2@host/x'}}\n{DATA}",
        ("job.yaml:2:9", "model.store: (hidden", "looks like a secret"),
        hidden="hunter2",
    ),
    bad_job(
        "token on the command line",
        JOB,
        ("--set compute.accelerator", "looks like a secret"),
        sets=(f"compute.accelerator={TOKEN}",),
        hidden=TOKEN,
    ),
]

PROFILES = [
    bad_profile(
        "profile: backend",
        "backend: slurm\n",
        ("clusters/mine.yaml:1:1", 'backend: "slurm"', "must be `local`"),
    ),
    bad_profile(
        "profile: unknown key",
        "backend: local\nstor: x\n",
        ("clusters/mine.yaml:2:1", "did you mean `store`?"),
    ),
    bad_profile("profile: nothing", "# later\n", ("clusters/mine.yaml:1:1", "not a mapping")),
    bad_profile(
        "profile: bucket",
        "backend: local\nstore: s3://bucket/x\n",
        ("clusters/mine.yaml:2:1", "no store for s3://"),
    ),
    bad_profile(
        "profile: secret",
        f"backend: local\nwork: {TOKEN}\n",
        ("clusters/mine.yaml:2:1", "looks like a secret"),
    ),
    BadInput(
        "profile: misspelt",
        (("", 'cluster "locl"', "no such profile", "did you mean `local`?"),),
        {"job.yaml": JOB},
        cluster="locl",
    ),
    BadInput(
        "profile: unknown",
        (("", 'cluster "prod"', "no such profile", "known: local"),),
        {"job.yaml": JOB},
        cluster="prod",
    ),
    BadInput(
        "profile: missing file",
        (("", "clusters/prod.yaml: does not exist", "clusters"),),
        {"job.yaml": JOB},
        cluster="clusters/prod.yaml",
    ),
]

PATHS = [
    bad_path(
        "job: missing",
        lambda folder: (folder / "jobs.yaml").touch(),
        ("", "job.yaml: does not exist", "did you mean jobs.yaml?"),
    ),
    bad_path(
        "job: missing folder",
        None,
        ("", "nowhere/job.yaml: does not exist", "no folder nowhere"),
        job="nowhere/job.yaml",
    ),
    bad_path("job: a folder", lambda folder: (folder / "job.yaml").mkdir(), ("", "job.yaml: is a folder")),
    bad_path("job: a FIFO", lambda folder: os.mkfifo(folder / "job.yaml"), ("", "job.yaml: is a FIFO")),
    bad_path("job: a device", None, ("", "/dev/zero: is a device"), job="/dev/zero"),
    bad_path(
        "job: a dead symlink",
        lambda folder: (folder / "job.yaml").symlink_to("gone.yaml"),
        ("", "is a symlink to gone.yaml, which does not exist"),
    ),
    bad_path(
        "job: a symlink loop",
        lambda folder: (folder / "job.yaml").symlink_to("job.yaml"),
        ("", "leads back to itself"),
    ),
    bad_path("job: a name too long", None, ("", "can't be read: file name too long"), job="x" * 300),
]

BAD_INPUTS = [*YAML, *VALUES, *CONFLICTS, *OVERRIDES, *SECRETS, *PROFILES, *PATHS]
