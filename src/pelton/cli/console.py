"""What reaches the user: the result on stdout, everything else on stderr."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TextIO

# Wide enough that no table is folded or cut where nobody looks at a terminal.
_UNFOLDED_COLUMNS = 2000

Progress = Callable[[int, "int | None"], None]


def tolerate_any_character() -> None:
    """Make a character that a stream's encoding lacks come out escaped instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def printable(text: str) -> str:
    """The text with control characters shown as escapes: text of a model must not drive the terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    # Joiners and marks of writing systems are not "printable" to Python but must reach the terminal.
    is_control = ord(character) < 32 or 127 <= ord(character) < 160 or character in _BIDI
    return character.encode("unicode_escape").decode() if is_control else character


_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def say(text: str, *, end: str = "\n") -> None:
    """Part of the result: exact where it goes to a file or pipe, harmless where to a terminal."""
    sys.stdout.write((printable(text) if sys.stdout.isatty() else text) + end)
    sys.stdout.flush()


def note(text: str) -> None:
    """A remark beside the result, on stderr; dim on a terminal that takes colours."""
    shown = printable(text)
    sys.stderr.write(f"\x1b[2m{shown}\x1b[0m\n" if takes_colour(sys.stderr) else shown + "\n")
    sys.stderr.flush()


def complain(message: str) -> None:
    """The one line an error comes to."""
    line = " ".join(printable(message).split("\n"))
    sys.stderr.write(f"pelton: error: {line}\n")
    sys.stderr.flush()


def takes_colour(stream: TextIO) -> bool:
    """Whether escapes may be sent (https://no-color.org: any non-empty NO_COLOR forbids colour)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def say_json(document: object) -> None:
    """The result as one JSON document."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False, allow_nan=False, indent=2) + "\n")
    sys.stdout.flush()


def say_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """A table on stdout; `right` names the columns of numbers."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(Text(column), justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    width = None if sys.stdout.isatty() else _UNFOLDED_COLUMNS
    console = Console(file=sys.stdout, width=width, highlight=False)
    for line in _without_trailing_space(console, table):
        sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _without_trailing_space(console: object, table: object) -> Iterator[str]:
    from rich.console import Console

    assert isinstance(console, Console)
    with console.capture() as captured:
        console.print(table)
    yield from (line.rstrip() for line in captured.get().splitlines())


def say_markdown_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()
) -> None:
    """A table as Markdown, aligned for the eye as well."""
    widths = [max([len(column), *(len(row[i]) for row in rows)]) for i, column in enumerate(columns)]
    justify = [str.rjust if column in right else str.ljust for column in columns]
    rule = [
        "-" * (width - 1) + (":" if column in right else "-")
        for width, column in zip(widths, columns, strict=True)
    ]
    for cells in (columns, rule, *rows):
        shown = (put(cell, width) for put, cell, width in zip(justify, cells, widths, strict=True))
        sys.stdout.write("| " + " | ".join(shown) + " |\n")
    sys.stdout.flush()


def say_facts(facts: Mapping[str, str]) -> None:
    """Names and values below each other."""
    width = max(map(len, facts))
    for name, value in facts.items():
        say(f"{name:<{width}}  {value}".rstrip())


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """A bar for a transfer, on stderr, only on a terminal and only once there is something to show."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    rates = (TransferSpeedColumn(), TimeRemainingColumn())
    with Bar(*columns, *rates, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(printable(title), total=None, visible=False)

        def update(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total, visible=True)

        yield update
