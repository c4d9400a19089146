"""Hidden states of prompts: what the model's head reads at a prompt's last token, kept while a step runs."""

from __future__ import annotations

from collections.abc import Sequence as Seq

from .exec.protocol import Forward
from .plan import Plan
from .sched.sequence import Sequence
from .types import ALL_ROWS, Batch

Asking = Seq[tuple[Sequence, int]]
"""Sequences, and which of the step's rows of logits belongs to the last token of each one's prompt."""


def keep_hidden_states(forward: Forward, plan: Plan, batch: Batch, asking: Asking) -> None:
    """Advance to the head and copy the rows it reads, [width] each, to the sequences that ask.

    Cutting a pass there changes no number in it, so neither the state nor any text depends on who else
    is in the batch.
    """
    step, value = plan.head
    forward.advance(step)
    states = forward.read(value)
    if plan.shapes[value].rows == ALL_ROWS:
        states = states[batch.outputs]
    for sequence, row in asking:
        sequence.hidden_state = tuple(states[row].tolist())
