"""The C++ core. Arrays are never converted: a wrong dtype, rank or layout is a TypeError.

`isa` names an instruction-set level ("generic", "avx2", "avx_vnni", "avx512", "avx512_bf16"); "" means
PELTON_ISA or else the fastest one. A level this machine lacks raises ConfigError; sizes that do not fit
together raise ValueError.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
U16 = NDArray[np.uint16]
I64 = NDArray[np.int64]

# Machine (csrc/core)

class CpuFeatures:
    @property
    def brand(self) -> str: ...
    @property
    def flags(self) -> list[str]: ...
    @property
    def num_processors(self) -> int: ...
    @property
    def l1_bytes(self) -> int: ...
    @property
    def l2_bytes(self) -> int: ...
    @property
    def l3_bytes(self) -> int: ...

class IdleWork:
    """What a team's second thread does between two jobs."""

class ThreadPool:
    """`num_threads` (1..1024) threads, the caller among them. Not usable in a child after fork()."""

    def __init__(self, num_threads: int, idle: IdleWork | None = None) -> None: ...
    @property
    def num_threads(self) -> int: ...

def cpu_features() -> CpuFeatures: ...
def isa_levels() -> list[str]:
    """Levels that this build has and this processor runs, slowest first."""

def resolve_isa(isa: str = "") -> str: ...
def read_bandwidth(pool: ThreadPool, num_bytes: int, repeats: int = 5, isa: str = "") -> float:
    """Bytes a second the pool reads from a buffer of `num_bytes`, best of `repeats` passes."""

def arithmetic_peak(pool: ThreadPool, kind: str, seconds: float = 0.2, isa: str = "") -> float:
    """Multiply-adds a second for kind "int8", "bf16" or "f32"; 0.0 where the level lacks the instruction."""

def barrier_seconds(pool: ThreadPool, rounds: int = 10000) -> float: ...
def exercise_pool(pool: ThreadPool, jobs: int, barriers: int, failing: int = -1, fail_at: int = 0) -> int:
    """Runs jobs of checked barriers, thread `failing` throwing at one of them; returns how many raised."""

def run_inside_run(pool: ThreadPool) -> None: ...

# The vector functions kernels are built of, over a multiple of 16 elements, for tests.
def vector_exp(x: F32, isa: str = "") -> F32: ...
def vector_coarse_exp2(x: F32, isa: str = "") -> F32: ...
def vector_to_f16(x: F32, isa: str = "") -> U16: ...
def vector_to_bf16(x: F32, isa: str = "") -> U16: ...
def vector_from_f16(x: U16, isa: str = "") -> F32: ...
def vector_reduce(x: F32, isa: str = "") -> tuple[float, float]: ...

# Matrix products (csrc/kernels/linear.h)

ACTIVATION_BLOCK_BYTES: int
ACTIVATION_PAIR_BYTES: int
MOST_SEGMENT_PAIRS: int

class WeightLayout:
    @staticmethod
    def floats(dtype: str) -> WeightLayout:
        """dtype: "F32", "F16" or "BF16"; another raises KernelUnsupportedError."""

    @staticmethod
    def block(
        bits: int,
        group: int,
        offset: int,
        scale_dtype: str,
        has_minimum: bool,
        table: list[int] | tuple[int, ...] | None = None,
    ) -> WeightLayout:
        """In the terms of pelton.quant.Panel."""

    @staticmethod
    def gguf(format: str) -> WeightLayout:
        """The layout `pack_gguf` gives a format for which `reads_gguf` holds."""

    @property
    def has_pairs(self) -> bool:
        """Whether weights held so can be had in pairs: 4 bits, groups of 32, float16 scales."""

def reads_gguf(format: str) -> bool: ...

class WeightReading:
    """How products read weights; changes no bit. See csrc/kernels/linear.h."""

    def __init__(self, ahead: int, keep: bool, panels: int, prepared: int) -> None: ...
    @staticmethod
    def usual() -> WeightReading:
        """What is presumed of this processor."""

    @property
    def ahead(self) -> int: ...
    @property
    def keep(self) -> bool: ...
    @property
    def panels(self) -> int: ...
    @property
    def prepared(self) -> int: ...

class WeightMemory:
    """Memory of many weights side by side, in pages as large as the system has; one thread at a time."""

class PackedWeight:
    """A weight [outputs, inputs] as the kernels stream it; zero until packed. `memory`: beside others."""

    def __init__(
        self, outputs: int, inputs: int, layout: WeightLayout, memory: WeightMemory | None = None
    ) -> None: ...
    @property
    def outputs(self) -> int: ...
    @property
    def inputs(self) -> int: ...
    @property
    def num_bytes(self) -> int: ...
    @property
    def has_blocks(self) -> bool:
        """Whether it is held in blocks, not as floats nor in pairs: see WeightReading.prepared."""

    def pack_codes(
        self, first_row: int, codes: U8, scales: F32, minimums: F32 | None, pool: ThreadPool
    ) -> None:
        """codes [rows, inputs]; scales and minimums [rows, inputs / group]."""

    def pack_floats(self, first_row: int, rows: U8, pool: ThreadPool) -> None:
        """rows: bytes [rows, inputs * bytes of a value] of the layout's own dtype."""

    def pack_gguf(self, first_row: int, format: str, rows: U8, pool: ThreadPool) -> None:
        """rows: bytes [rows, bytes of a row of blocks]."""

    def in_pairs(self, segment: int, pool: ThreadPool, memory: WeightMemory | None = None) -> PackedWeight:
        """The same weight in pairs of blocks, which products of many rows read faster; `segment` of them to a
        unit of activations."""

    def unpack_rows(self, rows: I64) -> F32:
        """Rows by number as float32 [len(rows), inputs]."""

SCREEN_SAMPLES: int
SCREEN_DIRECTIONS: int

class HeadScreen:
    """A coarse copy of an output head that tells which logits may be a row's greatest."""

    def __init__(self, head: PackedWeight) -> None: ...
    @property
    def num_samples(self) -> int: ...
    def samples(self) -> F32:
        """Inputs of the head seen so far, [at most SCREEN_SAMPLES, inputs]."""

    @property
    def has_directions(self) -> bool: ...
    def set_directions(self, directions: F32, pool: ThreadPool) -> None:
        """Orthonormal rows [SCREEN_DIRECTIONS, inputs] along which inputs are long; ValueError if not."""

    def build(self, num_rows: int, pool: ThreadPool) -> bool:
        """Copy that many more rows; True when none are left."""

    @property
    def ready(self) -> bool: ...
    def switch_on(self, on: bool) -> None: ...
    @property
    def share(self) -> float:
        """Panels that still had to be multiplied exactly, of all: a running mean."""

    @property
    def num_bytes(self) -> int: ...

def quantize_pairs(x: F32, segment: int, isa: str = "", fine: bool = False) -> U8:
    """x [rows, width] -> activation pairs as bytes [rows, ceil(width / 64) * ACTIVATION_PAIR_BYTES]."""

def quantize(x: F32, isa: str = "", fine: bool = False) -> U8:
    """x [rows, width] -> activation blocks as bytes [rows, width / 32 * ACTIVATION_BLOCK_BYTES]."""

def linear(
    weight: PackedWeight,
    x: F32,
    y: F32,
    bias: F32 | None,
    add_to_outputs: bool,
    pool: ThreadPool,
    isa: str = "",
    fine: bool = False,
    reading: WeightReading = ...,
) -> None:
    """y [rows, outputs] = x [rows, inputs] times the weight, plus bias, plus y itself when add_to_outputs.

    reading: how the weight is read; the same bits.
    """

def stream_seconds(
    weights: Sequence[PackedWeight], rows: int, reading: WeightReading, pool: ThreadPool, isa: str = ""
) -> float:
    """Seconds of one pass over all weights with `rows` rows."""

# Choosing tokens (csrc/runtime/sampling.h)

class RowSampler:
    """Threads share the rows; a token is -1 where a logit is NaN or none is above -infinity."""

    def __init__(self, pool: ThreadPool, isa: str) -> None: ...
    def most_likely(self, logits: F32) -> list[int]:
        """The first index of the largest of each row of [R, V]."""

    def choose(self, logits: F32, rows: Sequence[tuple[int, float, float, int, float, float]]) -> list[int]:
        """rows: row of logits [R, V], temperature (0: most likely), ln(min-p), top-k (0: off), top-p, random.

        ValueError for a row that is not there or a number out of range.
        """

def softmax_weights(row: F32, peak: float, isa: str = "") -> I64:
    """round(2^40 * e^(logit - peak)), for tests."""

# Programs (csrc/runtime). Values are numbered from 0; -1 stands for a value that is not there.

I32 = NDArray[np.int32]

class RopeSpec:
    def __init__(
        self, head_dim: int, frequencies: Sequence[float], magnitude: float, interleaved: bool
    ) -> None: ...

class PageReserve(IdleWork):
    """Has the memory made that an arena's next blocks will lie in."""

    @property
    def num_bytes(self) -> int:
        """Made so far, of the arena that the last pass used."""

class Workspace:
    """Memory of the values of one pass at a time; shared by the programs of one executor."""

    def __init__(self) -> None: ...
    @property
    def num_bytes(self) -> int: ...
    @property
    def reserve(self) -> PageReserve: ...

class Program:
    """A plan as a flat list of instructions. Build, finish, then begin and run for every batch."""

    def __init__(self, pool: ThreadPool, workspace: Workspace, isa: str) -> None: ...
    def value(self, width: int, row_set: int) -> int: ...
    def embed(self, y: int, table: PackedWeight, scale: float, by_position: bool) -> None: ...
    def norm(
        self, x: int, y: int, weight: F32 | None, bias: F32 | None, group: int, eps: float, centred: bool
    ) -> None: ...
    def elementwise(
        self, kind: str, a: int, b: int, y: int, number: float = 0.0, activation: str = "silu"
    ) -> None: ...
    def rope(self, x: int, y: int, spec: RopeSpec) -> None: ...
    def quantize(self, x: int, y: int, fine: bool, segment: int = 0) -> None: ...
    def select(self, x: int, y: int) -> None: ...
    def scatter(self, whole: int, part: int, y: int) -> None: ...
    def route(self, x: int, y: int, top_k: int, normalize: bool) -> None: ...
    def linear(
        self,
        x: int,
        blocks: int,
        parts: Sequence[tuple[PackedWeight, F32 | None, int]],
        residual: int,
        fine: bool,
    ) -> None: ...
    def screened_linear(
        self, x: int, blocks: int, weight: PackedWeight, y: int, fine: bool, screen: HeadScreen
    ) -> None: ...
    def gated_linear(
        self,
        x: int,
        blocks: int,
        gate: PackedWeight,
        up: PackedWeight,
        activation: str,
        y: int,
        quantized: int,
        segment: int = 0,
    ) -> None: ...
    def experts(
        self,
        x: int,
        blocks: int,
        routed: int,
        y: int,
        gate: Sequence[PackedWeight],
        up: Sequence[PackedWeight],
        down: Sequence[PackedWeight],
        buffers: Sequence[int],
        activation: str,
        top_k: int,
    ) -> None: ...
    def attend(
        self,
        q: int,
        k: int,
        v: int,
        y: int,
        kv_layer: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        row_set: int,
        scale: float,
        window: int,
        cap: float,
        query_rope: RopeSpec | None,
        key_rope: RopeSpec | None,
        wants_mass: bool,
    ) -> None: ...
    def finish(self, keep: Sequence[int]) -> None: ...
    @property
    def num_instructions(self) -> int: ...
    def describe(self) -> list[tuple[str, bool, bool]]:
        """Per instruction: name, barrier before it with many rows, with few."""
    def begin(
        self,
        tokens: I32,
        positions: I32,
        slots: I32,
        parents: I32,
        span_start: I32,
        context: I32,
        is_tree: I32,
        tables: I32,
        row_sets: Sequence[I32],
        keys: NDArray[np.generic],
        values: NDArray[np.generic],
        only_greatest: bool = False,
    ) -> None:
        """Copies the batch; keeps keys and values alive for the pass. ValueError: an index out of range."""
    def run(self, start: int, end: int) -> None:
        """Instructions start..end on all threads, without the GIL."""
    def feed_back(
        self, passes: int, ends: Sequence[int], rows: Sequence[int], texts: Sequence[I32], repeated: int
    ) -> list[list[int]]:
        """Runs all of a pass over single rows that wants their greatest logits only, and then more over what
        each found, so many passes in all, or until a row finds one of `ends` or none, or the last `repeated`
        tokens of one of `texts`, which `rows` go on with, stand in it earlier. ValueError without a screened
        head, and for rows there are not."""
    def read(self, value: int) -> F32: ...
    def view(self, value: int) -> F32:
        """The value's own memory, [rows, width]; the next pass overwrites it."""
    def write(self, value: int, array: F32) -> None: ...
    def greatest(self) -> list[int] | None:
        """Of each row of logits of a pass that wanted no more: the place of its greatest, -1 where one is NaN
        or none is above -infinity. None if the program has no screened head."""
    def mass(self, index: int) -> F32: ...
    def set_trace(self, on: bool) -> None: ...
    def trace(self) -> I64:
        """[threads, instructions, 2]: nanoseconds of work and of waiting for others, since switched on."""
    def events(self) -> I64:
        """Rows (thread, instruction, start, end, wait) in nanoseconds of a monotonic clock: 2^18 a thread."""

    def set_readings(self, one: WeightReading, few: WeightReading, many: WeightReading) -> None:
        """How products of one row, of 2 to 8, and of more read their weights."""

    def set_share_prefixes(self, on: bool) -> None:
        """Whether attention reads prefixes that spans share once (the default) or for each span."""

    @property
    def saved_chunks(self) -> int:
        """Reads of 256 positions that sharing saves a layer of the present pass."""
