"""What the page says of the data: records, tokens, lengths, bad records."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from launcher.reporting import charts, words
from launcher.reporting.collect import RunFacts

Values = dict[str, Any]


def split_order(split: str) -> tuple[int, str]:
    """Sorts train, eval, test first."""
    known = ("train", "eval", "test")
    return (known.index(split) if split in known else len(known), split)


def data_splits(facts: RunFacts) -> list[Values]:
    """A row per split: the records as they were read, and what the model sees of them."""
    read = (facts.data or {}).get("splits", {})
    prepared = (facts.prepared or {}).get("splits", {})
    rows = []
    for split in sorted({*read, *prepared}, key=split_order):
        counts, tokens = read.get(split, {}), prepared.get(split, {})
        supervised = tokens.get("supervised_tokens")
        rows.append(
            {
                "split": split,
                "files": [file.get("path", "").rpartition("/")[2] for file in counts.get("files", [])],
                "records": words.count(counts.get("records", tokens.get("records"))),
                "bad": counts.get("bad_records", 0),
                "tokens": words.count(tokens.get("tokens")),
                "supervised": words.share(supervised / tokens["tokens"]) if tokens.get("tokens") else "–",
                "longest": words.count(tokens.get("longest_document")),
                "truncated": words.count(tokens.get("truncated")),
                "dropped": words.count(sum(tokens["dropped"].values())) if "dropped" in tokens else "–",
                "sequences": words.count(tokens.get("sequences")),
                "padding": words.share(tokens.get("padding_share")),
            }
        )
    return rows


def data_notes(facts: RunFacts) -> list[str]:
    report = facts.data or {}
    notes = []
    if report.get("duplicates"):
        notes.append(f"{words.count(report['duplicates'])} training records repeat an earlier one.")
    if report.get("near_duplicates"):
        notes.append(
            f"{words.count(report['near_duplicates'])} more do but for case, spaces and punctuation, "
            "where the question ends and the answer begins."
        )
    for split, count in (report.get("overlap") or {}).items():
        if count:
            notes.append(
                f"{words.count(count)} prompts of the {split} split also occur in the training data."
            )
    if report.get("eval_test_overlap"):
        count = words.count(report["eval_test_overlap"])
        notes.append(f"{count} prompts of the test split also occur in the eval split.")
    notes += _notes_of_files(report)
    if report.get("limited_to_records"):
        notes.append(f"A rehearsal: only the first {report['limited_to_records']} records of each split.")
    for split, tokens in (facts.prepared or {}).get("splits", {}).items():
        for reason, count in tokens.get("dropped", {}).items():
            notes.append(f"{words.count(count)} records of the {split} split were left out: {reason}.")
    return notes


def _notes_of_files(report: Values) -> Iterator[str]:
    """What of the records was not passed on or set aside, and which pass more or less than once."""
    if report.get("eval_fraction"):
        yield f"The eval split was set aside from the training records: {report['eval_fraction']:g} of them."
    for counts in report.get("splits", {}).values():
        for file in counts.get("files", []):
            name = str(file.get("path", "")).rpartition("/")[2]
            if file.get("weight", 1) != 1:
                lines = words.count(file["lines"])
                yield f"{name} passes {file['weight']:g} times per epoch: {lines} records."
            lost = [f"{what} ({words.count(count)})" for what, count in sorted(file.get("lost", {}).items())]
            if lost:
                yield f"Not learnt from {name}, of so many records: {', '.join(lost)}."


def bad_records(facts: RunFacts) -> list[Values]:
    return [
        {
            "split": split,
            "file": str(bad.get("file", "")).rpartition("/")[2],
            "number": bad.get("number"),
            "line": bad.get("line"),
            "byte_offset": bad.get("byte_offset"),
            "reason": bad.get("reason", ""),
        }
        for split, counts in (facts.data or {}).get("splits", {}).items()
        for bad in counts.get("bad", [])
    ]


def length_histogram(facts: RunFacts) -> Values | None:
    """Lengths of the training documents in tokens, before truncation."""
    train = (facts.prepared or {}).get("splits", {}).get("train")
    if not train or not train.get("length_histogram"):
        return None
    rows = [
        (f"≤ {row['up_to']}" if row["up_to"] is not None else f"> {train['max_length']}", row["documents"])
        for row in train["length_histogram"]
    ]
    over = rows[-1][1] > 0
    chart = charts.histogram(rows if over else rows[:-1], mark_last=over, x_label="tokens per document")
    return None if chart is None else {"chart": chart, "max_length": train["max_length"]}
