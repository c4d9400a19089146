"""The prefix cache: what sequences computed stays in the arena until its blocks are wanted otherwise.

RadixAttention of "Efficiently Programming Large Language Models using SGLang": a radix tree over token ids
whose nodes are the arena's blocks. Promise: exact = True, bit for bit, for a token's keys and values depend
on the tokens before it alone (law 2); and a conversation that goes on computes only its new tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..types import BLOCK_SIZE, I32
from .blocks import BlockPool, BlockTable
from .disk import DiskTier
from .eviction import EvictionPolicy
from .tree import KEY_BYTES, Node, PrefixTree, closest, key_of, outgrown
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

    def open(self, table: BlockTable, salt: str) -> Prefix:
        """The cache as one sequence sees it."""
        return Prefix(self, table, salt)

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


class Prefix:
    """One sequence's place in the tree: its first `depth` blocks are the path to a node.

    `tokens` is always the whole sequence, `computed` how many of its tokens have keys and values.
    """

    __slots__ = ("_asked", "_cache", "_ended", "_node", "_salt", "_table", "depth")

    def __init__(self, cache: PrefixCache, table: BlockTable, salt: str) -> None:
        self._cache = cache
        self._table = table
        self._node = cache.tree.root(salt)
        self._salt = salt
        self.depth = 0
        self._asked = False
        self._ended = False

    @property
    def next_full(self) -> int:
        """How many tokens must be computed for `publish` to have something to do."""
        return (self.depth + 1) * BLOCK_SIZE

    def fork(self, table: BlockTable) -> Prefix:
        """The same place for a sequence that shares all blocks."""
        other = Prefix(self._cache, table, self._salt)
        other._node, other.depth = self._node, self.depth
        other._asked = other._ended = True  # its prompt was the other's
        return other

    def extend(self, tokens: I32, computed: int, limit: int) -> int:
        """Take over blocks that hold tokens beyond `computed`, up to `limit`; how many are computed then.

        Of a block that agrees only in its beginning the table gets a copy, to go on in.
        """
        if limit <= computed or not self._is_current(computed):
            return computed
        self._cache.settle()
        key = key_of(tokens[self.depth * BLOCK_SIZE : limit])
        at, reads = 0, False
        while at + KEY_BYTES <= len(key):
            child = self._node.children.get(key[at : at + KEY_BYTES])
            if child is not None and child.block is None and not reads:
                self._cache.use(child, key[at:])
                reads = True
            block = None if child is None else self._cache.hold(child, tokens)
            if child is None or block is None:
                self._cache.working_set.miss(self._node, key[at : at + KEY_BYTES])
                break
            self._enter(child, block)
            self._cache.pool.drop(block)
            at += KEY_BYTES
        computed = max(computed, self.depth * BLOCK_SIZE)
        return self._share_beginning(key[at : at + KEY_BYTES], computed)

    def publish(self, tokens: I32, computed: int) -> None:
        """Put the blocks that are full by now into the tree, or use the ones that are there already."""
        computed = min(computed, len(tokens))  # of a draft, rows are computed before their tokens are taken
        while (self.depth + 1) * BLOCK_SIZE <= computed:
            if not self._node.in_tree:
                return
            key = key_of(tokens[self.depth * BLOCK_SIZE : (self.depth + 1) * BLOCK_SIZE])
            child = self._node.children.get(key)
            if child is None:
                block = self._table.blocks[self.depth]
                self._enter(self._cache.insert(self._node, key, block), block)
            else:
                if child.block is None:  # on disk, and now computed again
                    self._cache.adopt(child, self._table.blocks[self.depth])
                assert child.block is not None
                self._enter(child, child.block)

    def finish(self, tokens: I32, computed: int) -> None:
        """The table is about to be released: leave its blocks in the tree, the last one too though it is
        not full, and go back to the root."""
        self._leave(tokens, min(computed, len(tokens), len(self._table.blocks) * BLOCK_SIZE))
        if self._node.in_tree and self.depth:
            self._cache.save(self._node)
        self.rewind(0)
        self._ended = True

    def _leave(self, tokens: I32, computed: int) -> None:
        self.publish(tokens, computed)
        if self._is_current(computed) and computed % BLOCK_SIZE:
            key = key_of(tokens[self.depth * BLOCK_SIZE : computed])
            block = self._table.blocks[self.depth]
            known = closest(self._node, key)
            if not self._cache.pool.is_kept(block) and (known is None or known[1] * 4 < len(key)):
                self._node = self._cache.insert(self._node, key, block)
                self._cache.policy.request(self._node)
                self.depth += 1

    def rewind(self, computed: int) -> None:
        """Go back to where only `computed` tokens are left."""
        while self.depth * BLOCK_SIZE > computed:
            assert self._node.parent is not None
            self._node = self._node.parent
            self.depth -= 1

    def spoil(self) -> None:
        """Numbers of this sequence are not to be trusted: forget every block it used, and what follows."""
        path = self._node.path() if self._node.in_tree else []
        if path:
            self._cache.remove(path[0])

    def count(self, num_prompt: int, found: int) -> int:
        """Note what a sequence's prompt asked for and found; how many tokens of it count. What a sequence
        finds again after it was preempted does not."""
        if self._ended:
            return 0
        if not self._asked:
            self._cache.stats.queries += num_prompt
            self._asked = True
        self._cache.stats.hits += found
        return found

    def in_use(self, tokens: I32) -> int:
        """Blocks of `tokens` that running sequences hold already, for a sequence that holds none."""
        return self._cache.in_use(self._salt, tokens)

    def _is_current(self, computed: int) -> bool:
        return self._node.in_tree and self.depth == computed // BLOCK_SIZE

    def _enter(self, node: Node, block: int) -> None:
        self._table.put(self.depth, block)
        self._cache.policy.request(node)
        self._node = node
        self.depth += 1

    def _share_beginning(self, key: bytes, computed: int) -> int:
        found = closest(self._node, key)
        if found is None or self.depth * BLOCK_SIZE + found[1] <= computed:
            return computed
        if found[0].block is None:
            copied = self._cache.load(found[0], self._table, self.depth)
        else:
            copied = self._table.put_copy(self.depth, found[0].block)
        return self.depth * BLOCK_SIZE + found[1] if copied else computed
