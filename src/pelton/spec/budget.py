"""How much to guess: the more of a draft is likely to be right, and the less a row costs, the longer."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Protocol

from .draft import MOST_DRAFTED

_KEPT = 0.95
"""What a draft counts for one draft later: the last twenty or so tell how repetitive a text is now."""
_RESTED = 0.97
_RIGHT, _WRONG = 1.0, 1.0  # what is believed of a text that nothing is known of
_LONGEST = 16
"""Simulated on 40 ShareGPT chats (SmolLM2-135M, greedy): 2.76 times plain decoding, 2.66 with 8 at most."""
_GAIN = 1.5
"""What a row among others has to bring: a wrong one holds them all up, and where requests end together those
that draft well only leave the rest alone (8 ShareGPT prompts of 96 tokens: 0.9 of the speed with 1)."""


_MOST_ROWS = 64
"""Drafted in one step: others want rows, too."""
_PROBE = 64
"""Times without a draft after which one token is tried: a text may have begun to repeat itself, and what rows
cost is learnt from steps of several sizes alone."""
_WARM = 8  # steps from whose quickest the scale of all others is taken: the first ones touch new memory
_STALL = 4.0
"""Times the expected time: what is beyond says something about the machine's neighbours, not about rows."""
_FLATTEST = 64.0  # rows that cost as much as what every step costs: no processor multiplies so much faster


@dataclass(slots=True)
class Acceptance:
    """How well a sequence's drafts did lately: tokens that were right, drafts that ended at a wrong one, and
    how often there was nothing to be drafted since the last."""

    right: float = 0.0
    wrong: float = 0.0
    rests: int = 0

    @property
    def rate(self) -> float:
        """The probability that a drafted token is right, given that those before it are."""
        right = self.right + _RIGHT
        return right / (right + self.wrong + _WRONG)

    def saw(self, drafted: int, accepted: int) -> None:
        """Learn from a draft of so many tokens, of which the first `accepted` were right."""
        self.right = _KEPT * self.right + accepted
        self.wrong = _KEPT * self.wrong + (accepted < drafted)
        self.rests = 0

    def rested(self) -> None:
        """Nothing was to be drafted: what was seen counts for less."""
        self.right *= _RESTED
        self.wrong *= _RESTED
        self.rests += 1


class DraftBudget(Protocol):
    """Says how many tokens may be drafted. Costs time or saves it, and never changes a text."""

    def most(self, seen: Acceptance, sequences: int) -> int:
        """Tokens to draft for a sequence in a step of so many; 0: none."""

    def observe(self, rows: int, seconds: float) -> None:
        """What a step of so many rows took."""


@dataclass(frozen=True)
class FixedBudget:
    """As much as the drafter likes."""

    length: int = MOST_DRAFTED

    def most(self, seen: Acceptance, sequences: int) -> int:
        return self.length

    def observe(self, rows: int, seconds: float) -> None:
        pass


class StepCosts(Protocol):
    """What steps cost here, fixed + row * rows, learnt while running."""

    fixed: float
    row: float

    def seconds(self, rows: int) -> float: ...

    def observe(self, rows: int, seconds: float) -> None: ...


@dataclass
class GoodputBudget:
    """As long as one more token is likely to bring more tokens a second than there are without it.

    "Optimizing Speculative Decoding for Serving Large Language Models Using Goodput" (SmartSpec): a step
    model and running acceptance rates give the expected tokens a second of each length. Here every sequence
    goes by its own rate, and is taken for the only one of its step that drafts; in a step of many, where a
    row costs a token's time, little is drafted.

    `costs` begins with what is believed of any model, 1 + 0.1 * rows, and learns in units of its quickest
    steps. Promise: exact = True; what is not accepted is soon no longer drafted.
    """

    costs: StepCosts
    longest: int = _LONGEST
    exact: bool = field(default=True, init=False)
    _unit: float = field(default=inf, init=False)  # seconds
    _steps: int = field(default=0, init=False)

    def most(self, seen: Acceptance, sequences: int) -> int:
        fixed = self.costs.fixed
        rate, row = seen.rate, max(self.costs.row, fixed / _FLATTEST)
        gain, longest = _GAIN if sequences > 1 else 1.0, min(self.longest, _MOST_ROWS // sequences)
        tokens, cost = float(sequences), fixed + row * sequences
        length, likely = 0, rate  # that all tokens up to the next are right
        while length < longest and likely * cost > gain * row * tokens:
            tokens += likely
            cost += row
            likely *= rate
            length += 1
        return max(length, int(seen.rests >= _PROBE))

    def observe(self, rows: int, seconds: float) -> None:
        if rows > 2 * _MOST_ROWS:  # a row of a long step costs another time
            return
        self._steps += 1
        if self._steps <= _WARM:
            self._unit = min(self._unit, seconds / self.costs.seconds(rows))
        elif self._unit > 0:
            self.costs.observe(rows, min(seconds / self._unit, _STALL * self.costs.seconds(rows)))
