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
KUBERNETES = """\
backend: kubernetes
store: s3://bucket/runs
image: {registry: registry.example.com/ml}
nodes: {cpus: 32, memory: 128Gi}
"""
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


def bad_kubernetes(name: str, change: str | dict[int, str], *expected: tuple[str, ...]) -> BadInput:
    """A good profile of a Kubernetes cluster with lines added from line 5 on, or some of its lines changed.
    Places are `line:column` alone."""
    lines = KUBERNETES.splitlines()
    if isinstance(change, str):
        lines += change.splitlines()
    else:
        for number, line in change.items():
            lines[number - 1] = line
    places = tuple((f"clusters/mine.yaml:{place}", *fragments) for place, *fragments in expected)
    return bad_profile(f"kubernetes: {name}", "\n".join(lines) + "\n", *places)


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
        ("job.yaml:4:16", "after[1]", "must be `merge`, `quantize`, `gguf`, `predict` or `publish`"),
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
        f"name: bot\n{MODEL}data: {{train: 'gs://bucket/train.jsonl'}}\n",
        ("job.yaml:3:8", "data.train", "no address of a data file", "s3://bucket/key"),
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
        "early stopping on nothing",
        "training: {early_stopping: 2, best_model: true}\n",
        ("job.yaml:4:12", "training.early_stopping", "nothing to evaluate on", "name a file in data.eval"),
        ("job.yaml:4:31", "training.best_model", "nothing to evaluate on"),
    ),
    bad_value(
        "LoRA+ of IA3",
        "method: {type: ia3, plus_ratio: 16}\n",
        ("job.yaml:4:21", "method.plus_ratio", "only goes with method lora, and the method is ia3"),
    ),
    bad_value(
        "virtual tokens of LoRA",
        "method: {virtual_tokens: 8}\n",
        ("job.yaml:4:10", "prefix_tuning, p_tuning_v2, prompt_tuning or llama_adapter", "remove it"),
    ),
    bad_value(
        "MLP of P-tuning v2",
        "method: {type: p_tuning_v2, projection_size: 64}\n",
        ("job.yaml:4:29", "only goes with method prefix_tuning"),
    ),
    bad_value("part of nothing", "method: partial\n", ("job.yaml:4:1", "found none", "train: head")),
    bad_value(
        "two parts",
        "method: {type: partial, train: head, last_layers: 2}\n",
        ("job.yaml:4:10", "found train and last_layers"),
    ),
    bad_value("no layers", "method: {type: partial, extra_layers: 0}\n", ("job.yaml:4:25", "at least 1")),
    bad_value(
        "whole and adapted",
        "method: {target_modules: [q_proj, lm_head], modules_to_save: [lm_head]}\n",
        ("job.yaml:4:10", "lm_head is trained whole", "leave lm_head out of one of them"),
    ),
    bad_value(
        "magnitudes of another start",
        "method: {dora: true, init: pissa}\n",
        ("job.yaml:4:10", "(dora) don't go with adapters that start from the base", "leave one of them out"),
    ),
    bad_value(
        "rows of what is trained whole",
        "method: {trainable_tokens: [<a>], modules_to_save: [embed_tokens]}\n",
        ("job.yaml:4:10", "rows of the embedding are trained alone, and embed_tokens", "keep one of them"),
    ),
    bad_value(
        "repeated target",
        "method: {target_modules: [q_proj, v_proj, q_proj]}\n",
        ("job.yaml:4:43", "q_proj is named twice"),
    ),
    bad_value(
        "hybrid sharding of zero3",
        "strategy: {type: zero3, sharding: hybrid}\n",
        ("job.yaml:4:25", "knows no hybrid sharding", "use strategy fsdp"),
    ),
    bad_value(
        "offload of one worker",
        "strategy: {type: single, offload: params}\n",
        ("job.yaml:4:26", "single keeps everything on its worker"),
    ),
    bad_value(
        "two templates",
        "template: {name: chatml, jinja: x}\n",
        ("job.yaml:4:12", "given once, found name and jinja"),
    ),
    bad_value(
        "half a template",
        "template: {user: {prefix: 'Q: '}}\n",
        ("job.yaml:4:12", "at least user and assistant"),
    ),
    bad_value(
        "a default with no place",
        "template: {user: {prefix: 'Q: '}, assistant: {prefix: 'A: '}, default_system: Be kind.}\n",
        ("job.yaml:4:63", "no place for a system message", "write system"),
    ),
    bad_value(
        "turns without a border",
        "template: {user: {prefix: 'Q: '}, assistant: {suffix: '.'}}\n",
        ("job.yaml:4:35", "nothing stands between a question and its answer"),
    ),
    bad_value("an EOS from nothing", "template: {replace_eos: true}\n", ("job.yaml:4:12", "no stop word")),
    bad_value(
        "repeated stop word",
        "template: {name: qwen, stop_words: [<a>, <a>]}\n",
        ("job.yaml:4:42", "<a> is named twice"),
    ),
    bad_value(
        "unknown template",
        "template: chatgml\n",
        ("job.yaml:4:1", "chatglm"),
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
        "halves of heads",
        "twin: {architecture: glm, hidden_size: 72, attention_heads: 12, key_value_heads: 2}",
        ("job.yaml:2:52", "6 is no multiple of 4"),
    ),
    bad_model(
        "what Bloom does not have",
        "twin: {architecture: bloom, key_value_heads: 2}",
        ("job.yaml:2:37", "Bloom has no such size of its own", "remove it"),
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
        ("clusters/mine.yaml:1:1", 'backend: "slurm"', "must be `local` or `kubernetes`"),
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
        (("", 'cluster "prod"', "no such profile", "known: example-prod, local"),),
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

KUBERNETES_PROFILES = [
    bad_profile(
        "profile: backend misspelt",
        "backend: kubernets\n",
        ("clusters/mine.yaml:1:1", "must be `local` or `kubernetes`", "did you mean `kubernetes`?"),
    ),
    bad_profile(
        "profile: no backend",
        "store: s3://bucket/x\n",
        ("clusters/mine.yaml:1:1", "backend: is required", "write `local` or `kubernetes`"),
    ),
    bad_profile(
        "kubernetes: nothing required",
        "backend: kubernetes\n",
        ("clusters/mine.yaml:1:1", "store: is required", '`store: "s3://bucket/slipway"`'),
        ("clusters/mine.yaml:1:1", "image: is required", "registry.example.com/ml"),
        ("clusters/mine.yaml:1:1", "nodes: is required", "cpus"),
    ),
    bad_kubernetes(
        "everything at once",
        "namespace: ML\ns3: {retries: 0, part_size: 16MB}\nqueue: {kue: x}\nlimits: {grace_s: 1}\n",
        ("5:1", 'namespace: "ML"', "lower-case letters, digits and dashes"),
        ("6:6", "s3.retries: 0", "at least 1"),
        ("6:18", 's3.part_size: "16MB"', "as `64Gi`"),
        ("7:9", "queue.kue", "unknown key", "did you mean `kueue`?"),
        ("8:10", "limits.grace_s: 1", "at least 5"),
    ),
    bad_kubernetes("store: a folder", {2: "store: /mnt/x"}, ("2:1", "must be `s3://BUCKET/PREFIX`")),
    bad_kubernetes("store: https", {2: "store: https://s3/x"}, ("2:1", "must be `s3://BUCKET/PREFIX`")),
    bad_kubernetes("store: upper case", {2: "store: s3://Bucket/x"}, ("2:1", "3 to 63 lower-case letters")),
    bad_kubernetes(
        "store: empty part", {2: "store: s3://bucket//x"}, ("2:1", "must be `s3://BUCKET/PREFIX`")
    ),
    bad_kubernetes(
        "endpoint: no scheme", "s3: {endpoint: s3.example.com}", ("5:6", "https://s3.example.com")
    ),
    bad_kubernetes(
        "endpoint: a path", "s3: {endpoint: 'https://s3.example.com/bucket'}", ("5:6", "without a path")
    ),
    bad_kubernetes(
        "endpoint of pods alone",
        "s3: {endpoint_in_cluster: 'http://s3:9000'}",
        ("5:6", "says nothing of this machine", "add endpoint"),
    ),
    bad_kubernetes("parts: too small", "s3: {part_size: 1Mi}", ("5:6", "5Mi or more", "use 16Mi")),
    bad_kubernetes("work: an address", "work: s3://x/y", ("5:1", "a folder on this machine")),
    bad_kubernetes(
        "namespace: too long", f"namespace: {'n' * 64}", ("5:1", "namespace", "1 to 63 lower-case letters")
    ),
    bad_kubernetes("service account", "service_account: My_Account", ("5:1", "lower-case letters")),
    bad_kubernetes("Secret: a path", "s3: {secret: keys/s3}", ("5:6", "s3.secret", "lower-case letters")),
    bad_kubernetes(
        "image: nowhere to push",
        {3: "image: {builder: podman}"},
        ("3:9", 'image.builder: "podman"', "nowhere to push", "add registry"),
    ),
    bad_kubernetes(
        "image: none given", {3: "image: {builder: none}"}, ("3:9", "none is given", "IMAGE@sha256:…")
    ),
    bad_kubernetes(
        "image: without digest",
        {3: "image: {builder: none, name: 'registry.example.com/ml:1.0'}"},
        ("3:24", "image.name", "an image by digest"),
    ),
    bad_kubernetes(
        "image: given and built",
        {3: f"image: {{registry: r.example.com/ml, name: 'r.example.com/ml@sha256:{'0' * 64}'}}"},
        ("3:37", "image.name", "docker builds the image", "write builder: none"),
    ),
    bad_kubernetes(
        "image: base of none",
        {3: f"image: {{builder: none, base: 'debian:12', name: 'r.example.com/ml@sha256:{'0' * 64}'}}"},
        ("3:24", "image.base", "only goes with a builder"),
    ),
    bad_kubernetes(
        "image: registry with scheme",
        {3: "image: {registry: 'https://registry.example.com/ml'}"},
        ("3:9", "without scheme, tag or digest"),
    ),
    bad_kubernetes(
        "image: registry with tag",
        {3: "image: {registry: 'r.example.com/ml:1'}"},
        ("3:9", "without scheme, tag"),
    ),
    bad_kubernetes(
        "image: latest base",
        {3: "image: {registry: r.example.com/ml, base: 'debian:latest'}"},
        ("3:37", "latest is another image tomorrow"),
    ),
    bad_kubernetes(
        "image: untagged base",
        {3: "image: {registry: r.example.com/ml, base: debian}"},
        ("3:37", "an image with a tag or digest"),
    ),
    bad_kubernetes(
        "image: architecture as a number",
        {3: "image: {registry: r.example.com/ml, architectures: [9.0]}"},
        ("3:53", "image.architectures[0]: 9.0", "put it in quotes"),
    ),
    bad_kubernetes(
        "image: unknown builder",
        {3: "image: {registry: r.example.com/ml, builder: kanikko}"},
        ("3:37", "must be `docker`, `podman`, `buildah` or `none`"),
    ),
    bad_kubernetes(
        "nodes: memory units",
        {4: "nodes: {cpus: 32, memory: 128GB}"},
        ("4:19", 'nodes.memory: "128GB"', "`64Gi`"),
    ),
    bad_kubernetes(
        "nodes: a number as memory",
        {4: "nodes: {cpus: 32, memory: 128}"},
        ("4:19", "must be text", "put it in quotes"),
    ),
    bad_kubernetes("nodes: no memory", {4: "nodes: {cpus: 32, memory: 0Gi}"}, ("4:19", "must be above 0")),
    bad_kubernetes(
        "nodes: no cores", {4: "nodes: {cpus: 0, memory: 9Gi}"}, ("4:9", "nodes.cpus: 0", "above 0")
    ),
    bad_kubernetes(
        "nodes: unknown GPU",
        {4: "nodes: {cpus: 32, memory: 128Gi, gpu: H1000, gpus_per_node: 8}"},
        ("4:34", 'nodes.gpu: "H1000"', "no such GPU type", "H100-80GB"),
    ),
    bad_kubernetes(
        "nodes: GPUs of no type",
        {4: "nodes: {cpus: 32, memory: 128Gi, gpus_per_node: 8}"},
        ("4:34", "nodes.gpus_per_node: 8", "of which type", "add gpu"),
    ),
    bad_kubernetes(
        "nodes: how many GPUs",
        {4: "nodes: {cpus: 32, memory: 128Gi, gpu: H100-80GB}"},
        ("4:34", "nodes.gpu", "add gpus_per_node"),
    ),
    bad_kubernetes(
        "nodes: unknown preset",
        {4: "nodes: {cpus: 32, memory: 128Gi, network: infiniband}"},
        ("4:34", 'nodes.network: "infiniband"', "must be `none`, `efa` or `rdma`"),
    ),
    bad_kubernetes(
        "nodes: RDMA without GPUs",
        {4: "nodes: {cpus: 32, memory: 128Gi, network: rdma}"},
        ("4:34", "only goes with GPUs"),
    ),
    bad_kubernetes(
        "nodes: how many adapters",
        {4: "nodes: {cpus: 90, memory: 900Gi, gpu: H100-80GB, gpus_per_node: 8, network: efa}"},
        ("4:68", "depends on its type", "p5.48xlarge 32"),
    ),
    bad_kubernetes(
        "nodes: adapters of no network",
        {4: "nodes: {cpus: 32, memory: 128Gi, network_devices: 4}"},
        ("4:34", "only goes with a network preset"),
    ),
    bad_kubernetes(
        "nodes: other variables",
        {4: "nodes: {cpus: 32, memory: 128Gi, nccl: {OMP_NUM_THREADS: '4'}}"},
        ("4:41", "nodes.nccl.OMP_NUM_THREADS", "use `environment`"),
    ),
    bad_kubernetes(
        "nodes: number as variable",
        {4: "nodes: {cpus: 32, memory: 128Gi, nccl: {NCCL_DEBUG: 1}}"},
        ("4:41", "must be text", "put it in quotes"),
    ),
    bad_kubernetes(
        "nodes: shared memory",
        {4: "nodes: {cpus: 32, memory: 128Gi, shared_memory: 128Gi}"},
        ("4:34", "nodes.shared_memory", "leaves nothing", "lower it"),
    ),
    bad_kubernetes(
        "nodes: selector is a list",
        {4: "nodes: {cpus: 32, memory: 128Gi, selector: [gpu]}"},
        ("4:34", "must be a mapping", "not a list"),
    ),
    bad_kubernetes(
        "nodes: selector's value",
        {4: "nodes: {cpus: 32, memory: 128Gi, selector: {pool: 'a b'}}"},
        ("4:45", "nodes.selector.pool", "at most 63 letters"),
    ),
    bad_kubernetes(
        "nodes: selector's key with dots",
        {4: "nodes: {cpus: 32, memory: 128Gi, selector: {example.com/a/b: x}}"},
        ("4:45", "the key must be a name as `example.com/pool`"),
    ),
    bad_kubernetes(
        "tolerations: unknown key and effect",
        {4: "nodes: {cpus: 32, memory: 128Gi, tolerations: [{key: g, operater: Exists, effect: NoScedule}]}"},
        ("4:57", "nodes.tolerations[0].operater", "unknown key", "known here: key, operator"),
        ("4:75", "nodes.tolerations[0].effect", "must be `NoSchedule` or `PreferNoSchedule`"),
    ),
    bad_kubernetes(
        "tolerations: a value for Exists",
        {4: "nodes: {cpus: 32, memory: 128Gi, tolerations: [{key: a, operator: Exists, value: b}]}"},
        ("4:75", "operator Exists takes no value"),
    ),
    bad_kubernetes(
        "tolerations: no key",
        {4: "nodes: {cpus: 32, memory: 128Gi, tolerations: [{effect: NoSchedule}]}"},
        ("4:48", "nodes.tolerations[0]", "names no key"),
    ),
    bad_kubernetes(
        "tolerations: text",
        {4: "nodes: {cpus: 32, memory: 128Gi, tolerations: [nvidia.com/gpu]}"},
        ("4:48", "must be a mapping"),
    ),
    bad_kubernetes(
        "resources: above a node",
        "resources: {merge: {cpus: 64, memory: 1Ti}}",
        ("5:21", "resources.merge.cpus: 64", "more than the 32 of a node (nodes.cpus)"),
        ("5:31", 'resources.merge.memory: "1Ti"', "more than the 128Gi of a node (nodes.memory)"),
    ),
    bad_kubernetes(
        "resources: half said", "resources: {head: {cpus: 2}}", ("5:13", "resources.head.memory: is required")
    ),
    bad_kubernetes(
        "resources: of a stage that is none",
        "resources: {trian: {cpus: 2, memory: 1Gi}}",
        ("5:13", "unknown key"),
    ),
    bad_kubernetes(
        "cache: two places", "cache: {claim: a, host_path: /b}", ("5:19", "two places", "keep one")
    ),
    bad_kubernetes("cache: relative path", "cache: {host_path: data}", ("5:9", "an absolute path")),
    bad_kubernetes("limits: unit", "limits: {train_s: 3d}", ("5:10", "a whole number, not text")),
    bad_kubernetes("scheduler", "queue: {scheduler_name: My Scheduler}", ("5:9", "lower-case letters")),
    bad_kubernetes(
        "Kueue by label",
        "labels: {kueue.x-k8s.io/queue-name: research}",
        ("5:10", "labels.kueue.x-k8s.io/queue-name", "write queue: {kueue: NAME}"),
    ),
    bad_kubernetes("labels: ours", "labels: {slipway/run: x}", ("5:10", "set by the launcher")),
    bad_kubernetes(
        "annotations: key", "annotations: {'a b': x}", ("5:15", "must be a name as `example.com/pool`")
    ),
    bad_kubernetes("pod template", "pod_template: {containers: []}", ("5:16", "metadata and spec alone")),
    bad_kubernetes("variable's name", "environment: {MY-VAR: x}", ("5:15", "no name of a variable")),
    bad_kubernetes("our variable", "environment: {AWS_REGION: x}", ("5:15", "sets this variable itself")),
    bad_kubernetes(
        "a key as a plain value",
        "environment: {AWS_SECRET_ACCESS_KEY: abc}",
        ("5:15", "environment.AWS_SECRET_ACCESS_KEY", "write secrets: {AWS_SECRET_ACCESS_KEY: {secret: NAME"),
    ),
    bad_kubernetes(
        "a key in the patch",
        "pod_template: {spec: {containers: [{name: x, env: [{name: HF_TOKEN, value: abc}]}]}}",
        ("5:69", "HF_TOKEN is a secret by its name", "use `secrets:`"),
    ),
    bad_kubernetes(
        "variable twice",
        "environment: {MODE: a}\nsecrets: {MODE: {secret: a, key: b}}",
        ("6:11", "is in environment too"),
    ),
    bad_kubernetes(
        "secret without key",
        "secrets: {HF_TOKEN: {secret: hub, kee: token}}",
        ("5:35", "secrets.HF_TOKEN.kee", "unknown key", "did you mean `key`?"),
    ),
    bad_kubernetes("secret as text", "secrets: {HF_TOKEN: hub}", ("5:11", "must be a mapping")),
    BadInput(
        "kubernetes: a token",
        (("clusters/mine.yaml:5:15", "looks like a secret"),),
        {"job.yaml": JOB, "clusters/mine.yaml": f"{KUBERNETES}environment: {{HUB: {TOKEN}}}\n"},
        cluster="mine",
        hidden=TOKEN,
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

BAD_INPUTS = [*YAML, *VALUES, *CONFLICTS, *OVERRIDES, *SECRETS, *PROFILES, *KUBERNETES_PROFILES, *PATHS]
