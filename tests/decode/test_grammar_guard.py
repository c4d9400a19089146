"""The guard: verdicts, and what hostile grammars cost."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import pelton
from pelton.decode import grammar_guard
from pelton.decode.grammar import GrammarVocabulary
from pelton.decode.grammar_guard import GrammarGuard
from pelton.errors import RequestError
from pelton.structured import StructuredOutputs

from ..fuzz.grammars import hostile
from .grammars import FORMS, VOCABULARY

EXPONENTIAL = "start: A0\n" + "\n".join(f"A{i}: A{i + 1} A{i + 1}" for i in range(60)) + '\nA60: "x"'


@pytest.fixture(scope="module")
def guard() -> Iterator[GrammarGuard]:
    guard = GrammarGuard(VOCABULARY)
    yield guard
    guard.close()


@pytest.mark.parametrize("name", FORMS)
def test_good_grammars_pass(guard: GrammarGuard, name: str) -> None:
    guard.check(FORMS[name].wanted)


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (StructuredOutputs(regex="("), "unclosed group"),
        (StructuredOutputs(json={"type": "foo"}), "Invalid type: foo"),
        (StructuredOutputs(grammar="root ::= [a-z"), "Unexpected end"),
        (StructuredOutputs(grammar="start: start"), "no text matches it"),
        (StructuredOutputs(json={"$ref": "#"}), "no text matches it"),
    ],
)
def test_bad_ones_are_refused_with_the_reason_also_when_asked_again(
    guard: GrammarGuard, wanted: StructuredOutputs, reason: str
) -> None:
    for _ in range(2):
        with pytest.raises(RequestError, match=reason) as caught:
            guard.check(wanted)
        assert caught.value.field == wanted.kind


def test_one_that_takes_too_long_is_killed() -> None:
    impatient = GrammarGuard(VOCABULARY, seconds=0.0)
    try:
        for _ in range(2):  # the second time from memory
            with pytest.raises(RequestError, match=r"longer than 0 s"):
                impatient.check(StructuredOutputs(grammar=EXPONENTIAL))
            assert impatient.helper_pid is None
    finally:
        impatient.close()


def test_one_that_grows_exponentially_is_refused_and_the_next_is_served(guard: GrammarGuard) -> None:
    with pytest.raises(RequestError, match=r"longer than 0\.5 s|too big"):  # whichever bound it meets first
        guard.check(StructuredOutputs(grammar=EXPONENTIAL))
    guard.check(StructuredOutputs(regex="a+"))


def test_one_that_needs_too_much_memory_is_refused() -> None:
    guard = GrammarGuard(VOCABULARY, memory=1 << 20)
    wanted = StructuredOutputs(choice=[f"choice number {i} of many" for i in range(3000)])
    try:
        with pytest.raises(RequestError, match="too large or too complex"):
            guard.check(wanted)
    finally:
        guard.close()


def test_a_helper_that_died_in_between_is_replaced(guard: GrammarGuard) -> None:
    guard.check(StructuredOutputs(regex="a+"))
    assert guard.helper_pid is not None
    os.kill(guard.helper_pid, signal.SIGKILL)
    guard.check(StructuredOutputs(regex="b+"))


def test_closing_ends_the_helper() -> None:
    guard = GrammarGuard(VOCABULARY)
    guard.check(StructuredOutputs(regex="a+"))
    pid = guard.helper_pid
    guard.close()
    assert not Path(f"/proc/{pid}").exists()
    assert guard.helper_pid is None


def test_verdicts_are_bounded(monkeypatch: pytest.MonkeyPatch, guard: GrammarGuard) -> None:
    monkeypatch.setattr(grammar_guard, "MOST_VERDICTS", 50)
    for i in range(120):
        guard.check(StructuredOutputs(regex=f"a{i}"))
        assert guard.num_verdicts <= max(50, i)
    assert guard.num_verdicts <= 50


def test_an_empty_vocabulary_entry_is_no_obstacle() -> None:
    guard = GrammarGuard(GrammarVocabulary((b"a", b"", b"<e>"), (2,), (2,), 64))
    try:
        guard.check(StructuredOutputs(regex="a*"))
    finally:
        guard.close()


@pytest.mark.parametrize(
    ("count", "seed"), [(200, 23), pytest.param(1000, 24, marks=pytest.mark.fuzz, id="long")]
)
def test_hostile_grammars_get_a_verdict(count: int, seed: int) -> None:
    """Those of known faults among them (reliability 23)."""
    source = random.Random(seed)
    guard = GrammarGuard(VOCABULARY)
    refused = longest = 0
    try:
        for _ in range(count):
            try:
                guard.check(hostile(source))
            except RequestError as error:
                refused += 1
                longest = max(longest, len(error.message))
        guard.check(StructuredOutputs(regex="still[ ]here"))
    finally:
        guard.close()
    assert count / 10 < refused < count
    assert longest < 600


def test_only_the_grammar_files_know_the_library() -> None:
    """One way in: whoever wants a matcher goes through `GrammarCompiler`."""
    package = Path(pelton.__path__[0])
    users = {path.name for path in package.rglob("*.py") if "llguidance import" in path.read_text()}
    assert users == {"grammar.py", "grammar_source.py"}
