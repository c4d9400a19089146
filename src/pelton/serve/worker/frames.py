"""What crosses between the server and its engine's process: msgpack of typed values behind a length.

Either side checks what it reads against the types below and bounds its size first; nothing that arrives
can name code to run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from msgspec import DecodeError, Struct, convert
from msgspec.msgpack import Decoder, Encoder

from ... import errors
from ...config import SamplingParams, TokenBias
from ...errors import EngineStoppedError, PeltonError
from ...outputs import StreamOutput
from ...settings import EngineSettings
from ...terms import RequestTerms
from ...weights.manifest import ModelKind
from ...weights.store import ResolvedModel
from ..seeing.view import EngineFacts, EngineLoad, EngineView

LARGEST_FRAME = 256 << 20
"""A step of 4,096 sequences with 20 logprobs each takes 4 MB; the rest is for logprobs of long prompts."""
_LENGTH = 4

_KINDS = {kind.__name__: kind for kind in vars(errors).values() if isinstance(kind, type)}


class Fault(Struct, array_like=True, frozen=True):
    """A PeltonError; `kind` is its class's name."""

    kind: str
    message: str
    subject: str | None
    field: str | None
    value: str | int | float | bool | None

    @classmethod
    def of(cls, error: PeltonError) -> Fault:
        value = error.value
        if not isinstance(value, str | float | bool | None):
            fits = isinstance(value, int) and value.bit_length() < 64
            value = value if isinstance(value, int) and fits else repr(value)[:256]
        return cls(type(error).__name__, error.message, error.subject, error.field, value)

    def error(self) -> PeltonError:
        kind = _KINDS.get(self.kind)
        if kind is None or not issubclass(kind, PeltonError):
            kind = PeltonError
        return kind(self.message, subject=self.subject, field=self.field, value=self.value)


class Start(Struct, tag="start", frozen=True):
    """The first frame to a new process: what to load."""

    reference: str
    path: str | None
    kind: ModelKind
    verified: bool
    settings: EngineSettings

    @classmethod
    def of(cls, resolved: ResolvedModel, settings: EngineSettings) -> Start:
        path = None if resolved.path is None else str(resolved.path.absolute())
        return cls(resolved.reference, path, resolved.kind, resolved.verified, settings)

    @property
    def resolved(self) -> ResolvedModel:
        path = None if self.path is None else Path(self.path)
        return ResolvedModel(self.reference, path, self.kind, self.verified)


class Add(Struct, tag="add", frozen=True):
    """A request; its pieces come back under the number `stream`."""

    stream: int
    prompt: list[int]
    params: SamplingParams
    request_id: str
    terms: RequestTerms


class Cancel(Struct, tag="cancel", frozen=True):
    """Drop a request; no piece of it that is not on its way already will come."""

    stream: int


class Look(Struct, tag="look", frozen=True):
    """Send a View."""


Command: TypeAlias = Start | Add | Cancel | Look


class Ready(Struct, tag="ready", frozen=True):
    """The engine is loaded."""

    facts: EngineFacts
    load: EngineLoad


class Failed(Struct, tag="failed", frozen=True):
    """It cannot be loaded; the process ends."""

    fault: Fault


class Piece(Struct, array_like=True, frozen=True):
    """A piece of one stream; or, with index -1, the error that refused its request."""

    stream: int
    output: StreamOutput

    @classmethod
    def refusal(cls, stream: int, error: PeltonError) -> Piece:
        return cls(stream, StreamOutput(-1, "", (), error=error))


class Step(Struct, tag="step", frozen=True):
    """Everything that one engine step gave, and the load after it. Sent after every step, so that
    silence means a step that does not end."""

    load: EngineLoad
    pieces: list[Piece]


class View(Struct, tag="view", frozen=True):
    """What a Look asked for."""

    view: EngineView


Report: TypeAlias = Ready | Failed | Step | View


class FrameError(EngineStoppedError):
    """The other side sent what is no frame of this protocol."""


def _plain(value: object) -> object:
    if isinstance(value, PeltonError):
        return Fault.of(value)
    if isinstance(value, TokenBias):
        return dict(value)
    raise NotImplementedError(f"{type(value).__name__} cannot cross to the engine's process")


def _from_plain(kind: type, value: object) -> object:
    if kind is PeltonError:
        return convert(value, Fault).error()
    raise NotImplementedError(f"{kind.__name__} cannot cross from the engine's process")


_ENCODER = Encoder(enc_hook=_plain)
_COMMANDS: Decoder[Command] = Decoder(Command)
_REPORTS: Decoder[Report] = Decoder(Report, dec_hook=_from_plain)


def encode(value: Command | Report) -> bytes:
    """One frame, its length before it. Raises FrameError where it would be too large."""
    buffer = bytearray(_LENGTH)
    _ENCODER.encode_into(value, buffer, _LENGTH)
    size = len(buffer) - _LENGTH
    if size > LARGEST_FRAME:
        raise FrameError(f"a frame of {size} bytes, the most is {LARGEST_FRAME}")
    buffer[:_LENGTH] = size.to_bytes(_LENGTH, "little")
    return bytes(buffer)


def decode_command(frame: bytes) -> Command:
    """Raises FrameError, or RequestError for parameters out of range."""
    try:
        return _COMMANDS.decode(frame)
    except DecodeError as error:
        raise FrameError(f"not a command: {error}") from None


def decode_report(frame: bytes) -> Report:
    """Raises FrameError."""
    try:
        return _REPORTS.decode(frame)
    except (DecodeError, PeltonError) as error:
        raise FrameError(f"not a report: {error}") from None


class FrameReader:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that are complete with `data`, without their lengths. Raises FrameError."""
        buffer = self._buffer
        buffer += data
        frames, start = [], 0
        while len(buffer) - start >= _LENGTH:
            size = int.from_bytes(buffer[start : start + _LENGTH], "little")
            if size > LARGEST_FRAME:
                raise FrameError(f"a frame of {size} bytes, the most is {LARGEST_FRAME}")
            end = start + _LENGTH + size
            if len(buffer) < end:
                break
            frames.append(bytes(buffer[start + _LENGTH : end]))
            start = end
        del buffer[:start]
        return frames
