"""The KV store: an arena of blocks, the tables over it, and where blocks go that nobody runs on."""

from __future__ import annotations

from .arena import KV_DTYPES, KVArena, KVLayout, SavedBlocks
from .blocks import BlockPool, BlockTable, blocks_for
from .swap import Swapped, SwapSpace

__all__ = [
    "KV_DTYPES",
    "BlockPool",
    "BlockTable",
    "KVArena",
    "KVLayout",
    "SavedBlocks",
    "SwapSpace",
    "Swapped",
    "blocks_for",
]
