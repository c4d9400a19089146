"""Which drafted tokens to accept, given the logits of every drafted row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from .request import DecodeRequest
from .sampler import Outcome, Sampler, outcome_of


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a draft came to: `path` are the span's rows whose tokens are taken, root excluded.

    `outcomes` has one entry more than `path`: the tokens of the path, then the token that follows
    them, which no row of the draft has computed yet. Only the last can be an error. Finish rules
    are the caller's: it takes outcomes in order and stops where the request ends.
    """

    path: tuple[int, ...]
    outcomes: tuple[Outcome, ...]


class Verifier(Protocol):
    """Decides what to accept of a draft.

    `exact` tells whether the text is the one plain decoding would give. The span's row 0 is the
    last committed token, the other rows are drafted; `parents[i] < i` is row i's parent in the span
    (`parents[0]` is not read), None means a chain: the layout of `types.Span`.
    """

    @property
    def exact(self) -> bool: ...

    def verify(
        self,
        logits: NDArray[np.float32],
        tokens: Sequence[int],
        parents: Sequence[int] | None,
        request: DecodeRequest,
    ) -> Accepted:
        """`logits` [rows, V] of all the span's rows; `request.history` is as it was on return."""
        ...


@dataclass(frozen=True, slots=True)
class CoupledVerifier:
    """Samples as if there were no draft, and goes on as long as the draft guessed the sample.

    Draft and plain decoding share the random number of each position, so the text is the same with
    any draft, at any temperature. This is the drafter-invariant coupling of Daliri, Musco, Suresh,
    "Coupling without Communication and Drafter-Invariant Speculative Decoding", 2024 (arXiv
    2408.07978), in its simplest form: the drafter's own randomness is never looked at.
    """

    sampler: Sampler

    @property
    def exact(self) -> bool:
        return True

    def verify(
        self,
        logits: NDArray[np.float32],
        tokens: Sequence[int],
        parents: Sequence[int] | None,
        request: DecodeRequest,
    ) -> Accepted:
        """Walk from the root, seeing the history of the path; O(rows) plus one sample a path row."""
        history = request.history
        num_outputs = history.num_outputs

        def sample(row: int) -> Outcome:
            if row > 0:  # the walk has come past its token
                history.push(int(tokens[row]))
            return self.sampler.sample_row(logits[row], request)

        try:
            return _walk(tokens, parents, sample)
        finally:
            history.rollback(num_outputs)


def follow_greatest(
    greatest: Sequence[int], tokens: Sequence[int], parents: Sequence[int] | None
) -> Accepted:
    """What an exact verifier accepts for a request that wants the most likely token of each row, of which
    `greatest` [rows] says the place (-1: the logits are not finite)."""
    return _walk(tokens, parents, lambda row: outcome_of(greatest[row]))


def _walk(tokens: Sequence[int], parents: Sequence[int] | None, choose: Callable[[int], Outcome]) -> Accepted:
    """From the root to whichever child has the token that was chosen after its parent."""
    children = _children(tokens, parents)
    path: list[int] = []
    outcomes: list[Outcome] = []
    row: int | None = 0
    while row is not None:
        outcome = choose(row)
        outcomes.append(outcome)
        if isinstance(outcome, RequestError):
            break
        row = children.get((row, outcome.token))
        if row is not None:
            path.append(row)
    return Accepted(tuple(path), tuple(outcomes))


def _children(tokens: Sequence[int], parents: Sequence[int] | None) -> dict[tuple[int, int], int]:
    """(parent row, token) -> row; of siblings with equal tokens the first."""
    rows = range(len(tokens) - 1, 0, -1)
    if parents is None:
        return {(row - 1, int(tokens[row])): row for row in rows}
    assert len(parents) == len(tokens)
    assert all(0 <= parents[row] < row for row in rows)
    return {(int(parents[row]), int(tokens[row])): row for row in rows}
