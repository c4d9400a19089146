"""The table and the plot of a run."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

from samples import (
    PELTON,
    PERPLEXITY,
    UNITS,
    Sample,
    advantage,
    limit,
    middle,
    reason,
    rows_of,
    tests_of,
    values,
)


def markdown(samples: Sequence[Sample], heading: Sequence[str]) -> str:
    """The page: what was run, then one row an engine and file, one column a test."""
    tests = tests_of(samples)
    titles = [
        "engine",
        "file",
        *(f"{test} ({unit})" if (unit := UNITS.get(test)) else test for test in tests),
    ]
    lines = [*heading, "", "| " + " | ".join(titles) + " |", "|---|---|" + "--:|" * len(tests)]
    for row in rows_of(samples):
        version = next((s.version for s in samples if (s.engine, s.file) == row and s.version), "")
        cells = [_cell(samples, row, test) for test in tests]
        lines.append("| " + " | ".join([f"{row[0]} {version}".strip(), row[1], *cells]) + " |")
    limits = [f"{most:.{_digits(most)}f}" if (most := limit(samples, test)) else "" for test in tests]
    lines.append("| " + " | ".join(["physical limit", "", *limits]) + " |")
    return "\n".join([*lines, ""])


def _cell(samples: Sequence[Sample], row: tuple[str, str], test: str) -> str:
    """A median, and in brackets how many times better pelton is; or why there is none."""
    value = middle(samples, row, test)
    if value is None:
        return f"-: {reason(samples, row, test)}"
    text = f"{value:.{_digits(value)}f}"
    times = advantage(samples, row, test)
    if times is None or row[0] == PELTON or test == PERPLEXITY:
        return text
    return f"{text} ({times:.2f}x)"


def _digits(value: float) -> int:
    return 0 if value >= 100 else 1 if value >= 30 else 2


def draw(samples: Sequence[Sample], path: Path) -> None:
    """A panel a test: a bar for each engine and file, every sample a dot, the physical limit a line."""
    try:
        import matplotlib
    except ImportError:
        print("matplotlib is not installed: no plot", file=sys.stderr)
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    tests, rows = tests_of(samples), rows_of(samples)
    peers = list(dict.fromkeys(engine for engine, _ in rows))
    columns = min(4, len(tests))
    lines = math.ceil(len(tests) / columns)
    figure, panels = pyplot.subplots(lines, columns, figsize=(3.6 * columns, 0.42 * len(rows) * lines + 1.6))
    flat = list(panels.flat) if len(tests) > 1 else [panels]
    for panel, test in zip(flat, tests, strict=False):
        for place, row in enumerate(rows):
            found = values(samples, row, test)
            if not found:
                panel.text(0, place, " -", va="center", color="grey")
                continue
            panel.barh(place, middle(samples, row, test), height=0.6, color=f"C{peers.index(row[0])}")
            panel.plot(found, [place] * len(found), "k.", markersize=3)
        most = limit(samples, test)
        if most:
            panel.axvline(most, color="grey", linestyle="--", label="physical limit")
            panel.legend(fontsize="x-small", loc="lower right")
        unit = UNITS.get(test, "tokens/s")
        panel.set_title(f"{test}, {unit}" if unit else test, fontsize="medium")
        is_left = flat.index(panel) % columns == 0
        panel.set_yticks(range(len(rows)), [f"{a} ({b})" for a, b in rows] if is_left else [""] * len(rows))
        panel.set_ylim(len(rows) - 0.5, -0.5)
        panel.set_xlim(left=0)
    for panel in flat[len(tests) :]:
        panel.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
