"""What this machine can do at most, measured once and remembered per processor, level and thread count."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from ..errors import ConfigError

VERSION = 3
"""Part of every remembered figure's name: figures of an older way to measure are not read."""

MEBI = 1 << 20
_WORKING_SETS = tuple(size * MEBI for size in (8, 24, 48, 72, 96, 128, 256))
_LARGEST_SET = 1 << 30
_MOST_FILE_BYTES = 1 << 16
_PEAK_SECONDS = 0.1
_BARRIER_ROUNDS = 2000
# Figures outside are no measurement of any processor: a damaged or edited file.
_LEAST_RATE, _MOST_RATE = 1e6, 1e16


@dataclass(frozen=True)
class Machine:
    """Figures of one processor with `threads` threads at instruction-set level `isa`.

    bandwidth: (working set in bytes, bytes read a second), ascending sizes; sets that fit a cache read
    faster. int8, bf16, f32: multiply-adds a second, 0 where the level has no such instruction.
    barrier: seconds all threads take to meet. Raises ConfigError for figures that cannot be.
    """

    processor: str
    isa: str
    threads: int
    bandwidth: tuple[tuple[int, float], ...]
    int8: float
    bf16: float
    f32: float
    barrier: float

    def __post_init__(self) -> None:
        self._need(isinstance(self.processor, str) and len(self.processor) <= 256, "processor")
        self._need(isinstance(self.isa, str) and 0 < len(self.isa) <= 32, "isa")
        self._need(_is_whole(self.threads, 1, 1 << 16), "threads")
        sizes = [size for size, _ in self.bandwidth]
        self._need(len(sizes) > 0 and all(_is_whole(size, 1, 1 << 50) for size in sizes), "bandwidth")
        self._need(all(low < high for low, high in pairwise(sizes)), "bandwidth")
        self._need(all(_is_rate(rate) for _, rate in self.bandwidth), "bandwidth")
        self._need(_is_rate(self.f32), "f32")
        for field in ("int8", "bf16"):
            value = getattr(self, field)
            self._need(value == 0 or _is_rate(value), field)
        self._need(isinstance(self.barrier, float) and 0.0 <= self.barrier < 10.0, "barrier")

    def _need(self, condition: bool, field: str) -> None:
        if not condition:
            raise ConfigError(
                "is no figure of a machine", subject="machine", field=field, value=getattr(self, field)
            )

    def read_bandwidth(self, working_set: float) -> float:
        """Bytes a second for a loop over `working_set` bytes; between measured sizes by log of the size."""
        sizes = self.bandwidth
        if working_set <= sizes[0][0]:
            return sizes[0][1]
        for (low, slow), (high, fast) in pairwise(sizes):
            if working_set <= high:
                place = math.log(working_set / low) / math.log(high / low)
                return float(slow * (fast / slow) ** place)
        return sizes[-1][1]

    @property
    def memory_bandwidth(self) -> float:
        """Bytes a second from memory: of the largest working set, which no cache holds."""
        return self.bandwidth[-1][1]

    def reading_at(self, memory_bandwidth: float) -> Machine:
        """The same machine at a moment when it reads this many bytes a second from memory."""
        moved = memory_bandwidth / self.memory_bandwidth
        return replace(self, bandwidth=tuple((size, rate * moved) for size, rate in self.bandwidth))

    def peak(self, arithmetic: str) -> float:
        """Multiply-adds a second of "int8", "bf16" or "f32"; f32's where the level lacks the other two."""
        return {"int8": self.int8, "bf16": self.bf16}.get(arithmetic, 0.0) or self.f32


def _is_whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_rate(value: Any) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and _LEAST_RATE <= value <= _MOST_RATE
    )


def measure(threads: int, isa: str | None = None) -> Machine:
    """Measure the machine: one to three seconds. ConfigError for a level it does not have."""
    from .. import _native

    level = _native.resolve_isa(isa or "")
    pool = _native.ThreadPool(threads)
    features = _native.cpu_features()
    sets = working_sets(features.l3_bytes, psutil.virtual_memory().available)
    bandwidth = falling([(size, _native.read_bandwidth(pool, size, 5, level)) for size in sets])
    int8, bf16, f32 = (
        _native.arithmetic_peak(pool, kind, _PEAK_SECONDS, level) for kind in ("int8", "bf16", "f32")
    )
    barrier = _native.barrier_seconds(pool, _BARRIER_ROUNDS)
    return Machine(features.brand, level, threads, bandwidth, int8, bf16, f32, barrier)


def reads_now(machine: Machine) -> float:
    """Bytes a second from memory at this moment; what other machines on the same memory leave moves."""
    from .. import _native

    largest, _ = machine.bandwidth[-1]
    return _native.read_bandwidth(_native.ThreadPool(machine.threads), largest, 2, machine.isa)


def falling(rates: Sequence[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
    """The same with no set slower than a larger one: what a large set reaches, a part of it can reach."""
    best = 0.0
    kept = []
    for size, rate in reversed(rates):
        best = max(best, rate)
        kept.append((size, best))
    return tuple(reversed(kept))


def working_sets(l3_bytes: int, free_bytes: int) -> Sequence[int]:
    """Sizes to read, ascending; the largest is twice the last cache, within a quarter of the free memory."""
    largest = min(max(2 * l3_bytes, _WORKING_SETS[-1]), _LARGEST_SET)
    sizes = sorted({*_WORKING_SETS, largest})
    fitting = [size for size in sizes if size <= max(free_bytes // 4, _WORKING_SETS[0])]
    return fitting


def remembered(folder: Path, threads: int, isa: str | None = None) -> Machine | None:
    """The figures kept for this processor, or None; a file that does not hold such figures counts as none."""
    try:
        path = _path(folder, threads, isa)
        if path.stat().st_size > _MOST_FILE_BYTES:
            return None
        return machine_from(json.loads(path.read_text(encoding="utf-8")))
    except (ImportError, OSError, ValueError, RecursionError, ConfigError):
        return None


def remember(folder: Path, machine: Machine) -> None:
    """Keep figures for `remembered`. A folder that cannot be written loses them, nothing more."""
    path = _path(folder, machine.threads, machine.isa)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=folder, suffix=".part")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(machine), file)
        Path(temporary).replace(path)
    except OSError:
        return


def machine_from(document: object) -> Machine:
    """A Machine from a parsed JSON document. Raises ConfigError unless it has exactly the right fields."""
    names = {field.name for field in fields(Machine)}
    if not isinstance(document, Mapping) or set(document) != names:
        raise ConfigError("does not hold the figures of a machine", subject="machine")
    pairs = document["bandwidth"]
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise ConfigError("must be a list of pairs", subject="machine", field="bandwidth")
    return Machine(**{**document, "bandwidth": tuple((size, rate) for size, rate in pairs)})


def _path(folder: Path, threads: int, isa: str | None) -> Path:
    from .. import _native

    features = _native.cpu_features()
    described = [VERSION, features.brand, list(features.flags), features.num_processors, features.l3_bytes]
    key = json.dumps([*described, _native.resolve_isa(isa or ""), threads])
    return folder / f"machine-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
