"""Answers of tiny models in processes of their own, against generating one prompt at a time."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from artifacts.contract import ModelParams, PredictParams, StageKind, TwinParams
from artifacts.events import Events, events_prefix
from artifacts.local import LocalStore
from artifacts.manifest import Manifest, read_marker, verify, write_marker
from artifacts.segments import read_all
from tests import plan_parts
from train import answering, asking, predict
from train.__main__ import main
from train.answering import ModelSource
from train.questions import Question
from train.stage import StageContext, StageError, StageUserError
from train.twin import make_twin

QUESTIONS = [
    "What is a slipway?",
    "Hi",
    "Tell me, at some length, how ships are built and let go.",
    "Why?",
    "1+1",
]
PARAMS = PredictParams(max_new_tokens=10, batch_size=2)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    twin = TwinParams(hidden_size=32, intermediate_size=64, layers=2, attention_heads=2, vocabulary_size=320)
    for name, data in make_twin(twin, QUESTIONS).items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def tuned(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other weights, in a folder that needs nothing else."""
    folder = tmp_path_factory.mktemp("tuned")
    for file in base.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(7)
    shaken = {name: w + 0.1 * torch.randn(w.shape, generator=generator) for name, w in weights.items()}
    save_file(shaken, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(3)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(target_modules="all-linear", r=4)
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return folder


def conversation(question: str, answer: str) -> list[dict[str, str]]:
    return [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]


def make_context(
    tmp_path: Path,
    base: Path,
    tuned: Path,
    params: PredictParams,
    *,
    tuned_prefix: str = "merged/m",
    **data: str,
) -> StageContext:
    store = LocalStore(tmp_path / "store")
    rows = [{"messages": conversation(question, f"answer {i}")} for i, question in enumerate(QUESTIONS)]
    rows.append({"messages": [{"role": "user", "content": "never answered"}]})
    (tmp_path / "data").mkdir()
    for shard, part in enumerate((rows[:3], rows[3:])):
        text = "".join(json.dumps(row) + "\n" for row in part)
        (tmp_path / "data" / f"{data.get('split', 'test')}-{shard:05d}.jsonl").write_text(text)
    folders = {"data/d": tmp_path / "data", "models/b": base, tuned_prefix: tuned}
    for prefix, folder in folders.items():
        write_marker(store, prefix, Manifest(files=[], location=folder.absolute().as_uri()))
    model = plan_parts.stage(StageKind.MODEL, ModelParams(source="folder"), "b")
    stage = plan_parts.stage(StageKind.PREDICT, params, "p", data="data/d", model=model, tuned=tuned_prefix)
    return StageContext(
        plan=plan_parts.plan(store, [model, stage]),
        run_id="run",
        stage=stage,
        store=store,
        work=tmp_path / "work",
        events=Events(store, "run", "predict"),
    )


def run_in_its_own_process(context: StageContext, program: Callable[..., Any] = main) -> None:
    """As `python -m train predict`. Not in this process: it has computed with torch, whose threads a forked
    process would wait for forever."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["tests.train.preloaded"])
    context.work.mkdir()
    plan = context.work / "plan.json"
    plan.write_bytes(context.plan.to_json())
    argv = ["predict", "--plan", str(plan), "--run", "run", "--work", str(context.work)]
    process = server.Process(target=program, args=(argv,))
    process.start()
    process.join(timeout=120)
    assert process.exitcode == 0


def sharded_main(argv: list[str]) -> None:
    """As on a machine with two GPUs, neither of which holds a model; the devices are this one's cores."""
    asking.gpu_count = lambda: 2
    asking.gpu_memory_bytes = lambda: 0
    asking.ranks_of = lambda *_: 2
    asking.slots = lambda *_: ["cpu", "cpu"]
    main(argv)


def one_at_a_time(model: torch.nn.Module, folder: Path) -> list[str]:
    """What transformers says to each question alone: no batch, no padding."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    answers = []
    for question in QUESTIONS:
        ids = tokenizer.apply_chat_template(
            conversation(question, "")[:-1],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=False,
        )
        output = model.generate(ids, max_new_tokens=PARAMS.max_new_tokens, do_sample=False)
        answers.append(tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True))
    return answers


def perplexity(folder: Path) -> float:
    """By transformers' own loss, one reference at a time."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    loss = count = 0.0
    for index, question in enumerate(QUESTIONS):
        turns = conversation(question, f"answer {index}")
        options = {"return_tensors": "pt", "return_dict": False}
        prompt = tokenizer.apply_chat_template(turns[:-1], add_generation_prompt=True, **options)
        # the template writes a line break after the end of turn, which nobody has to say
        whole = tokenizer.apply_chat_template(turns, **options)[:, :-1]
        labels = whole.clone()
        labels[:, : prompt.shape[1]] = -100
        learnt = whole.shape[1] - prompt.shape[1]
        loss, count = loss + model(whole, labels=labels).loss.item() * learnt, count + learnt
    return float(torch.tensor(loss / count).exp())


def rows_of(context: StageContext) -> list[dict[str, object]]:
    text = context.store.read_bytes("predictions/p/predictions.jsonl").decode()
    return [json.loads(line) for line in text.splitlines()]


def test_answers_of_both_models_in_order(tmp_path: Path, base: Path, tuned: Path) -> None:
    context = make_context(tmp_path, base, tuned, PARAMS)
    run_in_its_own_process(context)
    assert verify(context.store, "predictions/p") == []
    rows = rows_of(context)
    assert [row["index"] for row in rows] == list(range(len(QUESTIONS)))
    assert [row["prompt"] for row in rows] == [conversation(question, "")[:-1] for question in QUESTIONS]
    assert [row["reference"] for row in rows] == [f"answer {i}" for i in range(len(QUESTIONS))]
    for name, folder in {"base": base, "tuned": tuned}.items():
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert [row[name] for row in rows] == one_at_a_time(model, folder)
    assert [row["base"] for row in rows] != [row["tuned"] for row in rows]
    scores = json.loads(context.store.read_bytes("predictions/p/scores.json"))
    assert scores["records"] == len(QUESTIONS)
    assert scores["base"].keys() == {"exact_match", "bleu4", "rouge1", "rouge2", "rougeL", "perplexity"}
    for name, folder in {"base": base, "tuned": tuned}.items():
        assert scores[name]["perplexity"] == pytest.approx(perplexity(folder), rel=1e-3)
        each = [row["scores"][name]["rougeL"] for row in rows]
        assert scores[name]["rougeL"] == pytest.approx(sum(each) / len(each), abs=0.01)
    marker = read_marker(context.store, "predictions/p")
    assert marker is not None
    assert marker.facts == {"exact_match_base": 0.0, "exact_match_tuned": 0.0}
    events = read_all(context.store, events_prefix("run"))
    progress = [row["done"] for row in events if row["kind"] == "progress"]
    assert progress[0] == 0
    assert progress[-1] == 2 * len(QUESTIONS)
    assert progress == sorted(progress)


def test_an_adapter_that_was_not_merged(tmp_path: Path, base: Path, adapter: Path) -> None:
    params = PredictParams(max_new_tokens=10, batch_size=16, base=False, limit_records=3)
    context = make_context(tmp_path, base, adapter, params, tuned_prefix="train/t/final")
    run_in_its_own_process(context)
    from peft import PeftModel

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    rows = rows_of(context)
    assert [row["tuned"] for row in rows] == one_at_a_time(model, base)[:3]
    assert "base" not in rows[0]


def test_sharded_over_two_processes_equals_one(tmp_path: Path, base: Path, adapter: Path) -> None:
    """Three batches for two ranks, so one of them computes another's for company."""
    context = make_context(tmp_path, base, adapter, PARAMS, tuned_prefix="train/t/final")
    run_in_its_own_process(context, sharded_main)
    from peft import PeftModel

    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    rows = rows_of(context)
    assert [row["base"] for row in rows] == one_at_a_time(AutoModelForCausalLM.from_pretrained(base), base)
    assert [row["tuned"] for row in rows] == one_at_a_time(tuned, base)
    scores = json.loads(context.store.read_bytes("predictions/p/scores.json"))
    assert scores["base"]["perplexity"] == pytest.approx(perplexity(base), rel=1e-3)
    assert scores["base"]["perplexity"] != scores["tuned"]["perplexity"]


@pytest.mark.parametrize("prefix", ["adapters/a", "train/t/final"])
def test_what_was_trained_is_asked_with_the_base_below_it(
    tmp_path: Path, base: Path, adapter: Path, prefix: str
) -> None:
    context = make_context(tmp_path, base, adapter, PARAMS, tuned_prefix=prefix)
    before, after = predict.model_sources(context, PARAMS)
    assert (after.folder, after.adapter) == (base, adapter) and before.adapter is None
    assert before.tokenizer == after.tokenizer == context.work / "tuned"
    assert (context.work / "tuned/tokenizer.json").resolve() == base / "tokenizer.json"


def test_a_model_that_nobody_trained_here_is_asked_as_it_is(tmp_path: Path, base: Path) -> None:
    params = PredictParams(base=False)
    context = make_context(tmp_path, base, base, params, tuned_prefix="models/b")
    assert predict.model_sources(context, params) == [ModelSource("tuned", base)]
    assert not context.work.exists()


def test_weights_alone_take_config_and_tokenizer_from_the_base(
    tmp_path: Path, base: Path, tuned: Path
) -> None:
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "model.safetensors").write_bytes((tuned / "model.safetensors").read_bytes())
    params = PredictParams(max_new_tokens=10, base=False)
    context = make_context(tmp_path, base, tmp_path / "final", params, tuned_prefix="train/t/final")
    run_in_its_own_process(context)
    expected = one_at_a_time(AutoModelForCausalLM.from_pretrained(tuned), tuned)
    assert [row["tuned"] for row in rows_of(context)] == expected


def test_a_merged_folder_must_be_complete(tmp_path: Path, base: Path, tuned: Path) -> None:
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "model.safetensors").write_bytes((tuned / "model.safetensors").read_bytes())
    context = make_context(tmp_path, base, tmp_path / "merged", PARAMS)
    with pytest.raises(StageError):
        predict.run(context)
    assert read_marker(context.store, "predictions/p") is None


def test_no_test_records(tmp_path: Path, base: Path, tuned: Path) -> None:
    context = make_context(tmp_path, base, tuned, PARAMS, split="eval")
    with pytest.raises(StageUserError, match="test file"):
        predict.run(context)


def test_a_killed_process_is_named(
    tmp_path: Path, base: Path, tuned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*arguments: object, **options: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(asking, "answer", killed)
    context = make_context(tmp_path, base, tuned, PARAMS)
    with pytest.raises(StageError, match=r"(base|tuned) model was killed by signal 9; .*batch_size"):
        predict.run(context)


def test_a_mistake_of_the_user_keeps_its_kind(
    tmp_path: Path, base: Path, tuned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: object, **options: object) -> None:
        raise StageUserError("no chat template", "add one")

    monkeypatch.setattr(asking, "answer", refused)
    with pytest.raises(StageUserError, match="no chat template; add one"):
        predict.run(make_context(tmp_path, base, tuned, PARAMS))


def test_a_question_that_the_template_refuses_is_named(tmp_path: Path, base: Path) -> None:
    shutil.copytree(base, tmp_path / "base")
    template = tmp_path / "base" / "chat_template.jinja"
    refusal = "{%- if messages[0].role == 'system' %}{{ raise_exception('no system messages') }}{%- endif %}"
    template.write_text(refusal + template.read_text())
    answers = answering.answer(
        ModelSource("base", tmp_path / "base"),
        [Question(conversation("Why?", "")[:-1], {"role": "assistant", "content": "Because."})],
        device="cpu",
        precision="fp32",
        max_new_tokens=1,
        batch_size=1,
    )
    with pytest.raises(StageUserError, match=r"test question 'Why\?': .*no system messages"):
        next(answers)


def test_slots() -> None:
    sources = [ModelSource("base", Path("/none")), ModelSource("tuned", Path("/none"))]
    assert asking.slots(4, sources, 0) == ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]
    assert asking.slots(0, sources, 10**6) == ["cpu"]
    assert asking.slots(0, sources, 10**12) == ["cpu"] * (2 if (os.cpu_count() or 1) > 1 else 1)


@pytest.mark.parametrize(("processes", "parts"), [(1, 1), (2, 1), (4, 2), (8, 4), (64, 7)])
def test_split_covers_every_question_once(processes: int, parts: int) -> None:
    sources = [ModelSource("base", Path()), ModelSource("tuned", Path())]
    tasks = asking.split(sources, 7, processes)
    assert len(tasks) == 2 * parts
    for source in sources:
        indices = [index for task in tasks if task.source == source for index in task.indices]
        assert sorted(indices) == list(range(7))


def test_until_stop() -> None:
    assert answering.until_stop([5, 6, 2, 7], [1, 2]) == [5, 6]
    assert answering.until_stop([5, 6], [2]) == [5, 6]


def test_end_of_turn_stops_although_the_config_does_not_say_so(base: Path) -> None:
    from train.data.loading import load_chat_tokenizer

    tokenizer = load_chat_tokenizer(base)
    end_of_turn = tokenizer.backend.token_to_id("<|im_end|>")
    tokenizer.eos_id = None
    assert answering.stop_token_ids(None, tokenizer) == [end_of_turn]
    assert answering.stop_token_ids([end_of_turn, 3], tokenizer) == sorted([3, end_of_turn])


def test_questions_are_asked_with_their_tools_and_texts_are_none(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "now"}}]
    call = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"function": {"name": "now", "arguments": {}}}],
    }
    talk = [*conversation("Late?", "Very."), {"role": "user", "content": "Now?"}, call]
    records = [{"text": "no question"}, {"messages": talk, "tools": tools}]
    (tmp_path / "test-00000.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (question,) = predict.read_questions(tmp_path)
    assert (question.prompt, question.tools) == (talk[:-1], tools)
    assert json.loads(question.reference) == {"name": "now", "arguments": {}}


def test_the_untuned_model_is_asked_with_tokens_that_it_never_had(base: Path, tmp_path: Path) -> None:
    from train.data.loading import load_chat_tokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|new|>"]})
    tokenizer.chat_template = "{% for m in messages %}<|new|>{{ m.content }}{% endfor %}<|new|>"
    tokenizer.save_pretrained(tmp_path)
    source = ModelSource("base", base, tokenizer=tmp_path)
    question = Question([{"role": "user", "content": "Why?"}], {"role": "assistant", "content": "So."})
    options: dict[str, Any] = {"device": "cpu", "precision": "fp32", "max_new_tokens": 2, "batch_size": 1}
    (((_, answer),),) = answering.answer(source, [question], **options)
    assert answer.reference_tokens > 0 and answer.reference_loss > 0
    model = answering.load_model(source, "cpu", "fp32")
    with pytest.raises(StageUserError, match=r"no embedding of <\|new\|>"):
        answering.make_room(model, load_chat_tokenizer(tmp_path), sharded=True)
