"""What lowering takes and gives: what an executor's programs share, and a program with its places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .._native import Program, ThreadPool, Workspace
from ..quant.tensor import Weight
from .native_screen import Screening
from .native_weights import NativeWeights


@dataclass(frozen=True)
class TapSource:
    """Where a tap's data is after original step `step` ran: a value, or a mass by its number."""

    step: int
    name: str
    value: int = -1
    mass: int = -1


@dataclass(frozen=True)
class CompiledPlan:
    """`ends`: cut (step of the original plan) -> instructions before it. `values`: original value ->
    program value. `row_sets`: names of sets 1, 2, ... `layers`: of every instruction. `has_head`: the program
    finds the greatest logits by itself."""

    program: Program
    ends: Mapping[int, int]
    values: Mapping[int, int]
    taps: tuple[TapSource, ...]
    row_sets: tuple[str, ...]
    layers: tuple[int, ...]
    has_head: bool


@dataclass(frozen=True)
class Target:
    """What programs of one executor share."""

    pool: ThreadPool
    workspace: Workspace
    isa: str
    packed: NativeWeights
    weights: Mapping[str, Weight]
    screening: Screening
