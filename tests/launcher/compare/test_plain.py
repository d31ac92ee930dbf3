"""Lines of a terminal."""

from __future__ import annotations

from rich.cells import cell_len

from launcher.compare.plain import clean, shortened, sparkline, table


def test_nothing_in_an_answer_commands_the_terminal() -> None:
    assert clean("a\x1b[2J\r\n  b\u202e") == "a\N{REPLACEMENT CHARACTER}[2J b\N{REPLACEMENT CHARACTER}"


def test_sparklines() -> None:
    assert sparkline([0, 1, None, 7, float("nan")], 0, 7) == "▁▂ █ "
    assert sparkline([1, 10, 100], 1, 100, log=True) in ("▁▄█", "▁▅█")
    assert sparkline([2, 2], 2, 2) == "▁▁"


def test_the_widest_column_gives_way() -> None:
    assert table(["a", "b"], [["1", "2" * 40], ["333", "4"]], 20) == [
        "a    b",
        "1    22222222222222…",
        "333  4",
    ]
    assert table(["a", "b"], [["1", "23"]], 20, right_from=1) == ["a   b", "1  23"]


def test_chinese_takes_two_columns() -> None:
    assert table(["a", "b"], [["北京", "1"], ["x", "2"]], 20) == ["a     b", "北京  1", "x     2"]
    assert table(["a"], [["北京大学在海淀区中关村"]], 8) == ["a", "北京大 …"]
    lines = shortened("北京大学在海淀区" * 9, 40)
    assert [cell_len(line) for line in lines] == [40, 38, 40]
    assert lines[-1].endswith(" …")
