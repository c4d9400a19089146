"""Stop strings against the plainest search, for any stops, text and cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pelton.errors import RequestError
from pelton.text import StopMatcher

STOPS = st.lists(st.text("abc", min_size=1, max_size=4), max_size=4).map(tuple)
CHUNKS = st.lists(st.text("abcd", max_size=5), max_size=10)


def naive(stops: tuple[str, ...], include: bool, text: str) -> tuple[str, str | None]:
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            stop = max(found, key=len)
            return (text[:end] if include else text[: end - len(stop)]), stop
    return text, None


@settings(max_examples=1000)
@given(STOPS, CHUNKS, st.booleans())
def test_text_is_cut_at_the_first_complete_stop(
    stops: tuple[str, ...], chunks: list[str], include: bool
) -> None:
    matcher = StopMatcher(stops, include)
    said, matched = "", None
    for chunk in chunks:
        ready, matched = matcher.feed(chunk)
        said += ready
    if matched is None:
        said += matcher.finish()
    assert (said, matched) == naive(stops, include, "".join(chunks))


@settings(max_examples=500)
@given(STOPS, st.text("abcd", max_size=20))
def test_only_what_could_begin_a_stop_is_held_back(stops: tuple[str, ...], text: str) -> None:
    ready, matched = StopMatcher(stops).feed(text)
    if matched is None:
        begins = [cut for cut in range(len(text) + 1) if any(s.startswith(text[cut:]) for s in (*stops, ""))]
        assert ready == text[: min(begins)]


@settings(max_examples=200)
@given(STOPS, CHUNKS, CHUNKS, CHUNKS)
def test_a_fork_continues_alone(
    stops: tuple[str, ...], before: list[str], one: list[str], other: list[str]
) -> None:
    matcher = StopMatcher(stops)
    start = "".join(matcher.feed(chunk)[0] for chunk in before)
    fork = matcher.fork()
    for branch, rest in ((matcher, one), (fork, other)):
        said = start + "".join(branch.feed(chunk)[0] for chunk in rest)
        said += "" if branch.matched else branch.finish()
        assert (said, branch.matched) == naive(stops, False, "".join(before + rest))


def test_nothing_follows_a_match() -> None:
    matcher = StopMatcher(("end",))
    assert matcher.feed("the end of it") == ("the ", "end")
    assert matcher.feed("more") == ("", "end")
    assert matcher.finish() == ""


def test_steps_grow_with_the_text_alone() -> None:
    """The worst text for a naive matcher: each character fails a long stop at its last letter."""
    matcher = StopMatcher(("a" * 500 + "b",))
    steps = 0
    inner = matcher._automaton.next_of

    class Counting(dict[str, int]):
        def __contains__(self, key: object) -> bool:
            nonlocal steps
            steps += 1
            return super().__contains__(key)

    inner[:] = [Counting(row) for row in inner]
    for _ in range(1000):
        matcher.feed("a" * 10)
    assert steps <= 2 * 10_000


@pytest.mark.parametrize("stops", [("",), ("a", ""), tuple(str(n) for n in range(1000)), ("x" * 100_000,)])
def test_absurd_stops_are_refused(stops: tuple[str, ...]) -> None:
    with pytest.raises(RequestError, match="stop"):
        StopMatcher(stops)
