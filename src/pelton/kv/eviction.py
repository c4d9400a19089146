"""What decides which cached block gives way when memory is wanted."""

from __future__ import annotations

from typing import Protocol

from .tree import Node


class EvictionPolicy(Protocol):
    """Sees every use of a cached block and names the one to evict. It can cost time, never change a text.

    A block *rests* while no sequence refers to it: only then may it be evicted. Whoever refers to a block
    refers to all its ancestors, so all below a resting node rest as well.
    """

    def request(self, node: Node) -> None:
        """A sequence found this block, or computed it. Ancestors are requested first."""

    def rest(self, node: Node) -> None:
        """The last sequence let go of it. Descendants rest first."""

    def wake(self, node: Node) -> None:
        """A sequence refers to it again."""

    def forget(self, node: Node) -> None:
        """It left memory, or the tree; `node.parent` is still set."""

    def victim(self) -> Node:
        """A resting node none of whose children is in memory. Asked only while a node rests."""


def deepest(node: Node) -> Node:
    """A node at or below `node` that is in memory and has no child in memory."""
    while True:
        below = next((child for child in node.children.values() if child.block is not None), None)
        if below is None:
            return node
        node = below
