"""How matrix products read their weights: measured once on this machine, then remembered.

What is best hangs on the processor, on how long memory takes to answer and on who else uses it: how far ahead
weights are asked for makes up to a tenth of the speed of a few rows; whether past the caches or through
them, and how many panels side by side, half of it on some processors; whether many rows share codes that are
unpacked once, or scales whose multiples are ready, a tenth. It changes only how bytes arrive, never a result.
Choosing by measurement is how LoopTune finds loop schedules; the other things that could be chosen so, rows
of a tile and rows of a cache block, were measured over all shapes of a small model and nowhere beat the fixed
choice by more than 2 %.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import NamedTuple, Protocol

from .._native import PackedWeight, ThreadPool, WeightReading, cpu_features, stream_seconds


class Reading(NamedTuple):
    """One way of reading weights; see WeightReading in csrc/kernels/linear.h.

    ahead: bytes; 0 leaves it to the kernel. keep: of one row. panels: side by side, of up to 8 rows; 0 leaves
    it to the kernel. prepared: of many; see PREPARED.
    """

    ahead: int
    keep: bool
    panels: int
    prepared: int

    def native(self) -> WeightReading:
        return WeightReading(*self)


class Readings(NamedTuple):
    """For products of one row, of 2 to 8, and of more."""

    one: Reading
    few: Reading
    many: Reading


def _usual() -> Reading:
    usual = WeightReading.usual()
    return Reading(usual.ahead, usual.keep, usual.panels, usual.prepared)


USUAL = _usual()
"""What is presumed of this processor until something else was measured to be faster."""
UNTUNED = Readings(USUAL, USUAL, USUAL)
AHEAD = (0, 2048, 4096, 6144, 8192, 16384)
PANELS = (0, 1, 2, 4)
PREPARED = (0, 1, 2)
"""What the tiles of many rows share: nothing, unpacked codes, or multiples of scales."""
VERSION = 9
"""Part of every remembered choice's name: what an older search chose is not read."""

ONE, FEW, MANY = 1, 4, 96
"""Rows with which each is measured."""
_GAIN = 0.98  # a candidate must take less than this share of the time of the first
_NOISE = 1.5  # times of one candidate that differ by more say that others used the processor
_ROUNDS = 7
_DUELS, _WON = 11, 8  # of equals, one in thirty wins so many by 2 %
_SECONDS = 0.2  # for each choice, beside its duels; 35 passes over 84 MB take 0.05 to 0.15
_LEAST_BYTES, _MOST_BYTES = 32 << 20, 256 << 20
_MOST_BYTES_OF_MANY_ROWS = 8 << 20  # a pass of 96 rows over 84 MB takes 30 to 60 ms
_MOST_FILE_BYTES = 4096


class Measure(Protocol):
    """Seconds of one pass over the weights with `rows` rows."""

    def __call__(self, rows: int, reading: Reading) -> float: ...


def tuned(folder: Path, weights: Sequence[PackedWeight], pool: ThreadPool, isa: str) -> Readings:
    """The choice remembered in `folder` for these shapes on this machine, else a new one: under a second.

    Weights that fit a cache need none. A file that holds no such choice is measured and written anew; a
    folder that cannot be written loses the choice, nothing more.
    """
    sample = sampled(weights, _MOST_BYTES)
    if sum(weight.num_bytes for weight in sample) < _LEAST_BYTES:
        return UNTUNED
    small = prepared_by_many(weights)

    def measure(rows: int, reading: Reading) -> float:
        return stream_seconds(small if rows == MANY else sample, rows, reading.native(), pool, isa)

    ways = PREPARED if small else ()
    return remembered(_path(folder, weights, pool, isa), lambda: search(measure, ways))


def remembered(path: Path, find: Callable[[], Readings | None]) -> Readings:
    """The choice that the file at `path` holds, else what `find` gives, written there if it found one."""
    kept = _read(path)
    if kept is not None:
        return kept
    found = find()
    if found is None:
        return UNTUNED
    _write(path, found)
    return found


def sampled(weights: Sequence[PackedWeight], most_bytes: int) -> Sequence[PackedWeight]:
    """The first of the weights, as many as a quick search can read again and again."""
    kept: list[PackedWeight] = []
    size = 0
    for weight in weights:
        size += weight.num_bytes
        if kept and size > most_bytes:
            break
        kept.append(weight)
    return kept


def prepared_by_many(weights: Sequence[PackedWeight]) -> Sequence[PackedWeight]:
    """A sample of those to which it makes a difference what many rows prepare, if there are any."""
    blocks = [weight for weight in weights if weight.has_blocks]
    # The first is often the table of tokens, by which few rows are multiplied.
    return sampled(blocks[len(blocks) // 2 :], _MOST_BYTES_OF_MANY_ROWS)


def search(measure: Measure, prepared: Sequence[int] = PREPARED) -> Readings | None:
    """The best way for each number of rows, of these that many may prepare; None while the machine is too
    busy to tell."""
    one = _best(measure, ONE, _ways(USUAL))
    one = one and _best(measure, ONE, _distances(one))
    few = one and _best(measure, FEW, [USUAL, *(USUAL._replace(panels=panels) for panels in (1, 2))])
    few = few and _best(measure, FEW, _distances(few))
    others = [USUAL._replace(prepared=way) for way in prepared if way != USUAL.prepared]
    many = few and (_best(measure, MANY, [USUAL, *others]) if others else USUAL)
    return Readings(one, few, many) if one and few and many else None


def _ways(first: Reading) -> list[Reading]:
    """`first`, then the other ways that one row may take to the same bytes."""
    ways = [first._replace(keep=keep, panels=panels) for keep in (False, True) for panels in (1, 2, 4)]
    return [first, *(way for way in ways if way != first)]


def _distances(first: Reading) -> list[Reading]:
    return [first._replace(ahead=ahead) for ahead in AHEAD]


def _best(measure: Measure, rows: int, candidates: Sequence[Reading]) -> Reading | None:
    """Candidates in turns, each its two quickest times, so that a disturbed one is seen to be. The first is
    the choice unless another is clearly faster."""
    times: dict[Reading, list[float]] = {reading: [] for reading in candidates}
    end = perf_counter() + _SECONDS
    for _ in range(_ROUNDS):
        for reading, taken in times.items():
            taken.append(measure(rows, reading))
        if perf_counter() > end:
            break
    quickest = {reading: sorted(taken)[:2] for reading, taken in times.items()}
    if any(len(two) < 2 or two[1] > _NOISE * two[0] for two in quickest.values()):
        return None
    first = candidates[0]
    best = min(candidates, key=lambda reading: quickest[reading][0])
    clear = quickest[best][0] < _GAIN * quickest[first][0]
    return best if clear and _wins_again(measure, rows, best, first) else first


def _wins_again(measure: Measure, rows: int, best: Reading, first: Reading) -> bool:
    """Whether `best` is faster in most of several turns with `first`.

    Of six alike, one was 2 % quicker every other time, and one chosen so decoded a tenth slower.
    """
    won = sum(measure(rows, best) < _GAIN * measure(rows, first) for _ in range(_DUELS))
    return won >= _WON


def _path(folder: Path, weights: Sequence[PackedWeight], pool: ThreadPool, isa: str) -> Path:
    features = cpu_features()
    machine = [features.brand, list(features.flags), features.num_processors, features.l3_bytes]
    shapes = sorted({(weight.outputs, weight.inputs, weight.num_bytes) for weight in weights})
    key = json.dumps([VERSION, machine, isa, pool.num_threads, len(weights), shapes])
    return folder / f"reading-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


def _read(path: Path) -> Readings | None:
    try:
        if path.stat().st_size > _MOST_FILE_BYTES:
            return None
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(document, list) or len(document) != len(Readings._fields):
        return None
    found = [_reading_of(item) for item in document]
    one, few, many = found
    return Readings(one, few, many) if one and few and many else None


def _reading_of(item: object) -> Reading | None:
    if not isinstance(item, list) or len(item) != len(Reading._fields):
        return None
    ahead, keep, panels, prepared = item
    known = ((ahead, AHEAD), (panels, PANELS), (prepared, PREPARED))
    if any(type(number) is not int or number not in among for number, among in known):
        return None
    return Reading(ahead, keep, panels, prepared) if type(keep) is bool else None


def _write(path: Path, readings: Readings) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(readings, file)
        Path(temporary).replace(path)
    except OSError:
        return
