"""`pelton techniques`: what the registry holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from .console import note, say_facts, say_json, say_table
from .options import Json

if TYPE_CHECKING:
    from ..techniques import Figure, Technique


def techniques(
    name: Annotated[str | None, typer.Argument(help="One technique, to see all of it.")] = None,
    family: Annotated[str | None, typer.Option("--family", help="Only this family.")] = None,
    json: Json = False,
) -> None:
    """List every technique: paper, exact or lossy, how to switch it on, its test and last figure."""
    from ..errors import ConfigError
    from ..techniques import FAMILIES, TECHNIQUES, last_figures, measurements_folder

    folder = measurements_folder()
    figures: Mapping[str, Figure] = {} if folder is None else last_figures(folder / "techniques.csv")
    if family is not None and family not in FAMILIES:
        raise ConfigError(f"must be one of {', '.join(FAMILIES)}", field="family", value=family)
    chosen = [row for row in TECHNIQUES if family in (None, row.family) and name in (None, row.name)]
    if not chosen:
        raise ConfigError(
            "no technique of this name (`pelton techniques` lists them)", field="name", value=name
        )
    if json:
        say_json([_document(row, figures) for row in chosen])
    elif name is not None:
        say_facts(_facts(chosen[0], figures))
    else:
        rows = [_cells(row, figures) for row in chosen]
        say_table(("technique", "family", "text", "papers", "last figure", "loss"), rows)
        note("pelton techniques NAME shows the switch, the test and the source; --json all of it")


def _cells(row: Technique, figures: Mapping[str, Figure]) -> tuple[str, ...]:
    papers = ", ".join(paper.name for paper in row.papers)
    measured = (str(figures.get(name, "")) for name in (row.benchmark, row.loss))
    return row.name, row.family, _kind(row), papers, *measured


def _kind(row: Technique) -> str:
    return "exact" if row.exact else "lossy"


def _facts(row: Technique, figures: Mapping[str, Figure]) -> dict[str, str]:
    numbered = (f"{p.name} (no. {p.number})" if p.number is not None else p.name for p in row.papers)
    facts = {
        "name": row.name,
        "family": row.family,
        "what": row.title,
        "papers": "; ".join(numbered),
        "text": _kind(row),
        "switch": row.switch,
        "source": row.source,
        "test": row.test,
    }
    for title, name in (("last figure", row.benchmark), ("loss", row.loss)):
        figure = figures.get(name)
        if figure is not None:
            facts[title] = f"{figure}, against {figure.baseline}"
            facts["measured"] = f"{figure.date}, {figure.machine}: {figure.command}"
    return facts


def _document(row: Technique, figures: Mapping[str, Figure]) -> dict[str, object]:
    from dataclasses import asdict

    found = {
        field: figures.get(name) for field, name in (("figure", row.benchmark), ("loss_figure", row.loss))
    }
    return {**asdict(row), **{field: None if f is None else asdict(f) for field, f in found.items()}}
