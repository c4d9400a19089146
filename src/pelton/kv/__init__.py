"""The KV store: an arena of blocks, the tables over it, and where blocks go that nobody runs on."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .arena import KVArena, KVLayout, SavedBlocks
from .blocks import BlockPool, BlockTable, blocks_for
from .disk import DiskStats, DiskTier
from .disk_files import CacheFolder
from .eviction import EvictionPolicy
from .formats import KV_FORMATS
from .identity import kv_identity
from .lru import LeastRecentlyUsed
from .mark_predict import MarkAndPredict
from .prefix import Prefix
from .prefix_cache import CacheStats, PrefixCache
from .swap import Swapped, SwapSpace

EVICTIONS: Mapping[str, type[LeastRecentlyUsed] | type[MarkAndPredict]] = MappingProxyType(
    {"lru": LeastRecentlyUsed, "predicted": MarkAndPredict}
)
"""Eviction policies by the names that settings know them by."""

__all__ = [
    "EVICTIONS",
    "KV_FORMATS",
    "BlockPool",
    "BlockTable",
    "CacheFolder",
    "CacheStats",
    "DiskStats",
    "DiskTier",
    "EvictionPolicy",
    "KVArena",
    "KVLayout",
    "LeastRecentlyUsed",
    "MarkAndPredict",
    "Prefix",
    "PrefixCache",
    "SavedBlocks",
    "SwapSpace",
    "Swapped",
    "blocks_for",
    "kv_identity",
]
