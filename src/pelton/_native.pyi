"""The C++ core. Arrays are never converted: a wrong dtype, rank or layout is a TypeError.

`isa` names an instruction-set level ("generic", "avx2", "avx512"); "" means PELTON_ISA or else the fastest
one. A level this machine lacks raises ConfigError; sizes that do not fit together raise ValueError.
"""

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

class ThreadPool:
    """`num_threads` (1..1024) threads, the caller among them. Not usable in a child after fork()."""

    def __init__(self, num_threads: int) -> None: ...
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
def vector_to_f16(x: F32, isa: str = "") -> U16: ...
def vector_to_bf16(x: F32, isa: str = "") -> U16: ...
def vector_from_f16(x: U16, isa: str = "") -> F32: ...
def vector_reduce(x: F32, isa: str = "") -> tuple[float, float]: ...

# Matrix products (csrc/kernels/linear.h)

ACTIVATION_BLOCK_BYTES: int

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

def reads_gguf(format: str) -> bool: ...

class PackedWeight:
    """A weight [outputs, inputs] as the kernels stream it; zero until packed."""

    def __init__(self, outputs: int, inputs: int, layout: WeightLayout) -> None: ...
    @property
    def outputs(self) -> int: ...
    @property
    def inputs(self) -> int: ...
    @property
    def num_bytes(self) -> int: ...
    def pack_codes(
        self, first_row: int, codes: U8, scales: F32, minimums: F32 | None, pool: ThreadPool
    ) -> None:
        """codes [rows, inputs]; scales and minimums [rows, inputs / group]."""

    def pack_floats(self, first_row: int, rows: U8, pool: ThreadPool) -> None:
        """rows: bytes [rows, inputs * bytes of a value] of the layout's own dtype."""

    def pack_gguf(self, first_row: int, format: str, rows: U8, pool: ThreadPool) -> None:
        """rows: bytes [rows, bytes of a row of blocks]."""

    def unpack_rows(self, rows: I64) -> F32:
        """Rows by number as float32 [len(rows), inputs]."""

def quantize(x: F32, isa: str = "") -> U8:
    """x [rows, width] -> activation blocks as bytes [rows, width / 32 * ACTIVATION_BLOCK_BYTES]."""

def linear(
    weight: PackedWeight,
    x: F32,
    y: F32,
    bias: F32 | None,
    add_to_outputs: bool,
    pool: ThreadPool,
    isa: str = "",
) -> None:
    """y [rows, outputs] = x [rows, inputs] times the weight, plus bias, plus y itself when add_to_outputs."""
