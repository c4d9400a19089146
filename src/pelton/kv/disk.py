"""The disk tier of the prefix cache: prefixes that outlive memory, and the process.

Promise: exact = True; no partial, damaged or foreign file is ever used, and nothing that a disk does ends or
delays more than a lookup: a file that cannot be written is given up, a file that cannot be read is a miss.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Container, Sequence
from dataclasses import dataclass
from time import monotonic

import numpy as np

from ..types import BLOCK_SIZE, I32
from .arena import KVArena, SavedBlocks
from .disk_files import CacheFolder, FoundFile
from .disk_format import (
    FIXED_BYTES,
    BlockHeader,
    BrokenFileError,
    checked_payload,
    decode_header,
    header_length,
)
from .disk_writer import BlockWriter, Write
from .tree import KEY_BYTES, Node, PrefixTree

QUEUE_BYTES = 64 << 20
PAUSE_SECONDS = 30.0
"""After an error nothing is written for so long: a full disk is not asked again for every block."""
CLOSE_SECONDS = 5.0


@dataclass
class DiskStats:
    """Running totals of blocks. broken: files that were damaged, cut, or continued nothing, and were removed.
    strange: files that are none of ours, or another model's. dropped: copies given up for want of room."""

    loaded: int = 0
    written: int = 0
    failed: int = 0
    dropped: int = 0
    broken: int = 0
    strange: int = 0


class DiskTier:
    """Nodes of the tree whose keys and values lie in a folder, at most `budget_bytes` of files.

    `identity` (32 bytes) stands for everything that the numbers depend on besides the tokens; files of
    another are not read and are the first to go. A node has a file only if its ancestors have one. Not
    thread-safe: the engine's thread alone calls it. Raises ConfigError for a folder that cannot be used.
    """

    exact = True

    def __init__(
        self,
        folder: CacheFolder,
        arena: KVArena,
        identity: bytes,
        budget_bytes: int,
        *,
        queue_bytes: int = QUEUE_BYTES,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self.stats = DiskStats()
        self.budget_bytes = budget_bytes
        self._folder = folder
        self._arena = arena
        self._identity = identity
        self._pause_seconds = pause_seconds
        self._paused_until = 0.0
        self._used = 0
        self._strangers: list[FoundFile] = []
        self._sizes: OrderedDict[Node, int] = OrderedDict()  # nodes with a file or a write, oldest use first
        self._pending: dict[Node, Write] = {}
        self._nodes: dict[Write, Node] = {}
        self.tree = PrefixTree()
        found, self.stats.strange = folder.scan()
        self._writer = BlockWriter(folder, max(queue_bytes, 2 * arena.layout.block_bytes))
        self._fill(found)

    @property
    def bytes_used(self) -> int:
        return self._used

    @property
    def num_blocks(self) -> int:
        return len(self._sizes) - len(self._pending)

    def holds(self, node: Node) -> bool:
        """Whether the node's numbers are on disk, or on their way."""
        return node in self._sizes

    def touch(self, node: Node) -> None:
        """A node and its ancestors were used: the ancestors count as used last, for they go last."""
        while node.parent is not None:
            if node in self._sizes:
                self._sizes.move_to_end(node)
            node = node.parent

    def offer(self, node: Node) -> bool:
        """Copy a node that is in memory, to be written; False where that cannot be.

        Older files give way, and it never waits.
        """
        if node in self._sizes:
            return True
        path = node.path()
        return self._offer(node, _tokens_of(path), frozenset(path))

    def save(self, node: Node) -> None:
        """Offer a node's ancestors and the node, as far as that can be; they count as used."""
        path = node.path()
        tokens, kept = _tokens_of(path), frozenset(path)
        for above in path:
            if not self._offer(above, tokens, kept):
                break
        self.touch(node)

    def _offer(self, node: Node, tokens: I32, kept: Container[Node], until: float | None = None) -> bool:
        """`tokens` begin with the node's and its ancestors'; `kept` nodes' files do not give way.

        With `until`, a moment of `time.monotonic`, it waits for the writer.
        """
        if node in self._sizes:
            return True
        parent = node.parent
        assert node.block is not None
        assert parent is not None
        if monotonic() < self._paused_until or not (parent.parent is None or parent in self._sizes):
            return False
        header = self._header_of(node, tokens)
        room = self._writer.has_room(header.file_bytes) or (
            until is not None and self._writer.wait_for_room(header.file_bytes, until)
        )
        if not room or not self._make_room(header.file_bytes, kept):
            self.stats.dropped += 1
            return False
        write = Write(f"{secrets.token_hex(16)}.kv", header, self._arena.save([node.block]))
        self._pending[node] = write
        self._nodes[write] = node
        self._sizes[node] = write.file_bytes
        self._used += write.file_bytes
        self._writer.write(write)
        return True

    def read(self, node: Node, tokens: I32 | None = None) -> SavedBlocks | None:
        """The numbers of a node's file; None, and the node is no longer held, where they cannot be had.

        `tokens` begin with the node's and its ancestors', for callers that have them.
        """
        if node in self._pending:
            return self._pending[node].saved
        if node.file is None:
            return None
        wanted = self._header_of(node, _tokens_of(node.path()) if tokens is None else tokens)
        try:
            payload = checked_payload(self._folder.read(node.file, wanted.file_bytes + 1), wanted)
        except (BrokenFileError, OSError):
            self.stats.broken += 1
            self._give_up(node)
            return None
        self.stats.loaded += 1
        keys, values = self._arena.keys, self._arena.values
        half = keys[0].nbytes
        return SavedBlocks(
            np.frombuffer(payload[:half], keys.dtype).reshape(1, *keys.shape[1:]),
            np.frombuffer(payload[half:], values.dtype).reshape(1, *values.shape[1:]),
        )

    def release(self, node: Node) -> None:
        """Remove the files of a node and of all below it."""
        for gone in node.subtree():
            if gone in self._sizes:
                self._used -= self._sizes.pop(gone)
                write = self._pending.pop(gone, None)
                if write is not None:
                    del self._nodes[write]
                    self._writer.remove(write.name)  # after it was written
                elif gone.file is not None:
                    self._writer.remove(gone.file)
                gone.file = None

    def settle(self) -> None:
        """Note what was written since the last call, and what could not be."""
        while self._writer.done:
            write, error = self._writer.done.popleft()
            node = self._nodes.pop(write, None)
            if error is not None:
                self.stats.failed += 1
                self._paused_until = monotonic() + self._pause_seconds
            if node is None:
                continue
            del self._pending[node]
            if error is None:
                self.stats.written += 1
                node.file = write.name
            else:
                self._give_up(node)

    def restore(self, block: int, saved: SavedBlocks) -> None:
        """Put what `read` returned into a block."""
        self._arena.restore([block], saved)

    def flush(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Wait until all copies are on disk; whether they are in time."""
        return self._writer.flush(seconds)

    def close(self, nodes: Sequence[Node] = ()) -> None:
        """Write these nodes, parents first, and what is under way, for a few seconds at most; then end."""
        until = monotonic() + CLOSE_SECONDS
        tokens = _tokens_by_node(nodes)
        for node in nodes:  # no file gives way: what is in memory need not be the last that was used
            self._offer(node, tokens[node], self._sizes.keys(), until)
        self._writer.close(max(0.0, until - monotonic()))
        self._folder.close()

    def _header_of(self, node: Node, tokens: I32) -> BlockHeader:
        own = tokens[: (node.depth - 1) * BLOCK_SIZE + node.num_tokens]
        return BlockHeader(self._identity, node.salt, own, self._arena.layout.block_bytes)

    def _fill(self, found: list[FoundFile]) -> None:
        """Put a node into the tree for every usable file; remove damaged ones and those without a parent."""
        headers = []
        for file in found:
            try:
                header = self._header(file)
            except (BrokenFileError, OSError):
                self._discard(file.name)
                continue
            if header.identity == self._identity and header.payload_bytes == self._arena.layout.block_bytes:
                headers.append((file, header))
            else:
                self.stats.strange += 1
                self._strangers.append(file)
                self._used += file.size
        self._strangers.sort(key=lambda file: file.time, reverse=True)
        by_length = sorted(headers, key=lambda pair: len(pair[1].tokens))
        used = {node: file.time for file, header in by_length if (node := self._attach(file, header))}
        for node in sorted(used, key=lambda node: node.depth, reverse=True):
            if node.parent in used:  # who used a node used its ancestors, after it: see `touch`
                used[node.parent] = max(used[node.parent], used[node])
        for node in sorted(used, key=lambda node: (used[node], -node.depth)):
            self._sizes.move_to_end(node)
        self._make_room(0, frozenset())

    def _header(self, file: FoundFile) -> BlockHeader:
        start = self._folder.read(file.name, FIXED_BYTES)
        header = decode_header(self._folder.read(file.name, header_length(start)))
        if header.file_bytes != file.size:
            raise BrokenFileError("cut, or longer than it should be")
        return header

    def _attach(self, file: FoundFile, header: BlockHeader) -> Node | None:
        """The node of a file, new in the tree; None, and the file goes, without its parent's file."""
        key = header.tokens.astype(">i4").tobytes()
        node = self.tree.root(header.salt)
        for at in range(0, 4 * header.first_token, KEY_BYTES):
            below = node.children.get(key[at : at + KEY_BYTES])
            if below is None or below not in self._sizes:
                self._discard(file.name)
                return None
            node = below
        last = key[4 * header.first_token :]
        if last in node.children:
            self._discard(file.name)
            return None
        found = self.tree.insert(node, last)
        found.file = file.name
        self._sizes[found] = file.size
        self._used += file.size
        return found

    def _discard(self, name: str) -> None:
        self.stats.broken += 1
        self._writer.remove(name)

    def _make_room(self, wanted: int, kept: Container[Node]) -> bool:
        """Remove files, other models' first, then the least recently used, until `wanted` bytes fit."""
        while self._used + wanted > self.budget_bytes:
            if self._strangers:
                stranger = self._strangers.pop()
                self._used -= stranger.size
                self._writer.remove(stranger.name)
                continue
            oldest = next(iter(self._sizes), None)
            if oldest is None or oldest in kept:
                return False
            self._give_up(oldest)
        return True

    def _give_up(self, node: Node) -> None:
        """Let go of files, and of nodes that are in memory no more."""
        self.release(node)
        for gone in list(node.subtree()):
            if gone.block is None and gone.in_tree:
                self.tree.remove(gone)


def _tokens_of(path: Sequence[Node]) -> I32:
    keys = b"".join(node.key for node in path)
    return np.frombuffer(keys, ">i4").astype(np.int32)


def _tokens_by_node(nodes: Sequence[Node]) -> dict[Node, I32]:
    """For each node tokens that begin with its own: nodes of one path share an array."""
    found: dict[Node, I32] = {}
    for node in sorted(nodes, key=lambda node: node.depth, reverse=True):
        if node not in found:
            path = node.path()
            tokens = _tokens_of(path)
            for above in reversed(path):
                if found.setdefault(above, tokens) is not tokens:
                    break
    return found
