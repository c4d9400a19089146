"""The prefix cache as one sequence sees it: the blocks it takes over, and those it leaves to others."""

from __future__ import annotations

from ..types import BLOCK_SIZE, I32
from .blocks import BlockTable
from .prefix_cache import PrefixCache
from .tree import KEY_BYTES, Node, closest, key_of


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
