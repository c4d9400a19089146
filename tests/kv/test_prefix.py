"""The prefix cache against a model of it: a plain set of what was computed, by salt and tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pelton.errors import OutOfBlocksError
from pelton.kv import BlockPool, BlockTable, LeastRecentlyUsed, Prefix, PrefixCache, blocks_for
from pelton.kv.tree import Node, PrefixTree, closest, common_tokens, key_of, outgrown
from pelton.types import BLOCK_SIZE, I32

BLOCKS = 14
Content = tuple[str, tuple[int, ...]]
"""What a slot must hold: the salt and all tokens up to and with its own. Stands for keys and values."""


class Run:
    """One sequence: its tokens, its place in the cache, its table."""

    def __init__(self, bench: Bench, salt: str, tokens: list[int]) -> None:
        self.bench = bench
        self.salt = salt
        self.tokens = np.array(tokens, np.int32)
        self.computed = 0
        self.table = BlockTable(bench.pool, bench.copy)
        self.prefix: Prefix = Prefix(bench.cache, self.table, salt)

    def start(self) -> int:
        """Tokens found, each slot checked."""
        before = self.computed
        self.computed = self.prefix.extend(self.tokens, self.computed, len(self.tokens) - 1)
        self.check()
        return self.prefix.count(len(self.tokens), self.computed - before)

    def compute(self, count: int) -> None:
        """Raises OutOfBlocksError."""
        end = min(self.computed + count, len(self.tokens))
        self.table.prepare(self.computed, end)
        for slot in range(self.computed, end):
            self.bench.content[self.table.blocks[slot // BLOCK_SIZE]][slot % BLOCK_SIZE] = self.wanted(slot)
        self.computed = end
        self.prefix.publish(self.tokens, self.computed)
        self.check()

    def finish(self) -> None:
        self.prefix.finish(self.tokens, self.computed)
        self.table.release()
        self.computed = 0

    def wanted(self, slot: int) -> Content:
        return self.salt, tuple(self.tokens[: slot + 1].tolist())

    def check(self) -> None:
        for slot in range(self.computed):
            held = self.bench.content[self.table.blocks[slot // BLOCK_SIZE]][slot % BLOCK_SIZE]
            assert held == self.wanted(slot), f"slot {slot}"


class Bench:
    """A pool, a cache, and what every slot of every block holds."""

    def __init__(self, blocks: int = BLOCKS, window: int | None = None) -> None:
        self.pool = BlockPool(blocks)
        self.cache = PrefixCache(self.pool, LeastRecentlyUsed(), window=window)
        self.content: list[list[Content | None]] = [[None] * BLOCK_SIZE for _ in range(blocks)]

    def copy(self, source: int, target: int) -> None:
        self.content[target] = list(self.content[source])

    def find(self, tokens: list[int]) -> int:
        """How many tokens the cache has now; nothing is computed."""
        run = Run(self, "", tokens)
        found = run.start()
        run.finish()
        return found

    def run(self, tokens: list[int], salt: str = "") -> int:
        """Compute a whole sequence and let it go; how many tokens the cache had."""
        run = Run(self, salt, tokens)
        found = run.start()
        run.compute(len(tokens))
        run.finish()
        return found


class Sequences(RuleBasedStateMachine):
    """Sequences over a small vocabulary begin, grow, fork, roll back and end while blocks run short."""

    window: int | None = None

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(window=self.window)
        self.runs: list[Run] = []
        self.computed: set[Content] = set()

    @rule(
        seed=st.integers(0, 5),
        length=st.integers(1, 150),
        changed=st.none() | st.integers(0, 149),
        salt=st.sampled_from(["", "a"]),
    )
    def begin(self, seed: int, length: int, changed: int | None, salt: str) -> None:
        tokens = np.random.default_rng(seed).integers(0, 3, length)
        if changed is not None:
            tokens[changed % length :] = np.random.default_rng(changed).integers(0, 3)
        run = Run(self.bench, salt, tokens.tolist())
        self.runs.append(run)
        found = run.start()
        assert found <= length - 1
        assert all(run.wanted(slot) in self.computed for slot in range(found)), "found what nobody computed"

    @precondition(lambda self: self.runs)
    @rule(which=st.integers(0, 99), count=st.integers(1, 70))
    def compute(self, which: int, count: int) -> None:
        run = self.runs[which % len(self.runs)]
        try:
            run.compute(count)
        except OutOfBlocksError:
            return
        self.computed |= {run.wanted(slot) for slot in range(run.computed)}

    @precondition(lambda self: self.runs)
    @rule(which=st.integers(0, 99))
    def skip_ahead(self, which: int) -> None:
        self.runs[which % len(self.runs)].start()

    @precondition(lambda self: self.runs)
    @rule(which=st.integers(0, 99), tokens=st.lists(st.integers(0, 2), min_size=1, max_size=40))
    def generate(self, which: int, tokens: list[int]) -> None:
        run = self.runs[which % len(self.runs)]
        run.tokens = np.concatenate([run.tokens, np.array(tokens, np.int32)])

    @precondition(lambda self: self.runs)
    @rule(which=st.integers(0, 99))
    def fork(self, which: int) -> None:
        run = self.runs[which % len(self.runs)]
        twin = Run(self.bench, run.salt, run.tokens.tolist())
        twin.table = run.table.fork()
        twin.prefix = run.prefix.fork(twin.table)
        twin.computed = run.computed
        self.runs.append(twin)

    @precondition(lambda self: self.runs)
    @rule(which=st.integers(0, 99), keep=st.floats(0, 1))
    def roll_back(self, which: int, keep: float) -> None:
        run = self.runs[which % len(self.runs)]
        run.computed = int(keep * run.computed)
        run.tokens = run.tokens[: run.computed + 1]
        run.table.shrink(run.computed)
        run.prefix.rewind(run.computed)

    @precondition(lambda self: self.runs)
    @rule(which=st.integers(0, 99), ends=st.booleans())
    def finish(self, which: int, ends: bool) -> None:
        run = self.runs[which % len(self.runs)]
        run.finish()
        if ends:
            self.runs.remove(run)

    @precondition(lambda self: self.runs)
    @rule(which=st.integers(0, 99))
    def spoil(self, which: int) -> None:
        self.runs[which % len(self.runs)].prefix.spoil()

    @invariant()
    def everything_adds_up(self) -> None:
        self.bench.pool.check([run.table for run in self.runs])
        self.bench.cache.check()
        held = {block for run in self.runs for block in run.table.blocks}
        assert self.bench.pool.num_free == BLOCKS - len(held)
        for run in self.runs:
            run.check()
        for node in self.bench.cache.tree.nodes():
            assert node.block is not None
            tokens = b"".join(above.key for above in node.path())
            ids = tuple(np.frombuffer(tokens, ">i4").tolist())
            first = len(ids) - node.num_tokens
            for slot in range(first, len(ids)):
                wanted = (node.salt, ids[: slot + 1])
                assert self.bench.content[node.block][slot - first] == wanted, "a block holds another prefix"


Sequences.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestSequences = Sequences.TestCase


class SequencesInAWindow(Sequences):
    """The same where idle blocks give way before the pool is full."""

    window = 2


SequencesInAWindow.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
TestSequencesInAWindow = SequencesInAWindow.TestCase


@given(st.lists(st.lists(st.integers(0, 2), max_size=5), max_size=8), st.lists(st.integers(0, 2), max_size=6))
def test_closest_and_outgrown_agree_with_a_search(children: list[list[int]], wanted: list[int]) -> None:
    root = PrefixTree().root("")
    tree = PrefixTree()
    for tokens in children:
        if tokens and key_of(np.array(tokens, np.int32)) not in root.children:
            tree.insert(root, key_of(np.array(tokens, np.int32)))
    key = key_of(np.array(wanted, np.int32))
    shared = {other: common_tokens(other, key) for other in root.children}
    found = closest(root, key)
    assert (found[1] if found else 0) == max(shared.values(), default=0)
    assert found is None or shared[found[0].key] == found[1]
    shorter = {other for other in root.children if other != key and key.startswith(other)}
    beginning = outgrown(root, key)
    assert beginning is None or beginning.key in shorter
    if len(shorter) == 1 and not any(o.startswith(tuple(shorter)) for o in root.children if o not in shorter):
        assert beginning is not None


def test_a_conversation_computes_only_its_new_tokens() -> None:
    bench, tokens = Bench(40), list(range(1, 72))
    assert bench.run(tokens) == 0
    for turn in range(5):
        before = len(tokens)
        tokens += [100 * turn + i for i in range(17 + turn)]
        assert bench.run(tokens) == before
    assert bench.run(tokens) == len(tokens) - 1  # the last token's row gives the logits


def test_salts_see_nothing_of_each_other() -> None:
    bench, tokens = Bench(), list(range(100))
    assert bench.run(tokens, "a") == 0
    assert bench.run(tokens, "b") == 0
    assert bench.run(tokens) == 0
    assert [bench.run(tokens, salt) for salt in ("a", "b", "")] == [99, 99, 99]


def test_a_salt_that_is_gone_takes_no_memory() -> None:
    bench = Bench(4)
    for salt in range(50):
        bench.run(list(range(100)), str(salt))
    assert len(list(bench.cache.tree.nodes())) == 4
    assert len(bench.cache.tree._roots) == 1


class ShortHash(bytes):
    """A key whose hash has 12 bits: among 6,000 blocks collisions are certain."""

    def __hash__(self) -> int:
        return super().__hash__() & 0xFFF

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other)

    def __getitem__(self, at: Any) -> Any:
        part = super().__getitem__(at)
        return ShortHash(part) if isinstance(part, bytes) else part


def test_colliding_hashes_are_no_hits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pelton.kv.prefix.key_of", lambda tokens: ShortHash(key_of(tokens)))
    bench = Bench(6001)
    random = np.random.default_rng(0)
    prompts = [random.integers(0, 50000, 33).tolist() for _ in range(3000)]
    assert sum(bench.run(prompt) for prompt in prompts) < 3000  # now and then a first token agrees
    keys = [key for node in bench.cache.tree.nodes() for key in [node.key] if node.is_full]
    assert len(keys) == 3000
    assert len({hash(key) for key in keys}) < 2600
    assert all(bench.run(prompt) == 32 for prompt in prompts)


def test_eviction_takes_what_was_used_longest_ago_and_leaves_first() -> None:
    bench = Bench(8)
    old, new = list(range(96)), list(range(1000, 1096))
    bench.run(old)
    bench.run(new)
    bench.run(list(range(2000, 2096)))  # 6 of 8 blocks hold old and new: one block is wanted back
    assert [bench.find([*tokens, 0]) for tokens in (old, new)] == [64, 96]
    bench.run(list(range(3000, 3032)))
    assert bench.find([*range(2000, 2096), 0]) == 64  # looking was use: now the third is the oldest
    assert [bench.find([*tokens, 0]) for tokens in (old, new)] == [64, 96]


def test_running_sequences_share_blocks_and_skip_ahead() -> None:
    bench = Bench(12)
    tokens = list(range(160))
    first, second = Run(bench, "", tokens), Run(bench, "", tokens)
    assert first.start() == second.start() == 0
    first.compute(40)
    second.compute(40)  # the same blocks, computed twice: the table goes over to the first's
    assert first.table.blocks[0] == second.table.blocks[0]
    first.compute(100)
    assert second.start() == 128 - 40
    assert second.table.blocks == first.table.blocks[:4]
    bench.pool.check([first.table, second.table])


def test_in_use_counts_what_needs_no_room() -> None:
    bench = Bench()
    tokens: I32 = np.arange(100, dtype=np.int32)
    run = Run(bench, "", tokens.tolist())
    run.compute(100)
    assert bench.cache.in_use("", tokens) == 3
    assert bench.cache.in_use("b", tokens) == 0
    run.finish()
    assert bench.cache.in_use("", tokens) == 0


def test_a_rolled_back_sequence_has_its_last_block_though_none_is_free() -> None:
    bench = Bench(2)
    run = Run(bench, "", list(range(64)))
    run.compute(64)
    run.table.shrink(40)
    run.prefix.rewind(40)
    run.computed = 40
    run.tokens[40:] = 7
    run.compute(24)
    assert blocks_for(64) == len(run.table.blocks)
    bench.cache.check()


def test_a_root_is_not_a_block() -> None:
    root = Node(b"", None, "")
    assert root.path() == []
    assert not root.is_full
