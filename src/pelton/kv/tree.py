"""A radix tree over token ids: one node a block of up to 32 tokens. No block is owned here, only named."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from weakref import WeakValueDictionary

from ..types import BLOCK_SIZE, I32

_TOKEN_BYTES = 4
KEY_BYTES = BLOCK_SIZE * _TOKEN_BYTES
"""Length of a full block's key; the key of a sequence's unfinished last block is shorter."""


def key_of(tokens: I32) -> bytes:
    """Token ids as bytes, most significant first, so that keys sort as their tokens do. The key is the
    tokens: two different prefixes are never taken for one another."""
    return tokens.astype(">i4").tobytes()


def common_tokens(a: bytes, b: bytes) -> int:
    """How many leading tokens two keys share."""
    length = min(len(a), len(b))
    if a[:length] == b[:length]:
        return length // _TOKEN_BYTES
    return next(i for i in range(length) if a[i] != b[i]) // _TOKEN_BYTES


class Node:
    """The tokens of one block after those of its ancestors. `block` holds their keys and values while they
    are in memory; `file` names their copy on disk; `rested` is when its last sequence let go of it, by the
    clock of a `WorkingSet`. `name` is the same when the same tokens are evicted and come back; two prefixes
    may have one name, so who goes by it must be able to be wrong. A root holds no tokens."""

    __slots__ = (
        "__weakref__", "block", "children", "depth", "file", "in_tree", "key", "name", "order", "parent",
        "rested", "salt",
    )  # fmt: skip

    def __init__(self, key: bytes, parent: Node | None, salt: str) -> None:
        self.key = key
        self.parent = parent
        self.salt = salt
        self.name: int = hash(salt) if parent is None else name_below(parent, key)
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.children: dict[bytes, Node] = {}
        self.order: list[bytes] = []  # the children's keys, sorted
        self.block: int | None = None
        self.file: str | None = None
        self.rested = 0
        self.in_tree = True

    @property
    def num_tokens(self) -> int:
        return len(self.key) // _TOKEN_BYTES

    @property
    def is_full(self) -> bool:
        return len(self.key) == KEY_BYTES

    def path(self) -> list[Node]:
        """From the first block to this one; the root is left out."""
        nodes, node = [], self
        while node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]

    def subtree(self) -> Iterator[Node]:
        """This node and all below, children before their parents."""
        stack, found = [self], []
        while stack:
            found.append(stack.pop())
            stack += found[-1].children.values()
        return reversed(found)


def name_below(parent: Node, key: bytes) -> int:
    """The name of a child."""
    return hash((parent.name, key))


class PrefixTree:
    """One tree a salt: a prefix is never seen from another salt's root."""

    def __init__(self) -> None:
        # A root lives as long as a child or a sequence knows it: salts that are gone take no memory.
        self._roots: WeakValueDictionary[str, Node] = WeakValueDictionary()

    def root(self, salt: str) -> Node:
        root = self._roots.get(salt)
        if root is None:
            root = self._roots[salt] = Node(b"", None, salt)
        return root

    def nodes(self) -> Iterator[Node]:
        """All nodes but the roots."""
        for root in list(self._roots.values()):
            for node in root.subtree():
                if node is not root:
                    yield node

    def insert(self, parent: Node, key: bytes) -> Node:
        """A new child; `key` must not be there yet."""
        assert parent.in_tree
        assert key
        assert key not in parent.children
        node = parent.children[key] = Node(key, parent, parent.salt)
        insort(parent.order, key)
        return node

    def remove(self, node: Node) -> None:
        """Cut a node and all below it off."""
        parent = node.parent
        assert parent is not None
        del parent.children[node.key]
        del parent.order[bisect_left(parent.order, node.key)]
        for gone in node.subtree():
            gone.in_tree = False


def closest(parent: Node, key: bytes) -> tuple[Node, int] | None:
    """The child that shares most leading tokens with `key`, and how many; None if none shares one.

    Among sorted keys it is a neighbour of the place where `key` would stand.
    """
    at = bisect_left(parent.order, key)
    near = [(common_tokens(other, key), other) for other in parent.order[max(0, at - 1) : at + 1]]
    shared, best = max(near, default=(0, b""))
    return (parent.children[best], shared) if shared else None


def outgrown(parent: Node, key: bytes) -> Node | None:
    """The child whose tokens are the beginning of `key`, if there is one: it says nothing more than `key`."""
    at = bisect_left(parent.order, key)
    before = parent.order[at - 1] if at else b""
    return parent.children[before] if before and key.startswith(before) else None
