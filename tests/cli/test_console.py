"""What reaches stdout and stderr."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pelton.cli.console import complain, printable, say_json, say_markdown_table, say_table
from pelton.cli.figures import mebibytes, parameters, rate, seconds


@settings(deadline=None)
@given(st.text())
def test_no_control_character_reaches_a_terminal(text: str) -> None:
    shown = printable(text)
    assert not any((ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 for c in shown)
    assert "\u202e" not in shown


@pytest.mark.parametrize("text", ["", "plain", "naïve 日本語\n\ttab", "\U0001f469\u200d\U0001f680", "नमस्ते"])
def test_text_of_all_scripts_stays(text: str) -> None:
    assert printable(text) == text


def test_escapes_are_shown() -> None:
    assert printable("\x1b[31mred\r\x9b\u202e") == "\\x1b[31mred\\r\\x9b\\u202e"


def test_an_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    complain("first\nsecond\x1b[2J")
    assert capsys.readouterr().err == "pelton: error: first second\\x1b[2J\n"


def test_tables_line_up_and_are_not_cut_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    say_table(("name", "size"), [("a" * 300, "1"), ("b [red]", "22")], right=("size",))
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["a" * 300, "1"]
    assert lines[3].startswith("b [red] ")
    assert len(lines[2]) == len(lines[3])


def test_markdown_tables(capsys: pytest.CaptureFixture[str]) -> None:
    say_markdown_table(("test", "t/s"), [("pp512", "1234.50"), ("tg1", "2")], right=("t/s",))
    assert capsys.readouterr().out.splitlines() == [
        "| test  |     t/s |",
        "| ----- | ------: |",
        "| pp512 | 1234.50 |",
        "| tg1   |       2 |",
    ]


def test_json_is_readable_and_strict(capsys: pytest.CaptureFixture[str]) -> None:
    say_json({"text": "é"})
    out = capsys.readouterr().out
    assert json.loads(out) == {"text": "é"}
    assert "é" in out
    with pytest.raises(ValueError, match="Out of range"):
        say_json(float("nan"))


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (mebibytes(98_362_432), "93.81 MiB"),
        (mebibytes(3 << 30), "3.00 GiB"),
        (mebibytes(23_040), "22.5 KiB"),
        (parameters(134_515_008), "134.52 M"),
        (parameters(1_235_814_400), "1.24 B"),
        (rate(463e9), "463 G/s"),
        (rate(1.2e12), "1.2 T/s"),
        (seconds(1.239), "1.24 s"),
        (seconds(0.0384), "38 ms"),
        (seconds(0.0012), "1.20 ms"),
        (seconds(2e-6), "2.0 us"),
    ],
)
def test_numbers_as_people_read_them(shown: str, expected: str) -> None:
    assert shown == expected
