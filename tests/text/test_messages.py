"""Messages are checked before a template sees them: one RequestError that names message and field."""

from __future__ import annotations

from typing import Any

import pytest

from pelton.errors import RequestError
from pelton.text.messages import plain_messages


class Shout(str):
    """Text of a class of its own, which must not reach a template."""


BAD: dict[str, tuple[Any, str]] = {
    "text": ("hi", "messages"),
    "none": ([], "messages = 0"),
    "not a mapping": (["hi"], r"messages\[0\]"),
    "no role": ([{"content": "x"}], r"messages\[0\].role"),
    "role with marks": ([{"role": "a|>", "content": "x"}], r"messages\[0\].role = 'a|>'"),
    "no content": ([{"role": "user"}], r"messages\[0\].content"),
    "number": ([{"role": "user", "content": 3}], r"messages\[0\].content = 'int'"),
    "image": ([{"role": "user", "content": [{"type": "image_url"}]}], r"content\[0\].type = 'image_url'"),
    "surrogate": ([{"role": "user", "content": "\udc00"}], "surrogate"),
    "object inside": ([{"role": "user", "content": "x", "extra": object()}], "object"),
    "key not text": ([{"role": "user", "content": "x", "extra": {1: 2}}], "keys are text"),
    "huge number": ([{"role": "user", "content": "x", "extra": 10**100}], "number"),
    "too much": ([{"role": "user", "content": "x" * (5 << 20)}], "characters"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_messages(name: str) -> None:
    messages, message = BAD[name]
    with pytest.raises(RequestError, match=message):
        plain_messages(messages)


def test_a_cycle_is_refused() -> None:
    loop: dict[str, Any] = {"role": "user", "content": "x"}
    loop["self"] = loop
    with pytest.raises(RequestError, match="nested"):
        plain_messages([loop])


def test_good_messages_become_plain_copies() -> None:
    call: dict[str, Any] = {
        "role": "assistant",
        "content": None,
        "tool_calls": ({"function": {"name": "f", "arguments": {"a": 1.5}}},),
    }
    original: list[dict[str, Any]] = [{"role": "user", "content": Shout("hi"), "flag": True}, call]
    plain = plain_messages(original)
    assert plain[0] == {"role": "user", "content": "hi", "flag": True}
    assert type(plain[0]["content"]) is str
    assert plain[1]["tool_calls"] == [{"function": {"name": "f", "arguments": {"a": 1.5}}}]
    assert plain[1] is not call
