"""A prefix cache with a folder, over numbers that follow from the tokens: what comes back can be checked.

As a program, `python -m tests.kv.disk_bench FOLDER SEED`, it fills the folder until it is killed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np

from pelton.kv import (
    BlockPool,
    BlockTable,
    CacheFolder,
    DiskTier,
    KVArena,
    KVLayout,
    LeastRecentlyUsed,
    Prefix,
    PrefixCache,
)
from pelton.plan import KVShape
from pelton.types import BLOCK_SIZE, I32

LAYOUT = KVLayout(KVShape(layers=1, kv_heads=1, head_dim=4))
IDENTITY = b"i" * 32
FOREVER = 3600.0


def numbers(salt: str, tokens: I32) -> np.ndarray[tuple[int, ...], np.dtype[np.float16]]:
    """Keys and values [2, n, 4] of every position, from all tokens up to it."""
    rows, state = [], blake2b(salt.encode())
    for token in tokens.tolist():
        state.update(int(token).to_bytes(4, "little"))
        rows.append(np.frombuffer(state.copy().digest()[:16], np.uint16) % 1000)
    array = np.array(rows, np.float16).reshape(len(rows), 2, 4).transpose(1, 0, 2)
    return np.ascontiguousarray(array)


class DiskBench:
    """One process's cache. Every sequence that runs checks each number that it found."""

    def __init__(
        self,
        path: Path,
        *,
        blocks: int = 16,
        budget: int = 1 << 30,
        folder: CacheFolder | None = None,
        identity: bytes = IDENTITY,
        pause: float = 0.0,
        queue: int = 1 << 24,
    ) -> None:
        self.pool = BlockPool(blocks)
        self.arena = KVArena(LAYOUT, blocks)
        self.tier = DiskTier(
            folder or CacheFolder(path), self.arena, identity, budget, pause_seconds=pause, queue_bytes=queue
        )
        self.cache = PrefixCache(self.pool, LeastRecentlyUsed(), self.tier)

    def run(self, tokens: Sequence[int], salt: str = "") -> int:
        """One sequence from start to end; how many tokens it found."""
        ids = np.array(tokens, np.int32)
        table = BlockTable(self.pool, self.arena.copy_block)
        prefix = Prefix(self.cache, table, salt)
        found = prefix.extend(ids, 0, len(ids) - 1)
        right = numbers(salt, ids)
        self.compare(table, right, found)
        table.prepare(found, len(ids))
        for slot in range(found, len(ids)):
            block, at = table.blocks[slot // BLOCK_SIZE], slot % BLOCK_SIZE
            self.arena.keys[block, 0, 0, :, at] = right[0, slot]
            self.arena.values[block, 0, 0, at, :] = right[1, slot]
        prefix.publish(ids, len(ids))
        self.compare(table, right, len(ids))
        prefix.finish(ids, len(ids))
        table.release()
        self.cache.check()
        self.pool.check([])
        return found

    def compare(
        self, table: BlockTable, right: np.ndarray[tuple[int, ...], np.dtype[np.float16]], end: int
    ) -> None:
        for slot in range(end):
            block, at = table.blocks[slot // BLOCK_SIZE], slot % BLOCK_SIZE
            assert (self.arena.keys[block, 0, 0, :, at] == right[0, slot]).all(), f"slot {slot}"
            assert (self.arena.values[block, 0, 0, at, :] == right[1, slot]).all(), f"slot {slot}"

    def flush(self) -> None:
        assert self.tier.flush(60.0)
        self.tier.settle()

    def close(self) -> None:
        self.cache.close()


def prompt(length: int, seed: int) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(0, 50000, length)]


def fill(path: Path, seed: int) -> None:
    """Conversations that grow, evict each other and outgrow the budget, for ever."""
    bench = DiskBench(path, budget=60 * 1500)
    random = np.random.default_rng(seed)
    talks = [prompt(40, number) for number in range(4)]
    print("ready", flush=True)
    while True:
        number = int(random.integers(len(talks)))
        if len(talks[number]) > 250:
            talks[number] = talks[number][:40]
        talks[number] = talks[number] + prompt(int(random.integers(1, 60)), int(random.integers(2**20)))
        bench.run(talks[number], salt=str(number % 2))


if __name__ == "__main__":
    fill(Path(sys.argv[1]), int(sys.argv[2]))


def files(path: Path) -> list[Path]:
    return sorted((path / "kv").glob("*.kv"))
