"""What crosses to the engine's process: it arrives as it was sent, or is refused."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pelton import SamplingParams, StreamOutput, StructuredOutputs
from pelton.decode.logprobs import Logprob
from pelton.errors import (
    ContextOverflowError,
    EngineStoppedError,
    ModelFileError,
    NotFiniteError,
    PeltonError,
    RequestError,
)
from pelton.serve.seeing.view import EngineFacts, EngineLoad
from pelton.serve.worker.frames import (
    LARGEST_FRAME,
    Add,
    Cancel,
    Failed,
    Fault,
    FrameError,
    FrameReader,
    Piece,
    Ready,
    Start,
    Step,
    decode_command,
    decode_report,
    encode,
)
from pelton.serve.worker.mailbox import Mailbox, joined
from pelton.settings import EngineSettings
from pelton.terms import RequestTerms
from pelton.weights.store import ResolvedModel

LOAD = EngineLoad(running=1, waiting=2, kv_blocks=9, kv_free=4)
FULL = StreamOutput(
    index=3,
    text="é",
    token_ids=(5, 70000),
    logprobs=({5: Logprob(-0.5, 1, "é"), 9: Logprob(float("-inf"), 2)}, {70000: Logprob(-1.0, 4, "")}),
    finished=True,
    finish_reason="stop",
    stop_reason="é",
    error=NotFiniteError("no number", field="f", value=5),
    prompt_logprobs=(None, {1: Logprob(-2.0, 3)}),
    num_cached_tokens=32,
    started=12.5,
    hidden_state=(0.5, -1.0),
)


def payload(frame: bytes) -> bytes:
    (found,) = FrameReader().feed(frame)
    return found


def test_every_field_of_a_piece_arrives() -> None:
    defaults = StreamOutput(0, "", ())
    for field in fields(StreamOutput):
        assert getattr(FULL, field.name) != getattr(defaults, field.name), f"{field.name} is not tested"
    report = decode_report(payload(encode(Step(LOAD, [Piece(8, FULL), Piece(9, defaults)]))))
    assert isinstance(report, Step)
    assert report.load == LOAD
    full, plain = report.pieces
    assert (full.stream, plain.stream) == (8, 9)
    output = full.output
    assert replace(output, error=None) == replace(FULL, error=None)
    assert (type(output.error), str(output.error)) == (NotFiniteError, str(FULL.error))
    assert plain.output == defaults


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(),
        SamplingParams(
            n=3, stop=["a", "é"], logit_bias={5: -1.5, 9: 2}, allowed_token_ids=[1, 2], bad_words=["x"],
            seed=2**63 - 1, max_tokens=None, logprobs=20, prompt_logprobs=0,
        ),
        SamplingParams(structured_outputs=StructuredOutputs(json={"type": "object"})),
        SamplingParams(structured_outputs=StructuredOutputs(choice=["a", "b"])),
    ],
)  # fmt: skip
def test_a_request_arrives(params: SamplingParams) -> None:
    terms = RequestTerms(priority=-3, deadline=1.5, tenant="t", program="p", cache_salt="s")
    command = Add(2**40, [0, 1, 49151], params, "cmpl-1", terms)
    assert decode_command(payload(encode(command))) == command


def test_what_to_load_and_what_came_of_it_arrive() -> None:
    resolved = ResolvedModel("name", Path("/models/a b.gguf"), "gguf", verified=True)
    chosen = EngineSettings(threads=3, context_length=77, kv_memory=2**40, seed=4)
    start = decode_command(payload(encode(Start.of(resolved, chosen))))
    assert isinstance(start, Start)
    assert (start.resolved, start.settings) == (resolved, chosen)
    ready = Ready(EngineFacts(context_length=5, vocab_size=6, max_num_seqs=7), LOAD)
    assert decode_report(payload(encode(ready))) == ready


@pytest.mark.parametrize(
    "error",
    [
        RequestError("bad", field="stop", value=5),
        ContextOverflowError("too long", subject="prompt"),
        ModelFileError("broken", subject="/a", field="b", value=(1, 2)),
        EngineStoppedError("gone", value=2**70),
        PeltonError("plain", value=True),
    ],
)
def test_an_error_arrives_as_what_it_was(error: PeltonError) -> None:
    report = decode_report(payload(encode(Failed(Fault.of(error)))))
    assert isinstance(report, Failed)
    found = report.fault.error()
    assert (type(found), found.message, found.subject, found.field) == (
        type(error), error.message, error.subject, error.field,
    )  # fmt: skip
    assert str(found.value) == str(error.value)


def test_an_error_of_no_known_kind_is_still_an_error() -> None:
    for kind in ("Nothing", "annotations", "str", "Exception"):
        assert type(Fault(kind, "m", None, None, None).error()) is PeltonError


@settings(max_examples=50)
@given(st.lists(st.integers(1, 2**62), max_size=8), st.data())
def test_frames_are_the_same_however_the_stream_is_cut(numbers: list[int], data: st.DataObject) -> None:
    commands = [Cancel(number) for number in numbers]
    stream = b"".join(map(encode, commands))
    reader, found, at = FrameReader(), [], 0
    while at < len(stream):
        size = data.draw(st.integers(1, len(stream) - at))
        found += reader.feed(stream[at : at + size])
        at += size
    assert [decode_command(frame) for frame in found] == commands


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_what_is_no_frame_is_refused_or_a_value(data: bytes) -> None:
    for decode in (decode_command, decode_report):
        with suppress(FrameError, RequestError):
            decode(data)
    try:
        FrameReader().feed(data)
    except FrameError:
        assert int.from_bytes(data[:4], "little") > LARGEST_FRAME


def test_one_sides_words_are_not_the_others() -> None:
    with pytest.raises(FrameError):
        decode_report(payload(encode(Cancel(1))))
    with pytest.raises(FrameError):
        decode_command(payload(encode(Step(LOAD, []))))


def test_pieces_that_wait_are_joined() -> None:
    first = StreamOutput(1, "a", (1,), prompt_logprobs=(None,), logprobs=({1: Logprob(-1.0, 1)},))
    second = StreamOutput(
        1, "b", (2, 3), finished=True, finish_reason="stop", logprobs=({2: Logprob(-2.0, 1)},)
    )
    whole = joined(first, second)
    assert (whole.index, whole.text, whole.token_ids, whole.finish_reason) == (1, "ab", (1, 2, 3), "stop")
    assert whole.logprobs == ({1: Logprob(-1.0, 1)}, {2: Logprob(-2.0, 1)})
    assert whole.prompt_logprobs == (None,)


def test_a_mailbox_gives_all_it_got_before_its_error() -> None:
    async def read() -> None:
        box = Mailbox()
        reading = asyncio.ensure_future(box.take())
        await asyncio.sleep(0)
        for text in "abc":
            box.put(StreamOutput(0, text, ()))
            box.put(StreamOutput(1, text.upper(), ()))
        assert [piece.text for piece in await reading] == ["abc", "ABC"]
        box.put(StreamOutput(0, "d", ()))
        box.fail(EngineStoppedError("gone"))
        assert [piece.text for piece in await box.take()] == ["d"]
        with pytest.raises(EngineStoppedError):
            await box.take()

    asyncio.run(read())
