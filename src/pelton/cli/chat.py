"""`pelton chat`: a conversation on the terminal, or one question a line from a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from .console import complain, note, say, say_json, takes_colour
from .options import EngineFlags, Json, SamplingFlags

if TYPE_CHECKING:
    from .answer import Answer
    from .conversation import Conversation

_MOST_REMEMBERED_LINES = 1000


def chat(
    *,
    engine: EngineFlags,
    sampling: SamplingFlags,
    system: Annotated[str | None, typer.Option("--system", "-sys", help="A system message.")] = None,
    json: Json = False,
) -> None:
    """Talk with a model; /help lists the commands. From a pipe, each line is one question."""
    from .conversation import Conversation

    with engine.open() as llm:
        talk = Conversation(llm, sampling.params(), system)
        interactive = sys.stdin.isatty() and sys.stdout.isatty()
        if interactive:
            note(f"{engine.model}: /help lists the commands, /exit or Ctrl-D ends")
        with _line_editing(interactive):
            _talk(talk, interactive=interactive, json=json)


def _talk(talk: Conversation, *, interactive: bool, json: bool) -> None:
    """Until /exit or the end of input; an error ends a turn, not the conversation, unless nobody is there."""
    from ..errors import PeltonError
    from .commands import Leave, obey

    while True:
        try:
            line = read_turn(interactive)
            if line is None:
                return
            question = obey(line, talk) if line.startswith("/") else line
            if question is not None:
                _answer(talk, question, interactive=interactive, json=json)
        except Leave:
            return
        except PeltonError as error:
            if not interactive:
                raise
            complain(str(error))
        except KeyboardInterrupt:
            if not interactive:
                raise
            note("\n/exit or Ctrl-D ends the conversation")


def read_turn(interactive: bool) -> str | None:
    """The next turn that is not blank, None at the end; lines between two of three quotes are one turn."""
    while True:
        line = _read_line("> " if interactive else "")
        if line is None or (line.strip() and line.strip() != '"""'):
            return line
        if line.strip() == '"""':
            lines: list[str] = []
            while (line := _read_line("... " if interactive else "")) is not None and line.strip() != '"""':
                lines.append(line)
            if any(map(str.strip, lines)):
                return "\n".join(lines)


def _read_line(prompt: str) -> str | None:
    if prompt:
        try:
            return input(prompt)
        except EOFError:
            say("")
            return None
    line = sys.stdin.readline()
    return line.rstrip("\n") if line else None


def _answer(talk: Conversation, question: str, *, interactive: bool, json: bool) -> None:
    if json:
        answer = talk.ask(question, lambda piece: None)
        say_json({"question": question, **answer.document(), "timings": answer.timings()})
    elif interactive and takes_colour(sys.stdout):
        from .live import live_text

        with live_text() as show:
            answer = talk.ask(question, show)
    else:
        answer = talk.ask(question, lambda piece: say(piece, end=""))
        say("")
    _note_speed(answer)
    if answer.interrupted and not interactive:
        raise KeyboardInterrupt


def _note_speed(answer: Answer) -> None:
    rate = "" if answer.decode_rate is None else f" at {answer.decode_rate:.1f} tok/s"
    used = answer.prompt_tokens + answer.num_tokens
    note(f"{answer.num_tokens} tokens{rate}, {used} of the context used, {answer.finish_reason}")


@contextmanager
def _line_editing(interactive: bool) -> Iterator[None]:
    """Arrow keys, and lines remembered from one conversation to the next."""
    if not interactive:
        yield
        return
    import readline

    from .home import user_store

    path = user_store(offline=True).home / "chat_history"
    readline.set_history_length(_MOST_REMEMBERED_LINES)
    _quietly(lambda: readline.read_history_file(path))
    try:
        yield
    finally:
        _quietly(lambda: path.touch(mode=0o600))
        _quietly(lambda: readline.write_history_file(path))


def _quietly(action: Callable[[], None]) -> None:
    try:
        action()
    except OSError:
        return  # no history is no reason to end a conversation
