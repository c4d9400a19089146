"""The /commands of a conversation. A new one is a function and a row of COMMANDS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..config import SamplingParams
from ..errors import ConfigError
from .console import note
from .conversation import Conversation


class Leave(Exception):
    """The user wants to end the conversation."""


@dataclass(frozen=True)
class Command:
    """`act` gets the conversation and the rest of the line; a text it returns is asked next."""

    name: str
    usage: str
    act: Callable[[Conversation, str], str | None]


def obey(line: str, talk: Conversation) -> str | None:
    """Carry out a line that begins with a slash. Raises ConfigError for an unknown command."""
    name, _, rest = line[1:].partition(" ")
    command = next((command for command in COMMANDS if command.name == name), None)
    if command is None:
        near = get_close_matches(name, [command.name for command in COMMANDS], n=1)
        hint = f"; did you mean /{near[0]}?" if near else "; /help lists the commands"
        raise ConfigError(f"is no command{hint}", field="command", value=f"/{name}")
    try:
        return command.act(talk, rest.strip())
    except OSError as error:
        raise ConfigError(error.strerror or str(error), subject=error.filename) from None


def _help(talk: Conversation, rest: str) -> None:
    width = max(len(command.usage.split("  ")[0]) for command in COMMANDS)
    for command in COMMANDS:
        usage, _, meaning = command.usage.partition("  ")
        note(f"/{usage:<{width}}  {meaning}")
    note('A line of three quotes (""") begins and ends a question of several lines.')


def _clear(talk: Conversation, rest: str) -> None:
    talk.clear()
    note("the conversation starts anew")


def _system(talk: Conversation, rest: str) -> None:
    if rest:
        talk.system = None if rest == "none" else rest
    note(f"system message: {talk.system if talk.system is not None else 'none'}")


def _save(talk: Conversation, rest: str) -> None:
    talk.save(_file(rest))
    note(f"saved {len(talk.messages)} messages to {rest}")


def _load(talk: Conversation, rest: str) -> None:
    talk.load(_file(rest))
    note(f"{len(talk.messages)} messages from {rest}")


def _file(rest: str) -> Path:
    if not rest:
        raise ConfigError("needs a file name", field="command")
    return Path(rest).expanduser()


def _undo(talk: Conversation, rest: str) -> None:
    note(f"forgotten: {talk.undo()}")


def _retry(talk: Conversation, rest: str) -> str:
    question = talk.undo()
    if talk.params.seed is not None:  # the same seed would give the same answer again
        talk.params = replace(talk.params, seed=talk.params.seed + 1)
    return question


def _set(talk: Conversation, rest: str) -> None:
    name, _, value = rest.replace("=", " ").partition(" ")
    if name:
        talk.params = with_setting(talk.params, name, value.strip())
    shown = [name] if name else [n for n in SETTINGS if getattr(talk.params, n) != _DEFAULTS[n]]
    for setting in shown:
        note(f"{setting} = {getattr(talk.params, setting)}")


def _leave(talk: Conversation, rest: str) -> None:
    raise Leave


_INTEGERS = ("top_k", "max_tokens", "min_tokens", "seed")
_REALS = (
    *("temperature", "top_p", "min_p", "typical_p"),
    *("repetition_penalty", "frequency_penalty", "presence_penalty"),
)
SETTINGS = (*_REALS, *_INTEGERS, "stop")
_DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(SamplingParams)}


def with_setting(params: SamplingParams, name: str, text: str) -> SamplingParams:
    """The parameters with one changed. ConfigError for no name or number, RequestError beyond its range."""
    if name not in SETTINGS:
        raise ConfigError(f"is no setting; there are {', '.join(SETTINGS)}", field="setting", value=name)
    if not text:
        return params
    try:
        value = _DEFAULTS[name] if text == "none" else _value(name, text)
    except ValueError:
        raise ConfigError("is not a number", field=name, value=text) from None
    changed: dict[str, Any] = {name: value}
    return replace(params, **changed)


def _value(name: str, text: str) -> object:
    if name == "stop":
        return (text,)
    return int(text) if name in _INTEGERS else float(text)


COMMANDS = (
    Command("help", "help  this list", _help),
    Command("clear", "clear  forget the conversation", _clear),
    Command("system", "system [TEXT]  show or set the system message; none removes it", _system),
    Command("save", "save FILE  write the messages as JSON", _save),
    Command("load", "load FILE  go on with saved messages", _load),
    Command("undo", "undo  forget the last question and answer", _undo),
    Command("retry", "retry  ask the last question again", _retry),
    Command("set", "set [NAME [VALUE]]  show or change a sampling setting; none resets it", _set),
    Command("exit", "exit  end the conversation", _leave),
    Command("quit", "quit  the same", _leave),
    Command("bye", "bye  the same", _leave),
)
