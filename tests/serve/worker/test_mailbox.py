"""What waits for a reader: whole, in order, in few bytes, and no more of them than are kept for one."""

from __future__ import annotations

import asyncio
import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pelton.decode.logprobs import Logprob, TokenLogprobs
from pelton.errors import EngineStoppedError
from pelton.outputs import StreamOutput
from pelton.serve.worker.mailbox import MOST_TAKEN, MOST_WAITING, Mailbox, joined

MOST_BUFFERED = 256 << 10
TOKENS = st.integers(0, 2**31 - 1)
ROWS = st.dictionaries(
    TOKENS,
    st.builds(
        Logprob, st.floats(max_value=0, allow_nan=False), st.integers(1, 300_000), st.none() | st.text()
    ),
    max_size=3,
)
PIECES = st.builds(
    StreamOutput,
    st.integers(0, 2),
    st.text(st.characters()),
    st.lists(TOKENS, max_size=4).map(tuple),
    st.none() | st.lists(ROWS, max_size=3).map(tuple),
    started=st.floats(0, 1e6),
    num_cached_tokens=st.integers(0, 100),
)


def row(top: int, first: int = 1000) -> TokenLogprobs:
    return {first + i: Logprob(-0.123456789 - i, i + 1, f" tok{i}") for i in range(top + 1)}


def token(number: int, top: int | None, index: int = 0) -> StreamOutput:
    logprobs = None if top is None else (row(top, number),)
    return StreamOutput(index, " word", (30_000 + number,), logprobs)


@given(st.lists(st.tuples(PIECES, st.booleans()), max_size=30))
def test_whatever_is_taken_when_adds_up(script: list[tuple[StreamOutput, bool]]) -> None:
    """With and without log probabilities, whole rows of them and none."""

    async def read() -> None:
        box, sums, wanted = Mailbox(), dict[int, StreamOutput](), dict[int, StreamOutput]()

        async def take() -> None:
            for piece in await box.take():
                sums[piece.index] = joined(sums[piece.index], piece) if piece.index in sums else piece

        for piece, takes in script:
            box.put(piece)
            wanted[piece.index] = joined(wanted[piece.index], piece) if piece.index in wanted else piece
            if takes:
                await take()
        while box.size:
            await take()
        box.fail(EngineStoppedError("over"))
        with pytest.raises(EngineStoppedError):
            await take()
        assert sums == wanted
        assert box.size == 0

    asyncio.run(read())


def test_the_end_comes_last_and_once() -> None:
    async def read() -> list[StreamOutput]:
        box, found = Mailbox(), list[StreamOutput]()
        for number in range(200):
            box.put(token(number, 20))
        box.put(replace(token(200, 20), finished=True, finish_reason="stop", stop_reason=7))
        while not found or not found[-1].finished:
            found += await box.take()
        assert box.size == 0
        return found

    found = asyncio.run(read())
    assert len(found) > 5
    assert [piece.finished for piece in found] == [False] * (len(found) - 1) + [True]
    assert (found[-1].finish_reason, found[-1].stop_reason) == ("stop", 7)
    assert [i for piece in found for i in piece.token_ids] == [30_000 + n for n in range(201)]
    assert [r for piece in found for r in piece.logprobs or ()] == [row(20, n) for n in range(201)]


@pytest.mark.parametrize("top", [None, 0, 5, 20])
@pytest.mark.parametrize("texts", [1, 4, 64])
def test_a_full_one_takes_no_more_memory_than_a_client_may(top: int | None, texts: int) -> None:
    box, count = Mailbox(), 0
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    while not box.is_full:
        box.put(token(count // texts, top, count % texts))
        count += 1
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert MOST_WAITING <= box.size < MOST_WAITING + 2000
    assert grown <= MOST_BUFFERED
    assert count >= (200 if top else 8_000 if top is None else 1_000)


def test_no_text_waits_for_another_to_be_read_out() -> None:
    async def read() -> None:
        box = Mailbox()
        for number in range(100):
            for index in (0, 1):
                box.put(token(number, 20, index))
        seen = [piece.index for _ in range(4) for piece in await box.take()]
        assert seen == [0, 1, 0, 1]
        left = box.size
        await box.take()
        assert left - box.size <= 2 * MOST_TAKEN

    asyncio.run(read())
