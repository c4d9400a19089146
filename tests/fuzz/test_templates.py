"""Hostile chat templates: each ends in a TemplateError or harmless text, soon and in little memory."""

from __future__ import annotations

import random
import time
import tracemalloc
from pathlib import Path

import pytest

from pelton.errors import RequestError, TemplateError
from pelton.text import ChatTemplate

CHAT = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "a b c"}]
SECONDS = 0.02
MEMORY = 160 << 20  # bytes at the worst moment; one rendering may make 64 Mi characters

FOLDER = Path(__file__).parent
ESCAPES = (FOLDER / "template_escapes.txt").read_text(encoding="utf-8").splitlines()
BOMBS = (FOLDER / "template_bombs.txt").read_text(encoding="utf-8").splitlines()

DEEP = {
    "round": "{{ " + "(" * 100_000 + ")" * 100_000 + " }}",
    "square": "{{ " + "[" * 100_000 + "]" * 100_000 + " }}",
    "curly": "{{ " + "{1:" * 60_000 + "}" * 60_000 + " }}",
    "brackets unclosed": "{{ " + "[" * 100_000,
    "minus": "{{ " + "-" * 200_000 + "1 }}",
    "not": "{{ " + "not " * 60_000 + "1 }}",
    "dots": "{{ a" + ".b" * 20_000 + " }}",
    "items": "{{ a" + "[0]" * 20_000 + " }}",
    "plus": "{{ 1" + " + 1" * 20_000 + " }}",
    "tilde": "{{ 1" + "~1" * 100_000 + " }}",
    "power": "{{ 2" + " ** 2" * 20_000 + " }}",
    "compare": "{{ 1" + "==1" * 40_000 + " }}",
    "filters": "{{ a" + "|trim" * 20_000 + " }}",
    "calls": "{{ a" + "()" * 20_000 + " }}",
    "conditions": "{{ 1" + " if 1 else 1" * 20_000 + " }}",
    "ifs": "{% if 1 %}" * 20_000 + "{% endif %}" * 10_000,
    "elifs": "{% if 0 %}" + "{% elif 0 %}" * 15_000 + "{% endif %}",
    "loops": "{% for a in [1] %}" * 90 + "{% endfor %}" * 90,
    "open braces": "{" * 250_000,
    "open prints": "{{" * 120_000,
    "open blocks": "{%" * 120_000,
    "open comments": "{#" * 120_000,
    "newlines": "\n" * 250_000,
    "white": " " * 250_000 + "{% if 1 %}{% endif %}",
    "flat": "{{ a }}" * 35_000,
    "one string": "{{ '" + "a" * 240_000 + "' }}",
    "long number": "{{ " + "9" * 200_000 + " }}",
    "long name": "{{ " + "a" * 200_000 + " }}",
    "null": "\x00{{ '\x00' }}",
    "surrogate": "{{ '\\ud800' }}",
    "format float": "{{ 1e999999 | int }}",
}


def render(source: str) -> str | None:
    """What a template writes, None where it is refused; anything but a TemplateError fails the test."""
    try:
        return ChatTemplate(source, seconds=SECONDS).render(CHAT)
    except TemplateError:
        return None


def test_there_are_enough_payloads() -> None:
    assert len(ESCAPES) + len(BOMBS) + len(DEEP) >= 160
    assert len(set(ESCAPES + BOMBS)) == len(ESCAPES) + len(BOMBS)


@pytest.mark.parametrize("source", ESCAPES)
def test_no_way_into_python(source: str) -> None:
    text = render(source)
    if text is not None:
        assert not any(
            sign in text for sign in ("<class", "<function", "<module", "<bound", "<built", " at 0x", "root:")
        )
    assert CHAT[0] == {"role": "user", "content": "hello"}


@pytest.mark.parametrize("source", BOMBS)
def test_no_bomb_takes_long_or_much(source: str) -> None:
    """The bound on time is a hundred times the budget: it catches a hang, not a slow machine."""
    tracemalloc.start()
    started = time.thread_time()
    try:
        text = render(source)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.thread_time() - started < 100 * SECONDS
    assert peak < MEMORY
    assert text is None or len(text) <= 4 << 20


@pytest.mark.parametrize("name", DEEP)
def test_depth_and_length_are_refused_or_harmless(name: str) -> None:
    text = render(DEEP[name])
    assert text is None or len(text) <= 300_000


def test_random_mixtures_end_in_text_or_a_template_error() -> None:
    draw = random.Random(11)
    pieces = [piece for source in ESCAPES + BOMBS for piece in source.replace("}}", "}} ").split(" ")]
    for _ in range(400):
        render(" ".join(draw.choice(pieces) for _ in range(draw.randint(1, 12))))


def test_messages_cannot_be_programs() -> None:
    chat = [{"role": "user", "content": "{{ 7 * 7 }}{% for i in range(9) %}x{% endfor %}"}]
    assert ChatTemplate("{{ messages[0].content }}").render(chat) == chat[0]["content"]
    with pytest.raises(RequestError):
        ChatTemplate("{{ x }}").render([{"role": "user", "content": "x", "extra": ChatTemplate}])


def test_rendering_after_a_refusal_starts_afresh() -> None:
    template = ChatTemplate("{{ 'a' * (messages[0].content | length) * 100000 }}")
    assert len(template.render([{"role": "user", "content": "x"}])) == 100_000
    with pytest.raises(TemplateError):
        template.render([{"role": "user", "content": "x" * 1000}])
    assert len(template.render([{"role": "user", "content": "x"}])) == 100_000
