"""Keys and values: where they lie and how long. One row a technique; see row.py."""

from __future__ import annotations

from .row import Paper, Technique

MEMORY: tuple[Technique, ...] = (
    Technique(
        name="paged-kv",
        family="memory",
        title="Keys and values in blocks of 32 positions, shared by forks and copied on write",
        papers=(Paper("PagedAttention"),),
        exact=True,
        switch="always on; --kv-memory sets the arena's size",
        test="tests/laws/test_rows.py::test_fork_and_roll_back",
        benchmark="paged-kv",
        source="pelton.kv.blocks:BlockTable",
    ),
    Technique(
        name="prefix-cache",
        family="memory",
        title="A radix tree of tokens keeps what was computed: a prompt that begins alike computes the rest",
        papers=(Paper("Efficiently Programming Large Language Models using SGLang", 270),),
        exact=True,
        switch="always on; --no-prefix-cache turns it off, cache_salt keeps tenants apart",
        test="tests/test_prefix_cache.py::test_cached_answers_are_the_bits_of_cold_ones",
        benchmark="prefix-cache",
        source="pelton.kv.prefix_cache:PrefixCache",
    ),
    Technique(
        name="prefix-cache-on-disk",
        family="memory",
        title="Cached prefixes in a bounded folder, checksummed, that outlive memory and a restart",
        papers=(),
        exact=True,
        switch="--kv-cache-dir DIR --kv-disk SIZE",
        test="tests/kv/test_disk.py::test_killed_at_any_time_nothing_is_damaged",
        benchmark="prefix-cache-on-disk",
        source="pelton.kv.disk:DiskTier",
    ),
    Technique(
        name="working-set",
        family="memory",
        title="A cache takes its own idle blocks before memory never used, until one is missed",
        papers=(
            Paper("The Working Set Model for Program Behavior"),
            Paper("ARC: A Self-Tuning, Low Overhead Replacement Cache"),
        ),
        exact=True,
        switch="always on with the prefix cache, unless --kv-memory says how much to fill",
        test="tests/kv/test_working_set.py::test_after_one_miss_all_sessions_of_a_round_are_found",
        benchmark="working-set",
        source="pelton.kv.working_set:WorkingSet",
    ),
    Technique(
        name="one-bit-eviction",
        family="memory",
        title="Blocks predicted not to come back leave the prefix cache first; wrong bits cost little",
        papers=(Paper("Paging with Succinct Predictions", 22),),
        exact=True,
        switch="--prefix-eviction predicted",
        test="tests/kv/test_mark_predict.py::test_any_bits_cost_at_most_a_cache_a_phase",
        benchmark="one-bit-eviction",
        source="pelton.kv.mark_predict:MarkAndPredict",
    ),
)
