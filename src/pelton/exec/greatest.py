"""Where the greatest logits are: the definition, which native code follows to the bit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def places_of_greatest(logits: NDArray[np.float32]) -> list[int]:
    """The first index of the greatest of each row of `logits` [R, V], -1 where one is NaN or none is above
    -infinity."""
    places = logits.argmax(axis=1)
    # argmax stops at the first NaN, so looking at the winner tells NaN and all -infinity
    values = np.take_along_axis(logits, places[:, None], axis=1)[:, 0]
    found: list[int] = np.where(values > -np.inf, places, -1).tolist()
    return found
