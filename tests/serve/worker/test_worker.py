"""The engine's process from inside: what it reports step by step, and that no reader holds it up."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pelton import SamplingParams
from pelton.errors import ContextOverflowError, RequestError
from pelton.loading import LoadedEngine, load_resolved
from pelton.outputs import StreamOutput
from pelton.serve.seeing.view import EngineLoad
from pelton.serve.worker.frames import (
    Add,
    Cancel,
    Command,
    FrameError,
    FrameReader,
    Look,
    Piece,
    Ready,
    Report,
    Step,
    View,
    decode_report,
    encode,
)
from pelton.serve.worker.worker import Channel, ChannelClosedError, Worker
from pelton.settings import EngineSettings
from pelton.terms import ORDINARY
from pelton.weights.store import ResolvedModel


class Script(Channel):
    """Says what it was told to, one list of commands a turn, and keeps what it hears."""

    def __init__(self, turns: list[list[Command]]) -> None:
        self._turns = turns
        self.heard: list[Report] = []

    def receive(self, *, wait: bool) -> list[Command]:
        if not self._turns:
            raise ChannelClosedError("the script is over")
        return self._turns.pop(0)

    def send(self, report: Report) -> None:
        self.heard.append(report)


@pytest.fixture(scope="module")
def loaded(tiny_path: Path) -> Iterator[LoadedEngine]:
    settings = EngineSettings(threads=1, context_length=256, max_num_seqs=4, max_num_batched_tokens=16)
    loaded = load_resolved(ResolvedModel(str(tiny_path), tiny_path, "gguf", verified=False), settings)
    yield loaded
    loaded.close()


def steps(loaded: LoadedEngine, turns: list[list[Command]]) -> list[Step]:
    """What a worker reports of a script, a step for each turn."""
    script = Script(turns)
    with pytest.raises(ChannelClosedError):
        Worker(script, loaded, seed=1).run()
    ready, *reports = script.heard
    assert isinstance(ready, Ready)
    assert (ready.facts.context_length, ready.facts.max_num_seqs) == (256, 4)
    return [report for report in reports if isinstance(report, Step)]


def add(number: int, prompt: list[int], tokens: int = 200) -> Add:
    params = SamplingParams(max_tokens=tokens, ignore_eos=True, seed=number)
    return Add(number, prompt, params, f"request-{number}", ORDINARY)


def test_a_cancelled_request_is_gone_in_the_next_step(loaded: LoadedEngine) -> None:
    turns: list[list[Command]] = [[add(1, [5, 6]), add(2, [7])], [], [], [Cancel(1)], [], [Cancel(2)]]
    found = steps(loaded, turns)
    streams = [sorted(piece.stream for piece in step.pieces) for step in found]
    assert streams == [[1, 2], [1, 2], [1, 2], [2], [2], []]
    assert [step.load.running for step in found] == [2, 2, 2, 1, 1, 0]
    assert found[-1].load.kv_free == found[-1].load.kv_blocks


def test_a_step_without_a_token_is_reported_too(loaded: LoadedEngine) -> None:
    found = steps(loaded, [[add(1, list(range(40)))], [], [], [Cancel(1)]])
    assert [len(step.pieces) for step in found] == [0, 0, 1, 0]


def test_a_request_that_cannot_be_served_is_refused_alone(loaded: LoadedEngine) -> None:
    found = steps(loaded, [[add(1, [5] * 300), add(2, [5], 1), add(3, [10**6])], [Cancel(1), Cancel(9)]])
    pieces = {piece.stream: piece.output for piece in found[0].pieces}
    assert [pieces[number].index for number in (1, 2, 3)] == [-1, 0, -1]
    assert isinstance(pieces[1].error, ContextOverflowError)
    assert isinstance(pieces[3].error, RequestError)
    assert pieces[2].finish_reason == "length"


def test_a_look_is_answered(loaded: LoadedEngine) -> None:
    script = Script([[add(1, [90, 91, 92])], [Look()], [Cancel(1)]])
    with pytest.raises(ChannelClosedError):
        Worker(script, loaded, seed=1).run()
    (view,) = (report.view for report in script.heard if isinstance(report, View))
    assert view.steps[-1] == (3, 0, 0)
    assert sum(count for kind, count in view.blocks if kind == "private") == 1


def test_a_server_that_does_not_read_holds_nothing_up_and_misses_nothing() -> None:
    ours, theirs = socket.socketpair()
    load = EngineLoad(running=0, waiting=0, kv_blocks=1, kv_free=1)
    with ours, theirs:
        channel = Channel(theirs)
        sent = [Step(load, [Piece(number, StreamOutput(0, "x" * 20_000, ()))]) for number in range(100)]
        for step in sent:
            channel.send(step)
        ours.settimeout(0.05)
        reader, found = FrameReader(), list[Report]()
        while len(found) < len(sent):
            try:
                found += map(decode_report, reader.feed(ours.recv(1 << 16)))
            except TimeoutError:
                assert channel.receive(wait=False) == []
        assert found == sent


def test_the_other_sides_end_and_its_nonsense_are_told_apart() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        channel = Channel(theirs)
        ours.sendall(encode(Cancel(4)) + encode(Cancel(5)))
        assert channel.receive(wait=True) == [Cancel(4), Cancel(5)]
        assert channel.receive(wait=False) == []
        ours.sendall(b"\x02\x00\x00\x00\xc1\xc1")
        with pytest.raises(FrameError):
            channel.receive(wait=True)
        ours.close()
        with pytest.raises(ChannelClosedError):
            channel.receive(wait=True)
