"""`pelton run` on the real model, as a user's shell starts it."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from .calling import SECONDS, call, environment, finish, start

GREEDY = ("--temp", "0", "-n", "24", "-t", "2", "-c", "1024")
QUESTION = "What is the capital of France? One sentence."


@pytest.fixture
def env(tmp_path: Path, real_model_path: Path) -> dict[str, str]:
    return environment(tmp_path, PELTON_MODEL=str(real_model_path))


def test_the_answer_is_all_of_stdout_and_the_figures_are_on_stderr(env: dict[str, str]) -> None:
    code, out, err = finish("run", QUESTION, *GREEDY, env=env)
    assert code == 0
    assert "Paris" in out
    assert out.endswith("\n")
    assert re.fullmatch(
        r"\d+ tokens at [\d.]+ tok/s, first after .* prompt tokens at .*, load .*, stop\n", err
    )


def test_json_says_the_same_and_quiet_says_nothing_more(env: dict[str, str]) -> None:
    _, out, _ = finish("run", QUESTION, *GREEDY, env=env)
    code, document, err = finish("run", QUESTION, *GREEDY, "--json", "-q", env=env)
    answer = json.loads(document)
    assert (code, err) == (0, "")
    assert answer["text"] == out.removesuffix("\n")
    assert answer["finish_reason"] == "stop"
    assert 0 < answer["timings"]["first_token_seconds"] < answer["timings"]["seconds"]
    assert answer["completion_tokens"] > 1


def test_a_prompt_from_stdin_is_the_same_prompt(env: dict[str, str]) -> None:
    given = call("run", QUESTION, *GREEDY, env=env).stdout
    assert call("run", "-", *GREEDY, input=QUESTION + "\n", env=env).stdout == given
    assert call("run", *GREEDY, input=QUESTION, env=env).stdout == given


def test_a_seed_that_was_shown_gives_the_text_again(env: dict[str, str]) -> None:
    first = call("run", "Tell me a story.", "-n", "16", "--temp", "1.5", env=env)
    (seed,) = re.findall(r"seed (\d+)", first.stderr)
    again = call("run", "Tell me a story.", "-n", "16", "--temp", "1.5", "--seed", seed, env=env)
    assert again.stdout == first.stdout


def test_raw_continues_and_system_steers(env: dict[str, str]) -> None:
    raw = call("run", "The capital of France is", "--raw", *GREEDY, env=env)
    assert "Paris" in raw.stdout
    plain = call("run", "Who are you?", *GREEDY, env=env).stdout
    assert call("run", "Who are you?", "--system", "You are a pirate.", *GREEDY, env=env).stdout != plain
    assert call("run", "x", "--raw", "--system", "y", env=env).exit_code == 1


def test_stop_texts_and_the_length_limit_end_an_answer(env: dict[str, str]) -> None:
    full = call("run", QUESTION, *GREEDY, env=env).stdout
    assert (
        call("run", QUESTION, *GREEDY, "--stop", "capital", env=env).stdout == full.split("capital")[0] + "\n"
    )
    limited = call("run", QUESTION, "--temp", "0", "-n", "3", "--json", env=env)
    assert json.loads(limited.stdout)["completion_tokens"] == 3


@pytest.mark.parametrize(
    ("arguments", "given", "words"),
    [
        (("x" * 40_000, "--raw", "-c", "256"), None, "context"),
        (("-",), b"\xff\xfe", "not valid UTF-8 at byte 0"),
        (("-", "--raw"), b"", "prompt"),
        (("hi", "-n", "0"), None, "max_tokens = 0"),
        (("hi", "--executor", "cuda"), None, "executor = 'cuda'"),
        (("hi", "--kv-memory", "1k"), None, "kv_memory"),
    ],
)
def test_what_cannot_be_run_is_one_line(
    arguments: tuple[str, ...], given: bytes | None, words: str, env: dict[str, str]
) -> None:
    result = call("run", *arguments, input=given, env=env)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("pelton: error: ")
    assert result.stderr.count("\n") == 1
    assert words in result.stderr


def test_ctrl_c_keeps_what_was_said_and_exits_with_130(env: dict[str, str]) -> None:
    process = start("run", "Count to a thousand.", "-n", "-1", "--ignore-eos", "--temp", "0", env=env)
    assert process.stdout is not None
    first = process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert (first + out).endswith(b"\n")
    assert b"interrupted" in err
    assert b"Traceback" not in err


def test_a_reader_that_leaves_ends_it_silently(env: dict[str, str]) -> None:
    process = start("run", "Count to a thousand.", "-n", "-1", "--ignore-eos", env=env)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(1)
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(SECONDS), err) == (141, b"")
