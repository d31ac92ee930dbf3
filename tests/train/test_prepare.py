import json
import subprocess
import sys

import numpy as np
import pytest

import train.model
import train.prepare
from artifacts.contract import IGNORED_LABEL, Method, PrepareParams, StageKind, TemplateParams
from artifacts.events import events_prefix
from artifacts.local import LocalStore
from artifacts.manifest import read_marker, verify
from artifacts.segments import read_all
from tests.train.chat_templates import CONVERSATIONS, chat
from tests.train.stage_inputs import put_data, stage_context
from train.data.loading import load_chat_tokenizer
from train.data.reader import PreparedSplit
from train.stage import StageUserError

SHORT = [messages for title, messages in CONVERSATIONS.items() if title not in ("long", "twenty turns")]


def store_with_model(tmp_path, **splits) -> LocalStore:
    store = LocalStore(tmp_path)
    put_data(store, splits)
    train.model.run(stage_context(store, StageKind.MODEL, tmp_path / "work"))
    return store


def prepare(store: LocalStore, *, on_error: str = "stop", method: Method = "full", **params) -> dict:
    params = PrepareParams(**{"max_length": 256, "packing": True} | params)
    context = stage_context(
        store, StageKind.PREPARE, store.root / "work", prepare=params, on_error=on_error, method=method
    )
    train.prepare.run(context)
    context.events.flush()
    return json.loads(store.read_bytes("prepared/key/statistics.json"))


def prepared_documents(store: LocalStore, split: str) -> list[tuple[list[int], list[int]]]:
    """(ids, labels) of each document, whatever row it is in."""
    documents = []
    for row in PreparedSplit(store.root / "prepared/key", split):
        stops = np.cumsum(row["document_lengths"])
        for start, stop in zip(stops - row["document_lengths"], stops, strict=True):
            documents.append((row["input_ids"][start:stop].tolist(), row["labels"][start:stop].tolist()))
    return documents


@pytest.mark.parametrize("packing", [True, False])
def test_every_document_is_there_once_with_its_tokens(tmp_path, packing):
    store = store_with_model(tmp_path, train=SHORT * 3, eval=SHORT, test=SHORT)
    report = prepare(store, packing=packing)
    tokenizer = load_chat_tokenizer(tmp_path / "models/key")
    expected = sorted(
        (document.input_ids.tolist(), document.labels.tolist())
        for document in tokenizer.encode({"messages": messages} for messages in SHORT)
    )
    assert sorted(prepared_documents(store, "train")) == sorted(expected * 3)
    assert sorted(prepared_documents(store, "eval")) == expected
    assert verify(store, "prepared/key") == []

    counts = report["splits"]["train"]
    rows = PreparedSplit(tmp_path / "prepared/key", "train")
    assert counts["sequences"] == len(rows)
    assert counts["records"] == counts["documents"] == len(SHORT) * 3
    assert counts["tokens"] == sum(rows.lengths) == sum(len(ids) for ids, _ in expected) * 3
    assert counts["supervised_tokens"] == 3 * sum(label != -100 for _, labels in expected for label in labels)
    assert (len(rows) == len(SHORT) * 3) != packing
    assert set(report["splits"]) == {"train", "eval"}  # `predict` reads the test records themselves
    assert read_marker(store, "prepared/key").facts["sequences"]["train"] == len(rows)
    progress = [row for row in read_all(store, events_prefix("run")) if row["kind"] == "progress"]
    assert progress[-1]["done"] == len(SHORT) * 4


def test_equal_inputs_give_equal_bytes_and_another_seed_another_order(tmp_path):
    manifests = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        store = store_with_model(tmp_path / name, train=SHORT * 20)
        prepare(store, seed=seed)
        manifests.append(read_marker(store, "prepared/key"))
    assert manifests[0] == manifests[1]
    assert manifests[0].files != manifests[2].files


def test_records_that_teach_nothing_are_dropped_and_counted(tmp_path):
    questions = [chat("only a question"), chat("and another")]
    late = chat("word " * 300, "too late to be learnt")
    cut = chat("Tell me a story", "once upon a time " * 100)
    report = prepare(
        store_with_model(tmp_path, train=[*questions, late, cut, chat("Hi", "Hello")]), max_length=64
    )
    counts = report["splits"]["train"]
    assert counts["records"] == 5
    assert counts["dropped"] == {"no supervised token": 3}
    assert (counts["documents"], counts["truncated"]) == (2, 1)
    assert counts["length_histogram"][-1]["documents"] == 2


def test_a_split_without_anything_to_learn_is_the_users_error(tmp_path):
    store = store_with_model(tmp_path, train=[chat("only a question")])
    with pytest.raises(StageUserError, match="1 no supervised token"):
        prepare(store)
    assert read_marker(store, "prepared/key") is None


REFUSING = "{%- if messages[0].role == 'system' %}{{ raise_exception('no system messages') }}{%- endif %}"


def test_a_record_that_the_template_refuses_stops_or_is_counted(tmp_path):
    records = [chat("q", "a"), chat("q", "a", system="s")]
    store = store_with_model(tmp_path, train=records)
    template = tmp_path / "models/key/chat_template.jinja"
    template.write_text(REFUSING + template.read_text())
    with pytest.raises(StageUserError, match=r"train record 2: .*no system messages"):
        prepare(store)
    report = prepare(store, on_error="skip")
    assert report["splits"]["train"]["dropped"] == {"refused by the chat template": 1}


@pytest.mark.parametrize("window", [1, 100])
def test_windows_lose_nothing(tmp_path, monkeypatch, window):
    monkeypatch.setattr(train.prepare, "WINDOW_DOCUMENTS", window)
    store = store_with_model(tmp_path, train=SHORT * 30)
    prepare(store)
    assert len(prepared_documents(store, "train")) == len(SHORT) * 30


def test_a_model_without_a_template_is_the_users_error(tmp_path):
    store = store_with_model(tmp_path, train=SHORT)
    (tmp_path / "models/key/chat_template.jinja").unlink()
    with pytest.raises(StageUserError, match=r"no chat template.*template: chatml"):
        prepare(store, on_error="skip")
    put_records(store, train=[{"text": "Texts need none."}])
    assert prepare(store)["splits"]["train"]["documents"] == 1


def test_padding_labels_never_occur_because_nothing_is_padded(tmp_path):
    store = store_with_model(tmp_path, train=SHORT * 3)
    prepare(store)
    pad = load_chat_tokenizer(tmp_path / "models/key").backend.token_to_id("<|endoftext|>")
    for row in PreparedSplit(tmp_path / "prepared/key", "train"):
        assert pad not in row["input_ids"]
        assert set(row["labels"][row["labels"] != row["input_ids"]].tolist()) == {IGNORED_LABEL}


LARGE_RUN = """
import re, sys
from pathlib import Path
from artifacts.contract import PrepareParams, StageKind
from artifacts.local import LocalStore
from tests.train.stage_inputs import stage_context
import train.prepare
store = LocalStore(Path(sys.argv[1]))
params = PrepareParams(max_length=2048, packing=True)
train.prepare.run(stage_context(store, StageKind.PREPARE, store.root / "work", prepare=params))
assert not {"torch", "transformers", "pandas"} & set(sys.modules), "imports more than it needs"
# ru_maxrss would count the parent before exec, too
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def test_memory_stays_bounded_without_torch_or_transformers(tmp_path):
    records = [
        chat(f"Question {i}: " + "how and why? " * 40, f"Answer {i}: " + "so it is. " * 60)
        for i in range(200)
    ]
    store_with_model(tmp_path, train=records)
    shard = tmp_path / "data/key/train-00000.jsonl"
    shard.write_bytes(shard.read_bytes() * 40)  # 10 MB, 5M tokens: more than a window
    done = subprocess.run([sys.executable, "-c", LARGE_RUN, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < 400e6


def put_records(store: LocalStore, **splits: list[dict]) -> None:
    """Any records, and a twin made before of others."""
    for split, records in splits.items():
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        store.local_path(f"data/key/{split}-00000.jsonl").write_text(text)


def test_texts_for_pre_training_are_cut_into_pieces(tmp_path):
    store = store_with_model(tmp_path, train=SHORT)
    put_records(store, train=[{"text": "word " * 200}, {"text": "short"}])
    counts = prepare(store, max_length=64)["splits"]["train"]
    (long, short) = tokenizer_of(tmp_path).encode([{"text": "word " * 200}, {"text": "short"}])
    assert (counts["records"], counts["split"], counts["truncated"], counts["dropped"]) == (2, 1, 0, {})
    documents = prepared_documents(store, "train")
    assert counts["tokens"] == sum(len(ids) for ids, _ in documents) == counts["supervised_tokens"]
    expected = [*long.input_ids.tolist(), *short.input_ids.tolist()]
    assert sorted(token for ids, _ in documents for token in ids) == sorted(expected)


def tokenizer_of(root):
    return load_chat_tokenizer(root / "prepared/key/tokenizer")


LOSING = "{% for m in messages if m.role != 'system' %}{{ m.content }}<|im_end|>{% endfor %}"


def test_what_the_template_leaves_out_stops_or_is_counted(tmp_path):
    store = store_with_model(tmp_path, train=[chat("q", "a"), chat("q", "a", system="s")])
    template = TemplateParams(jinja=LOSING)
    with pytest.raises(StageUserError, match=r"train record 2: .*leaves out its system text"):
        prepare(store, template=template)
    counts = prepare(store, template=template, on_error="skip")["splits"]["train"]
    assert counts["dropped"] == {"system text left out by the chat template": 1}


def test_reasoning_that_is_left_out_is_told(tmp_path):
    store = store_with_model(tmp_path, train=SHORT)
    thinking = [
        *chat("q"),
        {"role": "assistant", "content": "a", "reasoning_content": "r"},
        *chat("q2", "a2"),
    ]
    put_records(store, train=[{"messages": SHORT[0]}, {"messages": thinking}, {"messages": thinking}])
    report = prepare(store, template=TemplateParams(name="qwen"))
    assert report["splits"]["train"]["left_out"] == {"reasoning": {"records": 2, "first": 2}}
    notes = [row["text"] for row in read_all(store, events_prefix("run")) if row["kind"] == "note"]
    assert notes == ["the chat template leaves out reasoning of 2 records; the first is train record 2"]


def test_new_tokens_that_the_method_would_not_learn(tmp_path):
    store = store_with_model(tmp_path, train=SHORT)
    with pytest.raises(StageUserError, match=r"adds <\|start_header_id\|>.* ia3 does not train embeddings"):
        prepare(store, template=TemplateParams(name="llama3"), method="ia3")
    assert read_marker(store, "prepared/key") is None


def test_a_named_template_with_new_tokens(tmp_path):
    store = store_with_model(tmp_path, train=SHORT)
    report = prepare(store, template=TemplateParams(name="llama3"), train_on="last")
    size = load_chat_tokenizer(tmp_path / "models/key").backend.get_vocab_size()
    assert report["added_tokens"] == {
        "<|start_header_id|>": size,
        "<|end_header_id|>": size + 1,
        "<|eot_id|>": size + 2,
    }
    assert report["template"] == "llama3"
    assert report["stop_token_ids"] == [size + 2]
    assert tokenizer_of(tmp_path).template.end_of_turn == "<|eot_id|>"
    assert verify(store, "prepared/key") == []
