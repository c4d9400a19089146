"""How far ahead matrix products ask for their weights: measured once on this machine, then remembered.

What is best hangs on how long memory takes to answer and on who else uses it: between 4,096 and 16,384
bytes it makes up to a tenth of the speed of a few rows. (Many rows ask for the next panels while they read
these, which leaves nothing to choose.) It changes only when bytes arrive, never a
result. Choosing by measurement is how LoopTune finds loop schedules; the other things that could be chosen
so, rows of a tile and rows of a cache block, were measured over all shapes of a small model and nowhere
beat the fixed choice by more than 2 %.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Protocol

from .._native import PackedWeight, ThreadPool, cpu_features, stream_seconds

Ahead = tuple[int, int]
"""Bytes ahead for products of one row and of 2 to 8; 0 leaves it to the kernel."""

UNTUNED: Ahead = (0, 0)
CANDIDATES = (0, 4096, 6144, 8192, 16384)
VERSION = 3
"""Part of every remembered choice's name: what an older search chose is not read."""

_ROWS = (1, 4)
_GAIN = 0.98  # a candidate must take less than this share of the time of the kernel's own choice
_NOISE = 1.5  # times of one candidate that differ by more say that others used the processor
_ROUNDS = 7
_SECONDS = 0.2  # for each number of rows; 35 passes over 84 MB take 0.05 to 0.15
_LEAST_BYTES, _MOST_BYTES = 32 << 20, 256 << 20
_MOST_FILE_BYTES = 4096


class Measure(Protocol):
    """Seconds of one pass over the weights with `rows` rows."""

    def __call__(self, rows: int, ahead: int) -> float: ...


def tuned(folder: Path, weights: Sequence[PackedWeight], pool: ThreadPool, isa: str) -> Ahead:
    """The choice remembered in `folder` for these shapes on this machine, else a new one: under a second.

    Weights that fit a cache need none. A file that holds no such choice is measured and written anew; a
    folder that cannot be written loses the choice, nothing more.
    """
    sample = sampled(weights)
    if sum(weight.num_bytes for weight in sample) < _LEAST_BYTES:
        return UNTUNED
    path = _path(folder, weights, pool, isa)
    return remembered(
        path, lambda: search(lambda rows, ahead: stream_seconds(sample, rows, ahead, pool, isa))
    )


def remembered(path: Path, find: Callable[[], Ahead | None]) -> Ahead:
    """The choice that the file at `path` holds, else what `find` gives, written there if it found one."""
    kept = _read(path)
    if kept is not None:
        return kept
    found = find()
    if found is None:
        return UNTUNED
    _write(path, found)
    return found


def sampled(weights: Sequence[PackedWeight]) -> Sequence[PackedWeight]:
    """The first of the weights, as many as a quick search can read again and again."""
    kept: list[PackedWeight] = []
    size = 0
    for weight in weights:
        size += weight.num_bytes
        if kept and size > _MOST_BYTES:
            break
        kept.append(weight)
    return kept


def search(measure: Measure) -> Ahead | None:
    """The best of CANDIDATES for each number of rows; None while the machine is too busy to tell."""
    found: list[int] = []
    for rows in _ROWS:
        best = _best(measure, rows)
        if best is None:
            return None
        found.append(best)
    one, few = found
    return one, few


def _best(measure: Measure, rows: int) -> int | None:
    """Candidates in turns, each its two quickest times, so that a disturbed one is seen to be."""
    times: dict[int, list[float]] = {ahead: [] for ahead in CANDIDATES}
    end = perf_counter() + _SECONDS
    for _ in range(_ROUNDS):
        for ahead, taken in times.items():
            taken.append(measure(rows, ahead))
        if perf_counter() > end:
            break
    quickest = {ahead: sorted(taken)[:2] for ahead, taken in times.items()}
    least = min(first for first, *_ in quickest.values())
    if any(len(two) < 2 or two[1] > _NOISE * least for two in quickest.values()):
        return None
    best = min(CANDIDATES, key=lambda ahead: quickest[ahead][0])
    return best if quickest[best][0] < _GAIN * quickest[0][0] else 0


def _path(folder: Path, weights: Sequence[PackedWeight], pool: ThreadPool, isa: str) -> Path:
    features = cpu_features()
    machine = [features.brand, list(features.flags), features.num_processors, features.l3_bytes]
    shapes = sorted({(weight.outputs, weight.inputs, weight.num_bytes) for weight in weights})
    key = json.dumps([VERSION, machine, isa, pool.num_threads, len(weights), shapes])
    return folder / f"prefetch-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


def _read(path: Path) -> Ahead | None:
    try:
        if path.stat().st_size > _MOST_FILE_BYTES:
            return None
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(document, list) or len(document) != len(UNTUNED):
        return None
    if not all(type(ahead) is int and ahead in CANDIDATES for ahead in document):
        return None
    one, few = document
    return one, few


def _write(path: Path, ahead: Ahead) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(list(ahead), file)
        Path(temporary).replace(path)
    except OSError:
        return
