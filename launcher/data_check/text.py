"""The report as text for people."""

from __future__ import annotations

from collections.abc import Iterator

from launcher.data_check.report import Report

_BAR_WIDTH = 40


def render(report: Report) -> str:
    """The report as text of at most about 100 columns."""
    return "\n".join([*_facts(report), *_bad_lines(report), *_histogram(report), *_token_lines(report)])


def _facts(report: Report) -> Iterator[str]:
    yield f"{report.path}: {report.said}, {report.size_bytes:,} bytes"
    noun = "record" if report.records == 1 else "records"
    if report.format == "custom":
        yield "  its items are made when the stage prepare runs it"
        return
    counts = f"  {report.records:,} good {noun}, {report.bad_records:,} bad"
    if report.duplicates:
        counts += f", {report.duplicates:,} of the good repeat an earlier one"
    yield counts
    if report.near_duplicates:
        yield f"  {report.near_duplicates:,} more do but for case, spaces and punctuation"
    if report.overlap is not None:
        yield f"  {report.overlap:,} ask what a record of the other file asks"
    if report.lost:
        lost = ", ".join(f"{name} ({count:,})" for name, count in sorted(report.lost.items()))
        yield f"  not passed on (of so many records): {lost}"


def _bad_lines(report: Report) -> Iterator[str]:
    if not report.bad:
        return
    yield ""
    yield "Bad records"
    for bad in report.bad:
        yield f"  {bad.place}: {bad.reason}"
    if report.bad_records > len(report.bad):
        yield f"  and {report.bad_records - len(report.bad):,} more"


def _histogram(report: Report) -> Iterator[str]:
    buckets = report.histogram
    filled = [index for index, bucket in enumerate(buckets) if bucket.records]
    if not filled:
        return
    yield ""
    if report.tokens:
        yield f"Tokens per record (maximum length {report.tokens.max_length:,})"
    else:
        yield "Characters per record (for tokens, name a model folder: --tokenizer FOLDER)"
    shown = buckets[filled[0] : filled[-1] + 1]
    most = max(bucket.records for bucket in shown)
    for bucket in shown:
        label = f"up to {bucket.up_to:,}" if bucket.up_to is not None else "over the maximum"
        bar = "█" * max(round(_BAR_WIDTH * bucket.records / most), 1 if bucket.records else 0)
        yield f"  {label:>16}  {bar:<{_BAR_WIDTH}} {bucket.records:,}"


def _token_lines(report: Report) -> Iterator[str]:
    tokens = report.tokens
    if not report.records:
        return
    yield ""
    if tokens is None:
        yield f"  longest record {report.longest_characters:,} characters, {report.characters:,} in all"
        return
    learnt = f"{tokens.supervised:,} of them supervised"
    yield f"  longest record {tokens.longest:,} tokens, {tokens.total:,} in all, {learnt}"
    for count, what, numbers in (
        (tokens.truncated, f"would be truncated to {tokens.max_length:,} tokens", tokens.truncated_numbers),
        (tokens.unsupervised, "would end with no supervised token", tokens.unsupervised_numbers),
    ):
        listed = ", ".join(map(str, numbers)) + (", …" if count > len(numbers) else "")
        yield f"  {count:,} {what}" + (f" (records {listed})" if numbers else "")
    if tokens.refused:
        yield f"  {tokens.refused:,} are refused by the chat template"
        yield from (f"    {reason}" for reason in tokens.refused_reasons)
