"""Every row of the registry holds: its source, the papers named there, its test and its measured figure."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pelton.errors import ConfigError
from pelton.techniques import COLUMNS, TECHNIQUES, Figure, Technique, last_figures

ROOT = Path(__file__).parent.parent
FIGURES = ROOT / "docs" / "measurements" / "techniques.csv"
ROWS = pytest.mark.parametrize("row", TECHNIQUES, ids=lambda row: row.name)


def source_text(row: Technique) -> str:
    """What the implementation says of itself: docstrings of module and object, or a C++ file's comments."""
    if row.source.startswith("csrc/"):
        lines = (ROOT / row.source).read_text().splitlines()
        return " ".join(line.removeprefix("//").strip() for line in lines if line.startswith("//"))
    module, _, name = row.source.partition(":")
    found = importlib.import_module(module)
    return f"{inspect.getdoc(found) or ''} {inspect.getdoc(getattr(found, name)) or ''}"


def test_names_are_unique_words() -> None:
    names = [row.name for row in TECHNIQUES]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in names)


@ROWS
def test_the_source_exists_and_names_the_papers(row: Technique) -> None:
    text = " ".join(source_text(row).split())
    assert text, f"{row.source} says nothing of itself"
    assert [paper.name for paper in row.papers if paper.name not in text] == []


@ROWS
def test_the_property_test_exists(row: Technique) -> None:
    path, _, name = row.test.partition("::")
    tree = ast.parse((ROOT / path).read_text())
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@ROWS
def test_a_figure_was_measured(row: Technique) -> None:
    for name in filter(None, (row.benchmark, row.loss)):
        check_figure(last_figures(FIGURES)[name])


def check_figure(figure: Figure) -> None:
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", figure.date)
    assert figure.metric
    assert figure.baseline
    assert figure.command.startswith("python benchmarks/")


IN_PYTHON = [row for row in TECHNIQUES if not row.source.startswith("csrc/")]


@pytest.mark.parametrize("row", IN_PYTHON, ids=lambda row: row.name)
def test_a_class_that_states_its_exactness_agrees(row: Technique) -> None:
    module, _, name = row.source.partition(":")
    stated = getattr(getattr(importlib.import_module(module), name), "exact", None)
    assert stated in (None, row.exact) or isinstance(stated, property)


@pytest.mark.parametrize(
    ("field", "value"),
    [("loss", "x"), ("family", "nonsense"), ("name", ""), ("switch", ""), ("test", "tests/test_x.py")],
)
def test_rows_that_cannot_be_are_refused(field: str, value: str) -> None:
    changed: dict[str, Any] = {field: value}
    with pytest.raises(ConfigError) as caught:
        replace(TECHNIQUES[0], **changed)
    assert caught.value.field == field


HEADER = ",".join(COLUMNS)
FIGURE = "x,speed,{value},times,none,{date},a machine,python benchmarks/x.py"


def test_the_newest_figure_counts(tmp_path: Path) -> None:
    path = tmp_path / "techniques.csv"
    rows = [FIGURE.format(value=1.5, date="2026-01-02"), FIGURE.format(value=9, date="2026-01-01")]
    path.write_text("\n".join([HEADER, *rows, ""]))
    assert str(last_figures(path)["x"]) == "speed 1.5 times"


@pytest.mark.parametrize(
    "body",
    ["", "a,b\n1,2\n", f"{HEADER}\nx,speed,fast,times,none,2026-01-01,m,c\n", f"{HEADER}\nx,speed,1\n"],
)
def test_tables_that_hold_no_figures_are_refused(body: str, tmp_path: Path) -> None:
    path = tmp_path / "techniques.csv"
    path.write_text(body)
    with pytest.raises(ConfigError, match=r"techniques\.csv"):
        last_figures(path)
