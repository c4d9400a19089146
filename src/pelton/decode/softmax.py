"""Softmax in float64 from float32 logits, over one row at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .processor import REFUSED, Logits


def candidates(logits: Logits) -> NDArray[np.intp] | None:
    """Token ids that are not refused, ascending; None if none is refused, which spares a gather."""
    open_tokens = logits > REFUSED
    return None if bool(open_tokens.all()) else np.flatnonzero(open_tokens)


def softmax_weights(logits: Logits, peak: float) -> NDArray[np.float64]:
    """Probabilities of `logits` [C] up to one factor: a logit equal to `peak`, the row's largest, has 1.

    Logits of +infinity share all the weight, the limit of letting them grow together.
    """
    if peak == np.inf:
        shared: NDArray[np.float64] = (logits == np.float32(np.inf)).astype(np.float64)
        return shared
    shifted: NDArray[np.float64] = logits.astype(np.float64)
    shifted -= peak
    np.exp(shifted, out=shifted)
    return shifted
