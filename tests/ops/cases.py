"""The table of operation cases: one operation, its weights, and how far rounding may carry a result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pelton.plan import PlanBuilder, Value
from pelton.plan.ops import (
    Activate,
    Activation,
    Add,
    Attend,
    Embed,
    Experts,
    GatedLinear,
    LayerNorm,
    Linear,
    LinearAdd,
    LinearGroup,
    Mul,
    RMSNorm,
    Rope,
    Route,
    Scale,
    SoftCap,
)
from pelton.quant import FORMATS

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
EPS = float(np.finfo(np.float32).eps)

Bound = Callable[[Sequence[F64], Mapping[str, F64]], "F64 | float"]
"""(inputs, dequantized weights) -> the largest allowed distance, a number or [rows, width]."""


@dataclass(frozen=True)
class Case:
    """`inputs` are the widths of the operation's inputs; `weights` its weights' shapes and formats."""

    name: str
    op: object
    bound: Bound
    inputs: tuple[int, ...]
    weights: Mapping[str, tuple[tuple[int, ...], str]] = field(default_factory=dict)
    context: int = 0
    kv: tuple[int, int] = (1, 4)  # heads, head dimension

    def __str__(self) -> str:
        return self.name

    def build(self, builder: PlanBuilder) -> Value:
        values = [builder.embed(f"input.{i}") for i in range(len(self.inputs))]
        return builder.apply(self.op, *values)[0]  # type: ignore[arg-type]


def product_error(x: F64, weight: F64, number_format: str) -> F64:
    """Of x @ weight.T: float32 sums; x rounded to bfloat16 or, in blocks, to steps of which
    113 or more make their largest."""
    # Rounding errors of sums go with the root of their length; twice that, and a few for the scales.
    error = (2 * weight.shape[1] ** 0.5 + 8) * EPS * (np.abs(x) @ np.abs(weight).T)
    if number_format == "BF16":  # 8 bits of significand on the level avx512_bf16
        error += 2.0**-8 * np.abs(x) @ np.abs(weight).T
    if FORMATS[number_format].panel is not None:
        blocks = np.abs(x).reshape(len(x), -1, 32)
        step = np.repeat(blocks.max(axis=2) / (127 / 1.125), 32, axis=1)
        error += 0.501 * step @ np.abs(weight).T
    return np.asarray(error)


def linear_case(outputs: int, inputs: int, number_format: str, bias: bool = False) -> Case:
    weights: dict[str, tuple[tuple[int, ...], str]] = {"w": ((outputs, inputs), number_format)}
    if bias:
        weights["b"] = ((outputs,), "F32")

    def bound(x: Sequence[F64], w: Mapping[str, F64]) -> F64:
        return product_error(x[0], w["w"], number_format) + 4 * EPS * (np.abs(w["b"]) if bias else 0)

    name = f"linear {outputs}x{inputs} {number_format}{' bias' if bias else ''}"
    return Case(name, Linear("w", "b" if bias else None), bound, (inputs,), weights)


def gated_error(x: F64, gate: F64, up: F64, number_format: str) -> tuple[F64, F64]:
    """Of activation(x @ gate.T) * (x @ up.T), and how large it can be."""
    # No activation here is steeper than 1.13 or larger than its input.
    gate_error, up_error = (product_error(x, weight, number_format) for weight in (gate, up))
    size, up_size = np.abs(x @ gate.T) + gate_error, np.abs(x @ up.T) + up_error
    error = 1.13 * gate_error * up_size + size * (up_error + 8 * EPS * up_size)
    return np.asarray(error), np.asarray(size * up_size)


def gated_case(outputs: int, inputs: int, number_format: str, activation: Activation) -> Case:
    def bound(x: Sequence[F64], w: Mapping[str, F64]) -> F64:
        return gated_error(x[0], w["gate"], w["up"], number_format)[0]

    weights = dict.fromkeys(("gate", "up"), ((outputs, inputs), number_format))
    op = GatedLinear("gate", "up", activation)
    return Case(f"gated {outputs}x{inputs} {number_format} {activation.value}", op, bound, (inputs,), weights)


def residual_case(number_format: str) -> Case:
    def bound(x: Sequence[F64], w: Mapping[str, F64]) -> F64:
        return product_error(x[1], w["w"], number_format) + 4 * EPS * np.abs(x[0])

    weights = {"w": ((64, 96), number_format)}
    return Case(f"linear_add {number_format}", LinearAdd("w"), bound, (64, 96), weights)


def group_case(number_format: str, other: str) -> Case:
    """Only the first output is compared here; the model tests read all."""

    def bound(x: Sequence[F64], w: Mapping[str, F64]) -> F64:
        return product_error(x[0], w["w"], number_format)

    weights = {"w": ((48, 64), number_format), "v": ((17, 64), other)}
    op = LinearGroup((Linear("w"), Linear("v")))
    return Case(f"linear_group {number_format} {other}", op, bound, (64,), weights)


def _linears() -> list[Case]:
    cases = [linear_case(40, 256, name) for name in FORMATS]
    cases += [linear_case(outputs, 32, "Q4_1", bias=True) for outputs in (1, 15, 16, 17, 64)]
    cases += [linear_case(33, inputs, "F32", bias=True) for inputs in (1, 3, 31, 65)]
    cases += [linear_case(7, inputs, "BF16") for inputs in (5, 64)]
    cases += [residual_case("F32"), residual_case("Q8_0")]
    cases += [group_case("F32", "Q8_0"), group_case("Q8_0", "F32")]
    cases += [gated_case(96, 64, "Q4_0", Activation.SILU), gated_case(50, 33, "F16", Activation.GELU_TANH)]
    return [*cases, gated_case(160, 32, "Q8_0", Activation.GELU_ERF)]


def activation_case(kind: Activation) -> Case:
    slack = 2e-7 if kind is Activation.GELU_ERF else 0.0  # the stated error of erf, halved

    def bound(x: Sequence[F64], w: Mapping[str, F64]) -> F64:
        return np.asarray((12 * EPS + slack) * np.abs(x[0]) + 1e-12)

    return Case(kind.value, Activate(kind), bound, (45,))


def _elementwise() -> list[Case]:
    cases = [
        Case("add", Add(), lambda x, w: 0.0, (37, 37)),
        Case("mul", Mul(), lambda x, w: 0.0, (37, 37)),
        Case("scale", Scale(0.37), lambda x, w: 0.0, (16,)),
        Case("soft_cap", SoftCap(3.0), lambda x, w: 6 * EPS * np.minimum(np.abs(x[0]), 3.0), (50,)),
    ]
    return [*cases, *(activation_case(kind) for kind in Activation)]


def _norm_bound(x: Sequence[F64], w: Mapping[str, F64]) -> F64:
    # A result is at most 10 (the root of the largest group); its sums add at most 7 in a lane, then 4 times.
    largest = float(np.abs(w["w"]).max()) if "w" in w else 1.0
    return np.full((1, 1), 10.0 * (11 + 8) * EPS * max(largest, 1.0))


def _norms() -> list[Case]:
    cases = []
    for kind in (RMSNorm, LayerNorm):
        for width, group, own in ((64, 0, 64), (100, 0, 100), (60, 20, 20), (64, 16, 64)):
            weights = {"w": ((own,), "F32")}
            name = f"{kind.kind} {width} by {group}"
            cases.append(Case(name, kind("w", 1e-5, group), _norm_bound, (width,), weights))
        cases.append(Case(f"{kind.kind} bare", kind(None, 1e-6), _norm_bound, (33,)))
        weights = {"w": ((16,), "F32"), "b": ((64,), "F32")}
        cases.append(Case(f"{kind.kind} bias", kind("w", 1e-5, 16, "b"), _norm_bound, (64,), weights))
    return cases


def _ropes() -> list[Case]:
    cases = []
    for dim, half, interleaved in (
        (64, 32, True),
        (64, 32, False),
        (20, 10, False),
        (32, 5, True),
        (32, 5, False),
    ):
        frequencies = tuple(float(1000.0 ** (-i / half)) for i in range(half))

        def bound(x: Sequence[F64], w: Mapping[str, F64]) -> float:
            # The definition rounds angles of up to 2,040 radians to float32; the native table does not.
            return float(np.abs(x[0]).max()) * 3 * (2040 * EPS + 4 * EPS)

        op = Rope(dim, frequencies, 1.2, interleaved)
        cases.append(Case(f"rope {dim} of {2 * half} {interleaved}", op, bound, (3 * dim,), context=2000))
    return cases


def attend_case(heads: int, kv_heads: int, dim: int, window: int = 0, cap: float = 0.0) -> Case:
    def bound(x: Sequence[F64], w: Mapping[str, F64]) -> float:
        q, k = (np.linalg.norm(array.reshape(-1, dim), axis=1).max() for array in x[:2])
        # A score is off by its products' rounding, a weight by that exponent, an output by twice a weight.
        return float(4 * np.abs(x[2]).max() * (2 * q * k * dim**-0.5 * EPS + 16 * EPS))

    widths = (heads * dim, kv_heads * dim, kv_heads * dim)
    op = Attend(0, heads, kv_heads, dim, dim**-0.5, window, cap)
    return Case(f"attend {heads}/{kv_heads}x{dim} {window} {cap}", op, bound, widths, kv=(kv_heads, dim))


def _attends() -> list[Case]:
    shapes = [(1, 1, 4), (2, 2, 16), (6, 3, 20), (9, 3, 64), (8, 1, 80), (4, 4, 128), (30, 1, 8), (14, 2, 33)]
    cases = [attend_case(*shape) for shape in shapes]
    return [*cases, attend_case(3, 1, 16, 1), attend_case(3, 1, 16, 9), attend_case(4, 2, 32, 0, 2.0)]


def _experts() -> list[Case]:
    cases = [
        Case(f"route {n} {k} {norm}", Route(k, norm), lambda x, w: 40 * EPS, (n,))
        for n, k, norm in ((4, 2, True), (17, 3, False), (64, 8, True), (5, 5, True))
    ]

    cases += [expert_case("F32"), expert_case("Q8_0")]
    return cases


def expert_case(number_format: str) -> Case:
    def bound(x: Sequence[F64], w: Mapping[str, F64]) -> F64:
        total = np.zeros_like(x[0])
        for expert, share in enumerate(x[1].T):
            down = w["down"][expert]
            error, size = gated_error(x[0], w["gate"][expert], w["up"][expert], number_format)
            total += share[:, None] * (product_error(size, down, number_format) + error @ np.abs(down).T)
        return total

    weights = dict.fromkeys(("gate", "up"), ((6, 64, 32), number_format)) | {
        "down": ((6, 32, 64), number_format)
    }
    op = Experts("gate", "up", "down", Activation.SILU, 2, 64)
    return Case(f"experts {number_format}", op, bound, (32, 6), weights)


def _embeds() -> list[Case]:
    return [
        Case(
            f"embed {name}",
            Embed("w", 0.5),
            lambda x, w: EPS * float(np.abs(w["w"]).max()),
            (),
            {"w": ((40, 256), name)},
        )
        for name in FORMATS
    ]


CASES = [*_linears(), *_elementwise(), *_norms(), *_ropes(), *_attends(), *_experts(), *_embeds()]
