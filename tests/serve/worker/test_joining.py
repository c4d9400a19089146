"""Joined pieces say what the pieces said, in their order, and no more of them go out than should."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from pelton import StreamOutput
from pelton.errors import RequestError
from pelton.serve.worker.frames import Piece
from pelton.serve.worker.joining import LONGEST_SECONDS, Joining


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def piece(stream: int, number: int, index: int = 0, *, is_last: bool = False) -> Piece:
    reason = "stop" if is_last else None
    text = f"{stream}.{index}.{number} "
    return Piece(stream, StreamOutput(index, text, (number,), finished=is_last, finish_reason=reason))


@settings(max_examples=100)
@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 2)), min_size=1, max_size=12),
    st.floats(0.0001, 0.2),
    st.floats(1, 5000),
)
def test_nothing_is_lost_doubled_or_moved(texts: list[tuple[int, int]], step: float, most: float) -> None:
    clock = Clock()
    joining = Joining(most, clock)
    lengths = {(stream, index): size for stream, (size, n) in enumerate(texts) for index in range(n)}
    said: dict[tuple[int, int], list[int]] = defaultdict(list)
    began: dict[tuple[int, int], int] = {}
    for number in range(max(lengths.values())):
        clock.now += step
        pieces = [
            piece(*key[:1], number, key[1], is_last=number == size - 1)
            for key, size in lengths.items()
            if number < size
        ]
        for out in joining.take(pieces):
            key = out.stream, out.output.index
            began.setdefault(key, number)
            said[key] += out.output.token_ids
            assert out.output.finished == (said[key][-1] == lengths[key] - 1)
            assert out.output.text.split() == [f"{key[0]}.{key[1]}.{at}" for at in out.output.token_ids]
    assert said == {key: list(range(size)) for key, size in lengths.items()}
    assert set(began.values()) == {0}


def sent(streams: int, step: float, seconds: float, most: float) -> int:
    """How many pieces go out of streams that all get a token each step."""
    clock = Clock()
    joining, count = Joining(most, clock), 0
    for number in range(int(seconds / step)):
        clock.now += step
        count += len(joining.take([piece(stream, number) for stream in range(streams)]))
    return count


def test_the_rate_is_kept_and_few_streams_are_left_alone() -> None:
    assert sent(streams=8, step=0.02, seconds=10, most=600) == 4000
    assert sent(streams=48, step=0.045, seconds=9, most=600) <= 48 + 9 * 600
    assert sent(streams=48, step=0.001, seconds=10, most=600) <= 48 + 10 * 600 + 48
    everyone = sent(streams=512, step=0.05, seconds=10, most=600)
    assert everyone >= 512 * 10 / (LONGEST_SECONDS + 0.051)  # however many, nobody waits for longer


def test_refusals_and_dropped_requests_leave_nothing_behind() -> None:
    clock = Clock()
    joining = Joining(1.0, clock)
    refusal = Piece.refusal(7, RequestError("no"))
    assert joining.take([refusal, piece(1, 0), piece(2, 0)]) == [refusal, piece(1, 0), piece(2, 0)]
    assert joining.take([piece(1, 1), piece(2, 1)]) == []
    joining.drop(1)
    clock.now += 1
    assert joining.take([]) == [piece(2, 1)]
