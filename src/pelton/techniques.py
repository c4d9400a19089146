"""The registry: every technique from the literature that pelton carries, one row each.

A row ties four things together and a test holds them to it: the file that implements the technique,
whose docstring names the papers; the switch that turns it on; the test of its defining property; and
the figure last measured for it, in docs/measurements/techniques.csv.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import ConfigError

FAMILIES = ("engine", "kernel", "memory", "sampling", "scheduling", "speculation")
COLUMNS = ("technique", "metric", "value", "unit", "baseline", "date", "machine", "command")
_MOST_CSV_BYTES = 1 << 20


@dataclass(frozen=True)
class Paper:
    """`name` is how the implementing file's docstring calls it; `number` its row in the literature list."""

    name: str
    number: int | None = None


@dataclass(frozen=True)
class Technique:
    """One technique.

    exact: whether the text (or distribution) is what it would be without it. switch: how a user turns it on.
    test: pytest node id of its defining property. benchmark: its row in techniques.csv; loss: the row of
    what it loses, where it is not exact. source: module and class, `pelton.decode.accept:CoupledVerifier`,
    or the C++ file that implements it.
    """

    name: str
    family: str
    title: str
    papers: tuple[Paper, ...]
    exact: bool
    switch: str
    test: str
    benchmark: str
    source: str
    loss: str = ""

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ConfigError(f"must be one of {', '.join(FAMILIES)}", subject=self.name, field="family")
        for field in ("name", "title", "switch", "test", "benchmark", "source"):
            if not getattr(self, field):
                raise ConfigError("must not be empty", subject=self.name or "technique", field=field)
        if self.exact != (self.loss == ""):
            raise ConfigError(
                "is for what a lossy technique loses", subject=self.name, field="loss", value=self.loss
            )
        if "::" not in self.test:
            raise ConfigError("must be a pytest node id", subject=self.name, field="test", value=self.test)


@dataclass(frozen=True)
class Figure:
    """A measured figure of one technique, as techniques.csv has it; `baseline` says against what."""

    metric: str
    value: float
    unit: str
    baseline: str
    date: str
    machine: str
    command: str

    def __str__(self) -> str:
        return f"{self.metric} {self.value:g} {self.unit}".rstrip()


TECHNIQUES: tuple[Technique, ...] = (
    Technique(
        name="stall-free-chunked-prefill",
        family="scheduling",
        title="Prompts run in chunks beside decoding sequences within one token budget: nobody stalls",
        papers=(Paper("SARATHI", 117), Paper("Sarathi-Serve", 218), Paper("DeepSpeed-FastGen", 311)),
        exact=True,
        switch="always on; --max-num-batched-tokens sets the budget",
        test="tests/test_engine.py::test_text_does_not_depend_on_batch_budget_or_preemption",
        benchmark="stall-free-chunked-prefill",
        source="pelton.sched.budget:TokenBudgetScheduler",
    ),
    Technique(
        name="continuous-batching",
        family="scheduling",
        title="Sequences join and leave the batch at every step",
        papers=(Paper("Orca"), Paper("Flover", 76)),
        exact=True,
        switch="always on; --max-num-seqs sets how many run at once",
        test="tests/test_engine.py::test_text_does_not_depend_on_batch_budget_or_preemption",
        benchmark="continuous-batching",
        source="pelton.sched.budget:TokenBudgetScheduler",
    ),
    Technique(
        name="skip-join-mlfq",
        family="scheduling",
        title="Queues that a request sinks through as it runs, joined by its prompt's length",
        papers=(Paper("Fast Distributed Inference Serving for Large Language Models", 233),),
        exact=True,
        switch="--scheduler mlfq",
        test="tests/sched/test_policies.py::test_short_requests_overtake_a_long_one_under_mlfq",
        benchmark="skip-join-mlfq",
        source="pelton.sched.mlfq:SkipJoinQueues",
    ),
    Technique(
        name="swap-or-recompute",
        family="scheduling",
        title="A preempted sequence's KV is copied out or computed again, whichever is faster here",
        papers=(Paper("Fast Distributed Inference Serving for Large Language Models", 233),),
        exact=True,
        switch="always on; --swap-memory sets the room",
        test="tests/sched/test_swapping.py::test_slow_copies_mean_computing_again",
        benchmark="swap-or-recompute",
        source="pelton.sched.swapping:SwapOrRecompute",
    ),
    Technique(
        name="cheap-context-switches",
        family="scheduling",
        title="Blocks move in groups, beside the step before they must, and unchanged ones not again",
        papers=(Paper("FastSwitch", 213),),
        exact=True,
        switch="always on; --swap-memory sets the room",
        test="tests/sched/test_swapping.py::test_unchanged_blocks_are_not_copied_twice",
        benchmark="cheap-context-switches",
        source="pelton.sched.swapping:SwapOrRecompute",
    ),
    Technique(
        name="predicted-length",
        family="scheduling",
        title="Memory is set aside for the expected answer, by a predictor that learns as answers end",
        papers=(Paper("S^{3}", 262),),
        exact=True,
        switch="--scheduler predicted-length",
        test="tests/sched/test_policies.py::test_memory_is_set_aside_for_the_predicted_answer",
        benchmark="predicted-length",
        source="pelton.sched.predicted:PredictedLength",
    ),
    Technique(
        name="skip-predict",
        family="scheduling",
        title="A cheap guess tells short answers from long; only long ones get a costly prediction",
        papers=(Paper("SkipPredict", 269),),
        exact=True,
        switch="--scheduler skip-predict",
        test="tests/sched/test_policies.py::test_costly_predictions_are_for_the_long_ones",
        benchmark="skip-predict",
        source="pelton.sched.skip_predict:SkipPredict",
    ),
    Technique(
        name="program-attained-service",
        family="scheduling",
        title="Agents are scheduled as programs: who has had least over all its calls comes first",
        papers=(Paper("Autellix", 240),),
        exact=True,
        switch="--scheduler program; requests carry a program",
        test="tests/sched/test_policies.py::test_a_new_program_overtakes_a_long_ones_next_call",
        benchmark="program-attained-service",
        source="pelton.sched.program:ProgramAttainedService",
    ),
    Technique(
        name="prefix-groups",
        family="scheduling",
        title="Requests of a batch that begin alike run together: what they share is computed once",
        papers=(Paper("BatchLLM", 258),),
        exact=True,
        switch="LLM.generate with several prompts; --scheduler prefix-groups",
        test="tests/sched/test_policies.py::test_what_a_batch_shares_is_computed_once",
        benchmark="prefix-groups",
        source="pelton.sched.prefix_groups:PrefixGroups",
    ),
    Technique(
        name="earliest-deadline",
        family="scheduling",
        title="Deadlines that can be met run first, the earliest before the others; hopeless ones last",
        papers=(),
        exact=True,
        switch="--scheduler deadline; requests carry a deadline",
        test="tests/sched/test_policies.py::test_the_earliest_deadline_that_can_be_met_runs_first",
        benchmark="earliest-deadline",
        source="pelton.sched.deadline:EarliestDeadline",
    ),
    Technique(
        name="fair-shares",
        family="scheduling",
        title="Tenants share the machine by weight, however much each asks for",
        papers=(Paper("Fairness in Serving Large Language Models"),),
        exact=True,
        switch="--scheduler fair --tenant-weight NAME=2",
        test="tests/sched/test_policies.py::test_tenants_share_by_weight_however_much_they_ask",
        benchmark="fair-shares",
        source="pelton.sched.fair:FairShares",
    ),
    Technique(
        name="simulator",
        family="scheduling",
        title="Traces replayed through the real schedulers on a simulated clock, at any scale",
        papers=(
            Paper("A Scalable and Reproducible System-on-Chip Simulation for Reinforcement Learning", 257),
        ),
        exact=True,
        switch="pelton bench simulate",
        test="tests/cost/test_simulator.py::test_order_and_times_are_the_engines",
        benchmark="simulator",
        source="pelton.cost.simulator:simulate",
    ),
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
        source="pelton.kv.prefix:PrefixCache",
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
    Technique(
        name="online-softmax-attention",
        family="kernel",
        title="Attention over chunks of keys with a running maximum and sum, never a matrix of scores",
        papers=(
            Paper("FlashAttention", 174),
            Paper("Self-attention Does Not Need O(n^2) Memory", 345),
            Paper("FuseMax", 66),
        ),
        exact=True,
        switch="always on in the native executor",
        test="tests/laws/test_rows.py::test_tiny_models_on_every_instruction_set",
        benchmark="online-softmax-attention",
        source="csrc/kernels/attention.h",
    ),
    Technique(
        name="split-attention",
        family="kernel",
        title="A long context's chunks are shared out over threads and merged in order: the same bits",
        papers=(Paper("FlashDecoding++", 100),),
        exact=True,
        switch="always on in the native executor, for few rows and long contexts",
        test="tests/exec/test_native.py::test_threads_and_splits_change_no_bit",
        benchmark="split-attention",
        source="csrc/runtime/attend_work.h",
    ),
    Technique(
        name="shared-prefix-attention",
        family="kernel",
        title="Sequences that begin with the same KV blocks read those together: each chunk once for all",
        papers=(Paper("RelayAttention", 325),),
        exact=True,
        switch="always on in the native executor, wherever block tables begin alike",
        test="tests/laws/test_shared_prefixes.py::test_forks_at_two_depths",
        benchmark="shared-prefix-attention",
        source="csrc/runtime/shared_prefix.h",
    ),
    Technique(
        name="int8-activations",
        family="kernel",
        title="Activations rounded to 8 bits per 32 so that dot products with block formats run in integers",
        papers=(),
        exact=False,
        switch="always on in the native executor for block formats; --executor reference is without",
        test="tests/native/test_linear.py::test_quantized_activations_are_near_and_the_same_on_every_level",
        benchmark="int8-activations",
        source="csrc/kernels/quantize_block.h",
        loss="int8-activations-loss",
    ),
    Technique(
        name="fixed-order-reductions",
        family="engine",
        title="Every sum runs in one order whatever the batch, chunks or threads: equal bits, not near ones",
        papers=(),
        exact=True,
        switch="always on",
        test="tests/laws/test_rows.py::test_the_real_model",
        benchmark="fixed-order-reductions",
        source="csrc/kernels/linear.h",
    ),
    Technique(
        name="counter-based-sampling",
        family="sampling",
        title="Random numbers from seed, position and stream, so a sample never depends on the batch",
        papers=(Paper("Parallel Random Numbers: As Easy as 1, 2, 3"),),
        exact=True,
        switch="always on; --seed fixes the text",
        test="tests/decode/test_sampler.py::test_a_draw_depends_on_seed_position_and_stream_alone",
        benchmark="counter-based-sampling",
        source="pelton.decode.philox:uniform",
    ),
    Technique(
        name="coupled-verification",
        family="speculation",
        title="A draft is accepted as far as it guessed the sample: the same text at any temperature",
        papers=(Paper("Coupling without Communication and Drafter-Invariant Speculative Decoding"),),
        exact=True,
        switch="LLM(drafter=...)",
        test="tests/decode/test_accept.py::test_any_draft_gives_the_text_of_plain_decoding",
        benchmark="coupled-verification",
        source="pelton.decode.accept:CoupledVerifier",
    ),
    Technique(
        name="ngram-drafts",
        family="speculation",
        title="Guesses copied from what followed the last few tokens earlier in the same text",
        papers=(Paper("Prompt lookup decoding"),),
        exact=True,
        switch="LLM(drafter=NgramDrafter())",
        test="tests/test_engine.py::test_drafts_change_the_number_of_steps_never_the_text",
        benchmark="ngram-drafts",
        source="pelton.spec.ngram:NgramDrafter",
    ),
)


def measurements_folder() -> Path | None:
    """Where measured figures lie: beside an installed package, or in the source tree's docs."""
    package = Path(__file__).parent
    candidates = (package / "measurements", package.parent.parent / "docs" / "measurements")
    return next((folder for folder in candidates if (folder / "techniques.csv").is_file()), None)


def last_figures(path: Path) -> Mapping[str, Figure]:
    """The newest figure of each benchmark in a techniques.csv: of several rows the last date wins.

    Raises ConfigError naming file, line and value for a row that is no figure.
    """
    if path.stat().st_size > _MOST_CSV_BYTES:
        raise ConfigError("is too large for a table of figures", subject=path)
    figures: dict[str, Figure] = {}
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ConfigError(f"must be {','.join(COLUMNS)}", subject=path, field="first line")
        for row in reader:
            figure = _figure(row, f"{path}:{reader.line_num}")
            kept = figures.get(row["technique"])
            if kept is None or figure.date >= kept.date:
                figures[row["technique"]] = figure
    return figures


def _figure(row: Mapping[str, str | None], where: str) -> Figure:
    cells = {name: row[name] for name in COLUMNS if name != "technique"}
    try:
        value = float(cells.pop("value") or "")
    except ValueError:
        raise ConfigError("is not a number", subject=where, field="value", value=row["value"]) from None
    complete = {name: cell for name, cell in cells.items() if cell is not None}
    if len(complete) != len(cells):
        raise ConfigError("has too few cells", subject=where)
    return Figure(value=value, **complete)
