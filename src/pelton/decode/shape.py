"""How a row is chosen from when only temperature, min-p, top-k and top-p shape it: four numbers.

The commonest requests are of this kind, and a native kernel chooses for many such rows in one call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .min_p import MinP
from .processor import Processor
from .temperature import Temperature
from .top_k import TopK
from .top_p import TopP

RowToChoose = tuple[int, float, float, int, float, float]
"""Row of the logits, the four numbers of its Shape, its random number in [0, 1)."""


@dataclass(frozen=True, slots=True)
class Shape:
    """`temperature` 0 takes the most likely token. `log_min_p` -infinity, `top_k` 0 and `top_p` 1 are off."""

    temperature: float = 1.0
    log_min_p: float = -math.inf
    top_k: int = 0
    top_p: float = 1.0


GREEDY = Shape(temperature=0.0)


class RowChooser(Protocol):
    """Chooses tokens natively: the same as decode.sampler, bit for bit; -1 where it finds none."""

    def most_likely(self, logits: NDArray[np.float32]) -> list[int]:
        """The most likely token of each row of `logits` [R, V]."""

    def choose(self, logits: NDArray[np.float32], rows: Sequence[RowToChoose]) -> list[int]:
        """One token for each of `rows`."""


_ORDER = (Temperature, MinP, TopK, TopP)
"""The order in which a native kernel applies them, and decode.pipeline too."""


def shape_of(processors: Sequence[Processor], greedy: bool) -> Shape | None:
    """The shape that `processors` come to; None if one of them does something else."""
    if greedy:
        return None if processors else GREEDY
    if [type(processor) for processor in processors] != [
        kind for kind in _ORDER if any(type(processor) is kind for processor in processors)
    ]:
        return None
    shape = Shape()
    for processor in processors:
        shape = _with(shape, processor)
    return shape


def _with(shape: Shape, processor: Processor) -> Shape:
    if isinstance(processor, Temperature):
        return replace(shape, temperature=processor.temperature)
    if isinstance(processor, MinP):
        return replace(shape, log_min_p=math.log(processor.ratio))
    if isinstance(processor, TopK):
        return replace(shape, top_k=processor.k)
    assert isinstance(processor, TopP)
    return replace(shape, top_p=processor.p)
