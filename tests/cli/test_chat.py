"""Conversations: their commands, from a pipe and on a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from pelton import LLM, SamplingParams
from pelton.cli.commands import COMMANDS, Leave, obey, with_setting
from pelton.cli.conversation import Conversation, checked_messages
from pelton.errors import ConfigError, ContextOverflowError, PeltonError, RequestError

from .calling import COMMAND, SECONDS, call, environment

SETTINGS = SamplingParams(temperature=0.0, max_tokens=12)


@pytest.fixture(scope="module")
def llm(real_model_path: Path) -> Iterator[LLM]:
    with LLM(str(real_model_path), context_length=512, threads=2) as llm:
        yield llm


@pytest.fixture
def talk(llm: LLM) -> Conversation:
    return Conversation(llm, SETTINGS)


def quiet(piece: str) -> None:
    pass


def test_the_model_sees_what_was_said_before(talk: Conversation) -> None:
    talk.ask("My name is Zebulon.", quiet)
    assert [message["role"] for message in talk.messages] == ["user", "assistant"]
    answer = talk.ask("What is my name?", quiet)
    assert "Zebulon" in answer.text
    assert len(talk.messages) == 4


def test_an_overflow_leaves_the_conversation_as_it_was(talk: Conversation) -> None:
    talk.ask("Hi.", quiet)
    before = list(talk.messages)
    with pytest.raises(ContextOverflowError):
        talk.ask("word " * 600, quiet)
    assert talk.messages == before


def test_undo_clear_and_retry(talk: Conversation) -> None:
    for question in ("One?", "Two?"):
        talk.ask(question, quiet)
    assert obey("/retry", talk) == "Two?"
    assert [m["content"] for m in talk.messages if m["role"] == "user"] == ["One?"]
    assert obey("/undo", talk) is None
    assert talk.messages == []
    with pytest.raises(RequestError):
        obey("/undo", talk)
    talk.ask("Three?", quiet)
    obey("/clear", talk)
    assert talk.messages == []


def test_retry_draws_anew(llm: LLM) -> None:
    talk = Conversation(llm, SamplingParams(temperature=1.0, seed=7, max_tokens=4))
    talk.ask("One?", quiet)
    obey("/retry", talk)
    assert talk.params.seed == 8


def test_system_messages_come_and_go(talk: Conversation) -> None:
    obey("/system Answer in French.", talk)
    assert talk.system == "Answer in French."
    obey("/system none", talk)
    assert talk.system is None


def test_saved_conversations_go_on(talk: Conversation, tmp_path: Path) -> None:
    talk.system = "Be brief."
    talk.ask("Hi.", quiet)
    path = tmp_path / "talk.json"
    obey(f"/save {path}", talk)
    other = Conversation(talk.llm, SETTINGS)
    obey(f"/load {path}", other)
    assert (other.system, other.messages) == (talk.system, talk.messages)
    with pytest.raises(ConfigError, match="exists"):
        obey(f"/save {path}", talk)


USER, ASSISTANT = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}


@pytest.mark.parametrize(
    "document",
    [
        None, {}, [1], [{}], [USER], [ASSISTANT, USER], [USER, USER], [{**USER, "x": 1}],
        [{"role": "user", "content": 1}, ASSISTANT], [USER, ASSISTANT, {"role": "system", "content": "c"}],
    ],
)  # fmt: skip
def test_files_that_hold_no_conversation_are_refused(document: object) -> None:
    with pytest.raises(ConfigError):
        checked_messages(document, Path("talk.json"))


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
def test_files_that_are_not_json_are_refused(body: bytes, tmp_path: Path, talk: Conversation) -> None:
    path = tmp_path / "talk.json"
    path.write_bytes(body)
    with pytest.raises(ConfigError):
        obey(f"/load {path}", talk)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("temperature", "0.5", 0.5), ("top_k", "3", 3), ("stop", "END", ("END",)), ("max_tokens", "none", 16),
        ("temperature", "", 0.0),
    ],
)  # fmt: skip
def test_settings_change(name: str, text: str, value: object) -> None:
    assert getattr(with_setting(SETTINGS, name, text), name) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [("nonsense", "1"), ("top_k", "many"), ("temperature", "-1"), ("n", "2"), ("top_k", "1e9")],
)
def test_settings_that_cannot_be_are_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(PeltonError, match=name):
        with_setting(SETTINGS, name, text)


def test_commands_are_helped_and_misspelt_ones_guessed(
    talk: Conversation, capsys: pytest.CaptureFixture[str]
) -> None:
    obey("/help", talk)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert all(f"/{command.name}" in shown.err for command in COMMANDS)
    with pytest.raises(ConfigError, match="did you mean /undo"):
        obey("/undoo", talk)
    for word in ("/exit", "/quit", "/bye"):
        with pytest.raises(Leave):
            obey(word, talk)


def test_from_a_pipe_each_line_is_a_question(tmp_path: Path, real_model_path: Path) -> None:
    env = environment(tmp_path, PELTON_MODEL=str(real_model_path))
    text = 'My name is Zebulon.\n\n"""\nWhat is\nmy name?\n"""\n/exit\nnever asked\n'
    result = call("chat", "--temp", "0", "-n", "12", input=text, env=env)
    assert result.exit_code == 0, result.stderr
    assert "Zebulon" in result.stdout.splitlines()[-1]
    assert result.stderr.count("tok/s") == 2
    result = call("chat", "--temp", "0", "-n", "4", "--json", input="Hi.\n", env=env)
    assert json.loads(result.stdout)["completion_tokens"] == 4


def test_from_a_pipe_an_error_ends_it(tmp_path: Path, real_model_path: Path) -> None:
    env = environment(tmp_path, PELTON_MODEL=str(real_model_path))
    result = call("chat", input="/nonsense\nHi.\n", env=env)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1


class Terminal:
    """pelton chat on a pseudo terminal, driven as a person types."""

    def __init__(self, env: dict[str, str]) -> None:
        self._master, slave = pty.openpty()
        arguments = (*COMMAND, "chat", "--temp", "0", "-n", "24")
        # A job in the background ignores Ctrl-C, and so would what it starts.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        self.process = subprocess.Popen(arguments, env=env, stdin=slave, stdout=slave, stderr=slave)
        signal.signal(signal.SIGINT, before)
        os.close(slave)
        self.shown = ""

    def wait_for(self, words: str) -> str:
        """What appeared up to `words`, which are then behind us."""
        end = monotonic() + SECONDS
        while words not in self.shown:
            ready, _, _ = select.select([self._master], [], [], max(0.0, end - monotonic()))
            assert ready, f"{words!r} did not appear in {self.shown!r}"
            self.shown += os.read(self._master, 4096).decode(errors="replace")
        before, _, self.shown = self.shown.partition(words)
        return before

    def type(self, line: str) -> None:
        os.write(self._master, line.encode())

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@pytest.mark.skipif(sys.platform != "linux", reason="pseudo terminals")
@pytest.mark.parametrize("no_colour", ["", "1"])
def test_on_a_terminal(no_colour: str, tmp_path: Path, real_model_path: Path) -> None:
    model = {"PELTON_MODEL": str(real_model_path)}
    with Terminal(environment(tmp_path, TERM="xterm", NO_COLOR=no_colour, **model)) as terminal:
        terminal.wait_for("> ")
        terminal.type("What is the capital of France? One sentence.\n")
        answer = terminal.wait_for("of the context used")
        assert "Paris" in answer
        assert "tok/s" in answer
        assert bool(re.search(r"\x1b\[\d*m", answer)) != bool(no_colour)
        terminal.wait_for("> ")
        terminal.type("/nonsense\n")
        assert "pelton: error: " in terminal.wait_for("> ")
        terminal.process.send_signal(signal.SIGINT)
        terminal.type("\n")  # a signal just before Python waits for a key is only seen with the next key
        terminal.wait_for("/exit or Ctrl-D ends")
        terminal.wait_for("> ")
        terminal.type("\x04")
        assert terminal.process.wait(SECONDS) == 0
    assert "capital of France" in (tmp_path / "chat_history").read_text()
