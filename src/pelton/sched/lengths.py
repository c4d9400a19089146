"""How long an answer will be: learnt from the answers that have ended, one by one."""

from __future__ import annotations

from collections import OrderedDict
from math import exp, log, log2

import numpy as np
from numpy.typing import NDArray

from ..types import I32
from .sequence import Sequence

EDGES: tuple[int, ...] = tuple(2**power for power in range(2, 15))
"""Answers are told apart by which of these lengths they exceed."""
WEIGHTS = 1 << 13
_MOST_PROMPT = 512
_MOST_LABELS = 4096
_RATE = 0.35
_TYPICAL = 200.0
"""Mean answer assumed before any was seen, in tokens."""
_PRIMES = np.array([73_856_093, 19_349_663], dtype=np.int64)

Features = NDArray[np.int64]  # [features] indices of weights, distinct


class LengthPredictor:
    """One logistic regression for each edge, on hashed features, trained by AdaGrad as answers end.

    The cheap features know the request's own fields: its prompt's length, its limit, its tenant and
    program and how long their last answers were. The costly ones add the prompt: its first and last
    tokens by place, pairs of last tokens, and which tokens it holds (up to 512). No weights are shipped:
    before the first answer ends everyone gets the same prediction.
    """

    def __init__(self, *, costly: bool) -> None:
        self._costly = costly
        self._prior = np.array([_logit(exp(-edge / _TYPICAL)) for edge in EDGES])
        self._weights = np.zeros((WEIGHTS, len(EDGES)))
        self._squares = np.full((WEIGHTS, len(EDGES)), 1e-2)
        self._recent: OrderedDict[tuple[str, str], float] = OrderedDict()  # mean log2 of answers' lengths

    def features(self, sequence: Sequence) -> Features:
        """What the prediction looks at, taken when a sequence arrives. One to twenty microseconds a call."""
        found = [0, *self._labels(sequence)]
        if self._costly:
            return np.concatenate([np.array(found, dtype=np.int64), _of_prompt(sequence.tokens)])
        return np.array(found, dtype=np.int64)

    def expected(self, features: Features, most: int, so_far: int = 0) -> float:
        """Mean length of an answer that is longer than `so_far` and at most `most` tokens."""
        bounds, above = self._survival(features, most, so_far)
        return so_far + float((np.diff(bounds) * (above[:-1] + above[1:]) / 2).sum())

    def quantile(self, features: Features, share: float, most: int, so_far: int = 0) -> int:
        """The length that an answer longer than `so_far` does not exceed in `share` of the cases."""
        bounds, above = self._survival(features, most, so_far)
        return int(np.ceil(np.interp(share, 1.0 - above, bounds)))

    def exceeds(self, features: Features, length: int) -> float:
        """Probability that an answer is longer than one of EDGES."""
        return float(self._probabilities(features)[EDGES.index(length)])

    def learn(self, sequence: Sequence, features: Features, length: int) -> None:
        """An answer ended after `length` tokens."""
        wrong = self._probabilities(features) - (np.array(EDGES) < length)
        gradient = wrong / np.sqrt(len(features))
        squares = self._squares[features] + gradient**2
        self._squares[features] = squares
        self._weights[features] -= _RATE * gradient / np.sqrt(squares)
        self._remember(sequence, length)

    def _probabilities(self, features: Features) -> NDArray[np.float64]:
        """P(length > edge) [edges], never rising."""
        scores = self._prior + self._weights[features].sum(axis=0) / np.sqrt(len(features))
        return np.minimum.accumulate(1.0 / (1.0 + np.exp(-np.clip(scores, -30, 30))))

    def _survival(
        self, features: Features, most: int, so_far: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lengths from `so_far` to `most` [n] and P(longer | longer than so_far) at each: 1 to 0."""
        most = max(most, so_far + 1)
        edges = np.array([0, *EDGES], dtype=np.float64)
        above = np.concatenate([[1.0], self._probabilities(features)])
        start = max(float(np.interp(so_far, edges, above)), 1e-6)
        inside = (edges > so_far) & (edges < most)
        bounds = np.concatenate([[so_far], edges[inside], [most]])
        return bounds, np.concatenate([[1.0], np.minimum(above[inside] / start, 1.0), [0.0]])

    def _labels(self, sequence: Sequence) -> list[int]:
        terms = sequence.terms
        limit = sequence.rules.max_tokens
        found = [_index(1, int(2 * log2(sequence.num_prompt + 1))), _index(2, int(2 * log2(limit + 1)))]
        for kind, label in ((3, terms.tenant), (4, terms.program)):
            if label:
                recent = self._recent.get((str(kind), label))
                found.append(_index(kind, hash_of(label)))
                found.append(_index(kind + 2, 0 if recent is None else 1 + int(2 * recent)))
        return list(dict.fromkeys(found))

    def _remember(self, sequence: Sequence, length: int) -> None:
        value = log2(length + 1)
        for kind, label in (("3", sequence.terms.tenant), ("4", sequence.terms.program)):
            if label:
                old = self._recent.get((kind, label), value)
                self._recent[kind, label] = 0.7 * old + 0.3 * value
                self._recent.move_to_end((kind, label))
                if len(self._recent) > _MOST_LABELS:
                    self._recent.popitem(last=False)


def hash_of(text: str) -> int:
    """A hash that is the same in every process."""
    value = 2_166_136_261
    for byte in text.encode():
        value = (value ^ byte) * 16_777_619 & 0xFFFFFFFF
    return value


def _index(kind: int, value: int) -> int:
    mixed = (kind * 0x9E3779B1 + value * 0x85EBCA6B) & 0xFFFFFFFF
    return 1 + (mixed ^ mixed >> 15) % (WEIGHTS - 1)


def _of_prompt(tokens: I32) -> Features:
    """First and last tokens by place, pairs of last tokens, the set of tokens; indices in the upper part."""
    ids = tokens[-_MOST_PROMPT:].astype(np.int64)
    first, last = tokens[:6].astype(np.int64), ids[-12:]
    placed = np.concatenate(
        [first * 31 + np.arange(len(first)), last * 31 + 16 + np.arange(len(last), 0, -1)]
    )
    pairs = last[:-1] * _PRIMES[0] + last[1:] * _PRIMES[1]
    keys = np.concatenate([placed * 4, pairs * 4 + 1, ids * 4 + 2])
    mixed = (keys * 2_654_435_761) & 0xFFFFFFFF
    return np.unique(1 + (mixed ^ (mixed >> 13)) % (WEIGHTS - 1))


def _logit(probability: float) -> float:
    kept = min(max(probability, 1e-6), 1 - 1e-6)
    return log(kept / (1 - kept))
