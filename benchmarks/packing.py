"""How fast weights go from the bytes of a file into the panels that kernels stream.

    python benchmarks/packing.py [--threads 2] [--out docs/measurements]

A matrix of 4096 x 4096 random weights of every format with a native reader, the best of five times, memory
that was never used before included. Writes packing.csv.
"""

from __future__ import annotations

import argparse
import csv
from datetime import date
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from pelton._native import PackedWeight, ThreadPool, WeightLayout, cpu_features, reads_gguf
from pelton.quant import FORMATS

SIZE, REPETITIONS = 4096, 5
COLUMNS = ("date", "machine", "threads", "format", "MB of the file", "ms", "GB/s of the file")


def pack_seconds(name: str, data: NDArray[np.uint8], pool: ThreadPool) -> float:
    """Seconds to fill a new weight [SIZE, SIZE] from the rows of `data`."""
    blocks = reads_gguf(name)
    layout = WeightLayout.gguf(name) if blocks else WeightLayout.floats(name)
    start = perf_counter()
    weight = PackedWeight(SIZE, SIZE, layout)
    if blocks:
        weight.pack_gguf(0, name, data, pool)
    else:
        weight.pack_floats(0, data, pool)
    return perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("docs/measurements"))
    options = parser.parse_args()
    pool, random = ThreadPool(options.threads), np.random.default_rng(0)
    today, machine = date.today().isoformat(), cpu_features().brand
    with (options.out / "packing.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for name, form in FORMATS.items():
            if form.panel is not None and not reads_gguf(name):
                continue
            data = random.integers(0, 120, (SIZE, form.row_bytes(SIZE)), dtype=np.uint8)
            best = min(pack_seconds(name, data, pool) for _ in range(REPETITIONS))
            megabytes = data.nbytes / 1e6
            row = (f"{megabytes:.1f}", f"{best * 1e3:.1f}", f"{data.nbytes / best / 1e9:.2f}")
            table.writerow((today, machine, options.threads, name, *row))
            print(f"{name:6} {row[0]:>6} MB {row[1]:>6} ms {row[2]:>6} GB/s")


if __name__ == "__main__":
    main()
