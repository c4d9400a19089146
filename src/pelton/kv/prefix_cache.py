"""The prefix cache: what sequences computed stays in the arena until its blocks are wanted otherwise.

RadixAttention of "Efficiently Programming Large Language Models using SGLang": a radix tree over token ids
whose nodes are the arena's blocks. Promise: exact = True, bit for bit, for a token's keys and values depend
on the tokens before it alone (law 2); and a conversation that goes on computes only its new tokens.
kv/prefix.py is what one sequence sees of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..types import I32
from .blocks import BlockPool, BlockTable
from .disk import DiskTier
from .eviction import EvictionPolicy
from .tree import KEY_BYTES, Node, PrefixTree, key_of, outgrown
from .working_set import WorkingSet


@dataclass
class CacheStats:
    """Running totals. queries, hits: prompt tokens asked for and found, each sequence counted once."""

    queries: int = 0
    hits: int = 0
    evicted: int = 0

    @property
    def hit_rate(self) -> float:
        return self.hits / self.queries if self.queries else 0.0


class PrefixCache:
    """Keeps blocks of a pool for prefixes: see `kv.blocks.Keeper`. Not thread-safe, as the engine.

    window: how many newer blocks one sees before its memory is used again, at first; None: the whole pool.
    """

    exact = True

    def __init__(
        self,
        pool: BlockPool,
        policy: EvictionPolicy,
        tier: DiskTier | None = None,
        window: int | None = None,
    ) -> None:
        self.pool = pool
        self.policy = policy
        self.tier = tier
        self.working_set = WorkingSet(pool.num_blocks if window is None else window, pool.num_blocks)
        self.tree = PrefixTree() if tier is None else tier.tree
        self.stats = CacheStats()
        self._node_of: dict[int, Node] = {}
        pool.keeper = self

    @property
    def num_blocks(self) -> int:
        """Blocks that hold a known prefix, in use or resting."""
        return len(self._node_of)

    def insert(self, parent: Node, key: bytes, block: int) -> Node:
        """Make `block`, which a table refers to, the node `key` below `parent`; a shorter one gives way."""
        shorter = outgrown(parent, key)
        if shorter is not None and (shorter.block is None or self._rests(shorter)):
            self.remove(shorter)
        node = self.tree.insert(parent, key)
        self.adopt(node, block)
        return node

    def adopt(self, node: Node, block: int) -> None:
        """`block`, which a table refers to, holds the numbers of a node that was not in memory."""
        self.pool.keep(block)
        self.working_set.enter()
        node.block = block
        self._node_of[block] = node

    def use(self, node: Node, key: bytes) -> None:
        """A node, whose key `key` begins with, and those below it as far as `key` goes are about to be held:
        of the files on disk theirs give way last."""
        if self.tier is not None:
            at = KEY_BYTES
            while (below := node.children.get(key[at : at + KEY_BYTES])) is not None:
                node, at = below, at + KEY_BYTES
            self.tier.touch(node)

    def hold(self, node: Node, tokens: I32) -> int | None:
        """A node's block with one more reference, the caller's; read from disk if it is not in memory.
        `tokens` begin with the node's and its ancestors'."""
        if node.block is not None:
            self.pool.share(node.block)
            return node.block
        if self.tier is None or self.pool.num_free == 0:
            return None
        saved = self.tier.read(node, tokens)
        if saved is None:
            return None
        self.working_set.read(node)
        block = self.pool.take()
        if not node.in_tree:  # what gave way to it took its file's place
            self.pool.drop(block)
            return None
        self.tier.restore(block, saved)
        self.adopt(node, block)
        return block

    def load(self, node: Node, table: BlockTable, index: int) -> bool:
        """Fill a block of the table's own from a node that is on disk only; False if that cannot be."""
        saved = None if self.tier is None else self.tier.read(node)
        block = None if saved is None else table.put_new(index)
        if self.tier is None or saved is None or block is None:
            return False
        self.tier.restore(block, saved)
        return True

    def save(self, node: Node) -> None:
        """Have a node and its ancestors, all in memory, written to disk as far as there is room."""
        if self.tier is not None:
            self.tier.settle()
            self.tier.save(node)

    def settle(self) -> None:
        """Take note of what the disk has done meanwhile."""
        if self.tier is not None:
            self.tier.settle()

    def close(self) -> None:
        """Write what is in memory to disk, for a few seconds at most, and let go of the folder."""
        if self.tier is not None:
            nodes = [node for node in self.tree.nodes() if node.block is not None]
            self.tier.close(sorted(nodes, key=lambda node: node.depth))

    def remove(self, node: Node) -> None:
        """Forget a node and all below it; blocks that nobody refers to are free afterwards."""
        if self.tier is not None:
            self.tier.release(node)
        for gone in node.subtree():
            self._unsettle(gone)
        self.tree.remove(node)

    def rest(self, block: int) -> None:
        node = self._node_of[block]
        self.working_set.rest(node)
        self.policy.rest(node)

    def wake(self, block: int) -> None:
        self.policy.wake(self._node_of[block])

    def give_up(self) -> None:
        """Free one resting block; its node stays if it is on disk, or can go there."""
        self._give_up(self.policy.victim())

    def give_up_stale(self) -> None:
        """The same if it is stale."""
        node = self.policy.victim()
        if self.working_set.is_stale(node):
            self._give_up(node)

    def _give_up(self, node: Node) -> None:
        self.stats.evicted += 1
        if self.tier is not None and self.tier.offer(node) and node.in_tree:
            self._unsettle(node)
        else:
            self.working_set.give_up(node)
            self.remove(node)

    def withdraw(self, block: int) -> None:
        """Let a table have a block for itself: the tree forgets it and what follows it."""
        self.remove(self._node_of[block])

    def in_use(self, salt: str, tokens: I32) -> int:
        """How many blocks at the beginning of `tokens` running sequences hold: those take no room."""
        node, key, count = self.tree.root(salt), key_of(tokens), 0
        while True:
            child = node.children.get(key[count * KEY_BYTES : (count + 1) * KEY_BYTES])
            if child is None or not child.is_full or child.block is None or self._rests(child):
                return count
            node, count = child, count + 1

    def check(self) -> None:
        """Assert that tree, pool and policy agree; for tests and idle moments."""
        found = {node.block: node for node in self.tree.nodes() if node.block is not None}
        assert found == self._node_of, "the tree and its index of blocks differ"
        for node in self.tree.nodes():
            assert node.is_full or not node.children, "a block that is not full has children"
            assert node.order == sorted(node.children)
            parent = node.parent
            assert parent is not None
            assert node.block is not None or (self.tier is not None and self.tier.holds(node))
            if parent.parent is not None and node.block is not None:
                assert parent.block is not None, "a block is in memory without the one before it"
                assert self._rests(node) or not self._rests(parent), "a block rests before one that is used"
        self.pool.check_kept(self._node_of)

    def _rests(self, node: Node) -> bool:
        return node.block is not None and self.pool.rests(node.block)

    def _unsettle(self, node: Node) -> None:
        if node.block is not None:
            self.policy.forget(node)
            del self._node_of[node.block]
            self.pool.unkeep(node.block)
            node.block = None
