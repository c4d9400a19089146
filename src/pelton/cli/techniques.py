"""`pelton techniques`: what the registry holds."""

from __future__ import annotations

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
    figures = {} if folder is None else last_figures(folder / "techniques.csv")
    if family is not None and family not in FAMILIES:
        raise ConfigError(f"must be one of {', '.join(FAMILIES)}", field="family", value=family)
    chosen = [row for row in TECHNIQUES if family in (None, row.family) and name in (None, row.name)]
    if not chosen:
        raise ConfigError(
            "no technique of this name (`pelton techniques` lists them)", field="name", value=name
        )
    if json:
        say_json([_document(row, figures.get(row.benchmark)) for row in chosen])
    elif name is not None:
        say_facts(_facts(chosen[0], figures.get(chosen[0].benchmark)))
    else:
        rows = [_cells(row, figures.get(row.benchmark)) for row in chosen]
        say_table(("technique", "family", "text", "papers", "last figure"), rows)
        note("pelton techniques NAME shows the switch, the test and the source; --json all of it")


def _cells(row: Technique, figure: Figure | None) -> tuple[str, ...]:
    papers = ", ".join(paper.name for paper in row.papers)
    return row.name, row.family, _kind(row), papers, str(figure or "")


def _kind(row: Technique) -> str:
    return "exact" if row.exact else "lossy"


def _facts(row: Technique, figure: Figure | None) -> dict[str, str]:
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
        "last figure": str(figure or "none"),
    }
    if figure is not None:
        facts |= {
            "against": figure.baseline,
            "measured": f"{figure.date}, {figure.machine}: {figure.command}",
        }
    return facts


def _document(row: Technique, figure: Figure | None) -> dict[str, object]:
    from dataclasses import asdict

    return {**asdict(row), "figure": None if figure is None else asdict(figure)}
