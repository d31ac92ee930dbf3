"""Stage `predict`: the test split answered by the base and the tuned model, and scored.

Each model is loaded in a fresh process (`train.asking`), so that the tuned one proves that its folder is all
that it needs.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from artifacts.contract import ModelParams, PredictParams, StageKind
from artifacts.manifest import ArtifactWriter
from train.answering import Answer, ModelSource
from train.asking import ask_all
from train.questions import Question
from train.scores import rouge, scores
from train.stage import StageContext, StageUserError

#: Where what lies is no whole model: it goes with the base.
_PARTS = (f"{StageKind.TRAIN.folder}/", f"{StageKind.ADAPTER.folder}/")
_MAX_LOSS = 700.0  # exp of which is still a float


def run(context: StageContext) -> None:
    """Write `predictions/<key>/`. Raises StageUserError where nothing can be asked."""
    params: PredictParams = context.stage.params
    questions = list(read_questions(context.input_folder("data")))
    questions = questions[: params.limit_records]
    if not questions:
        raise StageUserError(
            "no record of the test file ends with an assistant's turn", "leave predict out of `after`"
        )
    answers = ask_all(model_sources(context, params), questions, params, context.events)
    references = [question.reference for question in questions]
    texts = {name: [answer.text for answer in given] for name, given in answers.items()}
    each = {name: rouge(said, references) for name, said in texts.items()}
    writer = ArtifactWriter(context.store, context.stage.output)
    with writer.open("predictions.jsonl") as stream:
        for index, question in enumerate(questions):
            row = {"index": index, "prompt": question.prompt, "reference": question.reference}
            row |= {"tools": question.tools} if question.tools else {}
            row |= {name: said[index] for name, said in texts.items()}
            row["scores"] = {name: _rounded(found[index]) for name, found in each.items()}
            stream.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
    values = {
        name: scores(said, references, each[name]) | {"perplexity": perplexity(answers[name])}
        for name, said in texts.items()
    }
    writer.write_bytes("scores.json", json.dumps({**values, "records": len(questions)}, indent=2).encode())
    writer.commit(**{f"exact_match_{name}": value["exact_match"] for name, value in values.items()})


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 2) for name, value in values.items()}


def perplexity(answers: Sequence[Answer]) -> float | None:
    """Of the reference answers, over all their tokens, to 4 significant digits; None where it is beyond
    number, or there are no tokens."""
    tokens = sum(answer.reference_tokens for answer in answers)
    loss = sum(answer.reference_loss for answer in answers) / max(tokens, 1)
    return float(f"{math.exp(loss):.4g}") if tokens and loss < _MAX_LOSS else None


def read_questions(folder: Path) -> Iterator[Question]:
    """Of each test record what was said before the last assistant turn, and that turn as the reference."""
    for shard in sorted(folder.glob("test-*.jsonl")):
        with shard.open(encoding="utf-8") as lines:
            for line in lines:
                if question := Question.of(json.loads(line)):
                    yield question


def model_sources(context: StageContext, params: PredictParams) -> list[ModelSource]:
    """The models to ask. The tuned one is a whole model, or what was trained, here or elsewhere: weights that
    go over the base's, or an adapter for it. The base is asked with the tuned one's tokenizer and
    template."""
    model: ModelParams = context.plan.stage(StageKind.MODEL).params
    trust = model.trust_remote_code
    base = context.input_folder("model")
    tuned = context.input_folder("tuned")
    is_part = context.stage.inputs["tuned"].startswith(_PARTS)
    whole = completed(tuned, base, context.work / "tuned") if is_part else tuned
    if (tuned / "adapter_config.json").is_file():
        after = ModelSource("tuned", base, tuned, trust, tokenizer=whole)
    else:
        after = ModelSource("tuned", whole, None, trust)
    return [*([ModelSource("base", base, None, trust, tokenizer=whole)] if params.base else []), after]


def completed(trained: Path, base: Path, folder: Path) -> Path:
    """A folder of links to the trained files and, for what training did not write (tokenizer, configs), to
    the base model's."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    weights = {path.name for path in base.glob("*.safetensors*")}
    files = {path.name: path for path in base.iterdir() if path.name not in weights}
    for name, path in (files | {path.name: path for path in trained.iterdir()}).items():
        (folder / name).symlink_to(path.absolute())
    return folder
