"""The figures last measured for techniques: a table that benchmarks/techniques.py writes."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError

COLUMNS = ("technique", "metric", "value", "unit", "baseline", "date", "machine", "command")
_MOST_CSV_BYTES = 1 << 20


@dataclass(frozen=True)
class Figure:
    """A measured figure of one technique, as techniques.csv has it; `baseline` says against what."""

    metric: str
    value: float
    unit: str
    baseline: str
    date: str
    machine: str
    command: str

    def __str__(self) -> str:
        return f"{self.metric} {self.value:g} {self.unit}".rstrip()


def measurements_folder() -> Path | None:
    """Where measured figures lie: beside an installed package, or in the source tree's docs."""
    package = Path(__file__).parent.parent
    candidates = (package / "measurements", package.parent.parent / "docs" / "measurements")
    return next((folder for folder in candidates if (folder / "techniques.csv").is_file()), None)


def last_figures(path: Path) -> Mapping[str, Figure]:
    """The newest figure of each benchmark in a techniques.csv: of several rows the last date wins.

    Raises ConfigError naming file, line and value for a row that is no figure.
    """
    if path.stat().st_size > _MOST_CSV_BYTES:
        raise ConfigError("is too large for a table of figures", subject=path)
    figures: dict[str, Figure] = {}
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ConfigError(f"must be {','.join(COLUMNS)}", subject=path, field="first line")
        for row in reader:
            figure = _figure(row, f"{path}:{reader.line_num}")
            kept = figures.get(row["technique"])
            if kept is None or figure.date >= kept.date:
                figures[row["technique"]] = figure
    return figures


def _figure(row: Mapping[str, str | None], where: str) -> Figure:
    cells = {name: row[name] for name in COLUMNS if name != "technique"}
    try:
        value = float(cells.pop("value") or "")
    except ValueError:
        raise ConfigError("is not a number", subject=where, field="value", value=row["value"]) from None
    complete = {name: cell for name, cell in cells.items() if cell is not None}
    if len(complete) != len(cells):
        raise ConfigError("has too few cells", subject=where)
    return Figure(value=value, **complete)
