"""Drafts copied from earlier in a text: which earlier place, and how far."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pelton.errors import ConfigError
from pelton.spec.ngram import NgramDrafter

TEXTS = st.lists(st.integers(0, 3), max_size=60)


def draft(text: list[int], most: int = 8, **options: int) -> list[int] | None:
    found = NgramDrafter(**options).propose(np.array(text, dtype=np.int32), most)
    return None if found is None else list(found.tokens)


def agreement(text: list[int], end: int, longest: int) -> int:
    """How many tokens before `end` are those at the end of the text."""
    count = 0
    while count < min(longest, end) and text[end - 1 - count] == text[-1 - count]:
        count += 1
    return count


@given(text=TEXTS, most=st.integers(1, 20), shortest=st.integers(1, 3), longest=st.integers(3, 6))
def test_the_newest_of_the_places_that_agree_most_is_copied(
    text: list[int], most: int, shortest: int, longest: int
) -> None:
    agreeing = [agreement(text, end, longest) for end in range(len(text))]
    best = max(agreeing, default=0)
    found = draft(text, most, shortest=shortest, longest=longest, length=64)
    if best < shortest:
        assert found is None
        return
    start = max(end for end in range(len(text)) if agreeing[end] == best)
    going_on = list(text)
    while len(going_on) < len(text) + most:  # a circle goes on beyond the end
        going_on.append(going_on[start + len(going_on) - len(text)])
    assert found == going_on[len(text) :]


@pytest.mark.parametrize("text", [[], [1], [1, 2], [1, 2, 3, 4, 5]])
def test_a_text_that_repeats_nothing_is_not_drafted(text: list[int]) -> None:
    assert draft(text) is None


def test_a_circle_is_drafted_beyond_its_end() -> None:
    assert draft([9, 1, 2, 1, 2], most=5) == [1, 2, 1, 2, 1]


def test_a_draft_is_no_longer_than_it_may_be() -> None:
    text = [1, 2, 3, 4, 5, 6, 1, 2]
    assert draft(text, most=3) == [3, 4, 5]
    assert draft(text, length=2) == [3, 4]
    assert draft(text, most=0) is None


@pytest.mark.parametrize(("shortest", "longest"), [(0, 4), (3, 2)])
def test_lengths_that_make_no_sense_are_refused(shortest: int, longest: int) -> None:
    with pytest.raises(ConfigError, match="shortest"):
        NgramDrafter(shortest=shortest, longest=longest)
