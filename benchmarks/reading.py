"""How fast products of few rows read weights from memory, in each of the ways that a load chooses from.

    python benchmarks/reading.py [--threads 2] [--out docs/measurements]

The layers of SmolLM2-135M in Q4_1 with random bytes, each matrix in memory of its own or one behind the
other; passes over all of them in turns, each time the best of three; medians. Plain reading of as many
bytes is measured in the same way. Writes reading.csv.
"""

from __future__ import annotations

import argparse
import csv
from datetime import date
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from pelton._native import (
    PackedWeight,
    ThreadPool,
    WeightLayout,
    WeightMemory,
    WeightReading,
    cpu_features,
    read_bandwidth,
    stream_seconds,
)

SHAPES, LAYERS, FORMAT = ((960, 576), (576, 576), (3072, 576), (576, 1536)), 30, "Q4_1"
ROUNDS, PASSES = 15, 3
COLUMNS = ("date", "machine", "threads", "rows", "memory", "panels side by side", "through caches", "GB/s")


class Way(NamedTuple):
    rows: int
    together: bool
    panels: int
    keep: bool


def ways() -> list[Way]:
    one = [
        Way(1, together, panels, keep)
        for together in (False, True)
        for panels in (1, 2, 4)
        for keep in (False, True)
    ]
    few = [
        Way(rows, together, panels, True)
        for rows in (2, 4, 8)
        for together in (False, True)
        for panels in (1, 2)
    ]
    return one + few


def weights(together: bool, pool: ThreadPool) -> list[PackedWeight]:
    memory, random = WeightMemory() if together else None, np.random.default_rng(0)
    layout, packed = WeightLayout.gguf(FORMAT), []
    for outputs, inputs in SHAPES * LAYERS:
        weight = PackedWeight(outputs, inputs, layout, memory)
        weight.pack_gguf(
            0, FORMAT, random.integers(0, 120, (outputs, inputs // 32 * 20), dtype=np.uint8), pool
        )
        packed.append(weight)
    return packed


def measure(pool: ThreadPool) -> tuple[dict[Way, float], float, float]:
    """Seconds of a pass each way, those of plain reading, and the bytes of a pass."""
    packed = {together: weights(together, pool) for together in (False, True)}
    size = sum(weight.num_bytes for weight in packed[True])
    taken: dict[Way, list[float]] = {way: [] for way in ways()}
    plain: list[float] = []
    for _ in range(ROUNDS):
        plain.append(size / read_bandwidth(pool, size, PASSES))
        for way, seconds in taken.items():
            reading = WeightReading(0, keep=way.keep, panels=way.panels, prepared=0)
            passes = [stream_seconds(packed[way.together], way.rows, reading, pool) for _ in range(PASSES)]
            seconds.append(min(passes))
    return {way: median(seconds) for way, seconds in taken.items()}, median(plain), size


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("docs/measurements"))
    options = parser.parse_args()
    seconds, plain, size = measure(ThreadPool(options.threads))
    about = (date.today().isoformat(), cpu_features().brand, options.threads)
    print(f"{size / 1e6:.0f} MB; plain reading {size / plain / 1e9:.1f} GB/s")
    with (options.out / "reading.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerow((*about, "", "", "", "plain reading", f"{size / plain / 1e9:.1f}"))
        for way, taken in seconds.items():
            memory = "one behind the other" if way.together else "each its own"
            speed = f"{size / taken / 1e9:.1f}"
            table.writerow((*about, way.rows, memory, way.panels, way.keep, speed))
            cached = "through caches" if way.keep else "past caches"
            print(f"{way.rows} rows, {memory:>20}, {way.panels} panels, {cached:>14}: {speed:>5} GB/s")


if __name__ == "__main__":
    main()
