"""How much of the machine a sequence has had: the unit that policies divide."""

from __future__ import annotations

from .protocol import Planned

PROMPT_ROWS = 8.0
"""Prompt rows that take as long as one decode step. Measured here on a 135M model: 3,479 prompt tokens a
second against 552 decoded ones (6.3); a batch of decodes shares its weights and moves it up."""


def prompt_service(rows: int) -> float:
    """Service of prompt rows, in decode steps."""
    return rows / PROMPT_ROWS


def service_of(item: Planned) -> float:
    """Service of one sequence's part of a step. A draft counts as the one step it takes."""
    return 1.0 if item.sequence.is_decoding else prompt_service(item.rows)
