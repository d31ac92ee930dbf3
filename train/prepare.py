"""Stage `prepare`: records in, packed token sequences out. CPU only, without torch.

Runs in bounded memory: records are streamed, and packed in windows of WINDOW_TOKENS tokens.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from artifacts.contract import TOKENIZER_FOLDER, DataParams, PrepareParams, StageKind, canonical_json
from artifacts.events import Events
from artifacts.manifest import ArtifactWriter, read_marker
from train.data.custom import CUSTOM_FILE, custom_items
from train.data.isolation import require_isolation
from train.data.lengths import fit
from train.data.new_tokens import require_learnable
from train.data.packing import pack
from train.data.records import Record, read_records
from train.data.resolve import ResolvedTokenizer, resolve_tokenizer
from train.data.shards import ShardWriter
from train.data.statistics import SplitStatistics
from train.data.templates import TemplateError
from train.data.tokenize import ChatTokenizer, Document
from train.stage import StageContext, StageUserError

# Documents are packed among those of a window: enough for a tight fit, few enough for the memory (16 bytes
# a token, about 400 a document).
WINDOW_TOKENS = 4 * 1024 * 1024
WINDOW_SEQUENCES = 16  # at least, where sequences are very long
WINDOW_DOCUMENTS = 100_000

PROGRESS_RECORDS = 500  # between two progress events

PREPARED_SPLITS = ("train", "eval")  # `predict` reads the test split as text


def run(context: StageContext) -> None:
    params: PrepareParams = context.stage.params
    data = context.input_folder("data")
    model = context.input_folder("model")
    if params.packing:
        require_isolation(model, trust_remote_code=_trusts_remote_code(context))
    folder = context.work / TOKENIZER_FOLDER
    shutil.rmtree(folder, ignore_errors=True)  # of an attempt before
    resolved = resolve_tokenizer(
        model,
        params.template,
        folder,
        train_on=params.train_on,
        trust_remote_code=_trusts_remote_code(context),
    )
    tokenizer = resolved.chat
    # Here, before any worker: training would find it too.
    method = context.plan.stage(StageKind.TRAIN).params.method if context.plan.has(StageKind.TRAIN) else None
    require_learnable(resolved.added_tokens, method)
    skips_bad_records = context.plan.stage(StageKind.DATA).params.on_error == "skip"

    artifact = ArtifactWriter(context.store, context.stage.output)
    statistics: dict[str, SplitStatistics] = {}
    total = _total_records(context)
    for split in PREPARED_SPLITS:
        records = _records(context, data, split, resolved)
        if records is None:
            continue
        preparation = SplitPreparation(tokenizer, params, split, skips_bad_records=skips_bad_records)
        done = sum(counts.records for counts in statistics.values())
        counted = _counted(records, context.events, done, total)
        with ShardWriter(artifact, split) as shards:
            for window in preparation.windows(counted):
                rows = pack(window, params.max_length, packing=params.packing, random=preparation.random)
                preparation.statistics.sequences += len(rows)
                shards.write(rows)
        statistics[split] = preparation.statistics
        _tell_left_out(context.events, split, preparation.statistics)
    _require_sequences(statistics, params)

    report = {
        "splits": {split: counts.to_json() for split, counts in statistics.items()},
        "max_length": params.max_length,
        "packing": params.packing,
        "tokenizer_sha256": tokenizer.sha256,
        "template_sha256": tokenizer.template_sha256,
        "end_of_turn": tokenizer.template.end_of_turn,
        "template": resolved.template,
        "added_tokens": resolved.added_tokens,
        "stop_token_ids": resolved.stop_token_ids,
    }
    artifact.add_files({f"{TOKENIZER_FOLDER}/{file.name}": file for file in sorted(folder.iterdir())})
    artifact.write_bytes("statistics.json", canonical_json(report))
    artifact.commit(sequences={split: counts.sequences for split, counts in statistics.items()})


class SplitPreparation:
    """Tokenizes one split, truncates, drops what can't be learnt from, and counts."""

    def __init__(
        self, tokenizer: ChatTokenizer, params: PrepareParams, split: str, *, skips_bad_records: bool
    ) -> None:
        self.tokenizer, self.params, self.split = tokenizer, params, split
        self.skips_bad_records = skips_bad_records
        self.statistics = SplitStatistics(max_length=params.max_length)
        self.random = np.random.default_rng(params.seed)

    def windows(self, records: Iterable[Record | Document]) -> Iterator[list[Document]]:
        """Documents that are packed together."""
        limit = max(WINDOW_TOKENS, WINDOW_SEQUENCES * self.params.max_length)
        window: list[Document] = []
        tokens = 0
        for document in self._documents(records):
            window.append(document)
            tokens += len(document)
            if tokens >= limit or len(window) == WINDOW_DOCUMENTS:
                yield window
                window, tokens = [], 0
        if window:
            yield window

    def _documents(self, records: Iterable[Record | Document]) -> Iterator[Document]:
        counts, max_length = self.statistics, self.params.max_length
        for encoded in self.tokenizer.encode(records):
            counts.records += 1
            if isinstance(encoded, TemplateError):
                self._refused(encoded)
                continue
            counts.count_length(len(encoded))
            pieces = fit(encoded, max_length)
            if not any(document.supervised_tokens for document in pieces):
                counts.dropped["no supervised token"] += 1
                continue
            counts.count_left_out(encoded.lost)
            counts.split += len(pieces) > 1
            counts.truncated += sum(map(len, pieces)) < len(encoded)
            for document in pieces:
                counts.count_document(document)
                yield document

    def _refused(self, error: TemplateError) -> None:
        if not self.skips_bad_records:
            raise StageUserError(
                f"{self.split} record {self.statistics.records}: {error}",
                "mend the record, or set data.on_error: skip",
            ) from error
        self.statistics.dropped[error.kind] += 1


def _records(
    context: StageContext, data: Path, split: str, resolved: ResolvedTokenizer
) -> Iterator[Record | Document] | None:
    """The split's records, None where there are none."""
    params: DataParams = context.plan.stage(StageKind.DATA).params
    custom = data / CUSTOM_FILE
    if custom.is_file():
        files = params.splits.get(split)
        if not files:
            return None
        items = custom_items(custom, resolved, split, shown_as=files[0].path)
        return itertools.islice(items, params.limit_records)
    shards = sorted(data.glob(f"{split}-*.jsonl"))
    return read_records(shards) if shards else None


def _counted(
    records: Iterable[Record | Document], events: Events, done: int, total: int | None
) -> Iterator[Record | Document]:
    """Tell the progress as records pass; `done` were before."""
    for record in records:
        yield record
        done += 1
        if done % PROGRESS_RECORDS == 0:
            events.progress(done, total, "records")
    events.progress(done, total, "records")


def _tell_left_out(events: Events, split: str, counts: SplitStatistics) -> None:
    for kind, entry in counts.left_out.items():
        first = f"the first is {split} record {entry['first']}"
        events.say("note", text=f"the chat template leaves out {kind} of {entry['records']} records; {first}")


def _total_records(context: StageContext) -> int | None:
    manifest = read_marker(context.store, context.stage.inputs["data"])
    counts = manifest.facts.get("records") if manifest else None
    # Of a custom file none are counted.
    return sum(counts.get(split, 0) for split in PREPARED_SPLITS) or None if counts else None


def _require_sequences(statistics: dict[str, SplitStatistics], params: PrepareParams) -> None:
    train = statistics.get("train")
    if train is None or train.sequences == 0:
        dropped = ", ".join(f"{count} {reason}" for reason, count in train.dropped.items()) if train else ""
        raise StageUserError(
            f"no training record is left within {params.max_length} tokens ({dropped or 'no records'})",
            "raise training.max_length, or look at the records with `slipway data check`",
        )


def _trusts_remote_code(context: StageContext) -> bool:
    return context.plan.stage(StageKind.MODEL).params.trust_remote_code
