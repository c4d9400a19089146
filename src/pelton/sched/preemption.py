"""What happens to the KV of a sequence that has to give its blocks away."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from .sequence import Sequence


class Preemption(Protocol):
    """Takes blocks away and brings their content back. The text is the same bits either way."""

    def out(self, sequence: Sequence) -> None:
        """Free a sequence's blocks; it waits from now on."""

    def keeps(self, sequence: Sequence) -> bool:
        """Whether `out` would save the content of its blocks, with room to spare for others."""

    def back(self, sequence: Sequence) -> None:
        """A sequence runs again and its blocks are set aside: restore what was kept of it."""

    def forget(self, sequence: Sequence) -> None:
        """A sequence is over."""

    def anticipate(self, sequences: Iterable[Sequence]) -> None:
        """These are likely to be preempted next, the likeliest first: work may begin beside the step."""

    def settle(self) -> None:
        """The step is over: wait for what was begun beside it."""


class Recompute:
    """Keeps nothing: the tokens stay and their KV is computed again. Promise: exact = True (law 2)."""

    exact = True

    def out(self, sequence: Sequence) -> None:
        sequence.preempt()

    def keeps(self, sequence: Sequence) -> bool:
        return False

    def back(self, sequence: Sequence) -> None:
        pass

    def forget(self, sequence: Sequence) -> None:
        pass

    def anticipate(self, sequences: Iterable[Sequence]) -> None:
        pass

    def settle(self) -> None:
        pass
