"""The KV store: an arena of blocks and the tables over it."""

from __future__ import annotations

from .arena import KV_DTYPES, KVArena, KVLayout
from .blocks import BlockPool, BlockTable, blocks_for

__all__ = ["KV_DTYPES", "BlockPool", "BlockTable", "KVArena", "KVLayout", "blocks_for"]
