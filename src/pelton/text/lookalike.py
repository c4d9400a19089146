"""Keeping control tokens out of what users write, whatever a chat template does with it.

A template's own `<|im_start|>` must become the control token, the same letters typed by a
user must not, and both end up in one rendered text. So before rendering, every look-alike
in a user's strings is broken by a mark, one noncharacter that nothing else in the request
contains; control tokens are recognized in the rendered text, where broken look-alikes are
none; then the marks are dropped and the rest is tokenized as if they had never been there.
Text without look-alikes is never touched, so its tokens are those of the plain rendering.

A template may also glue strings together so that a look-alike arises only there (two parts
`<|im_` and `end|>`). That is found by rendering once more with *every* place broken where a
control token could begin or be continued, in which all control tokens are the template's
own: when the two renderings differ in their control tokens, the second one is used.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from pelton.errors import RequestError

MARKS = tuple(chr(code) for code in range(0xFDD0, 0xFDF0))  # Unicode's noncharacters for internal use
# Words that templates compare with and that name parts of a message; checked to be words, never broken.
_NAMES = frozenset({"role", "type"})
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_-]*\Z")


class LookalikeGuard:
    """Breaks look-alikes of the given control tokens in JSON-like values.

    `protect` breaks whole look-alikes (in any case of letters, since templates may change it);
    `isolate` breaks every place where a control token could start, and before every string.
    """

    def __init__(self, control: tuple[str, ...]) -> None:
        longest_first = sorted({token for token in control if token}, key=len, reverse=True)
        alternatives = "|".join(re.escape(token) for token in longest_first)
        starts = sorted({variant for token in longest_first for variant in _cases(token[0])})
        self._control = re.compile(alternatives) if alternatives else None
        self._any_case = re.compile(alternatives, re.IGNORECASE) if alternatives else None
        self._start = re.compile("|".join(re.escape(start) for start in starts)) if starts else None

    def choose_mark(self, texts: list[str]) -> str:
        """A noncharacter in none of `texts`; RequestError when a request holds all 32 of them."""
        for mark in MARKS:
            escaped = f"\\u{ord(mark):04x}"
            if not any(mark in text or escaped in text for text in texts):
                return mark
        raise RequestError(
            "the text holds every Unicode noncharacter from U+FDD0 to U+FDEF", field="messages"
        )

    def protect(self, value: object, mark: str) -> object:
        """A copy of `value` with a mark after the first character of each look-alike."""
        pattern = self._any_case
        if pattern is None:
            return value
        return _map_strings(value, lambda text: pattern.sub(lambda match: _broken(match[0], mark), text))

    def isolate(self, value: object, mark: str) -> object:
        """A copy of `value` in which no control token can begin, end or lie across a user's string."""
        start = self._start
        if start is None:
            return value

        def apart(match: re.Match[str]) -> str:
            return mark + match[0] + mark  # on both sides: a template may reverse the text

        return _map_strings(
            value,
            lambda text: mark + start.sub(apart, text) if text else text,
            change_key=lambda key: start.sub(apart, key),
        )

    def control_tokens(self, text: str) -> list[str]:
        """The control tokens in a rendered text, in order."""
        return [] if self._control is None else self._control.findall(text)


def _broken(token: str, mark: str) -> str:
    if len(token) == 1:
        raise RequestError(
            "this model reserves the character as a control token", field="messages", value=token
        )
    return token[0] + mark + token[1:]


def _cases(character: str) -> set[str]:
    return {character, character.lower(), character.upper()}


def _map_strings(
    value: object,
    change: Callable[[str], str],
    change_key: Callable[[str], str] | None = None,
    name: str = "",
) -> object:
    if isinstance(value, str):
        return value if name in _NAMES and _WORD.match(value) else change(value)
    if isinstance(value, list):
        return [_map_strings(item, change, change_key) for item in value]
    if isinstance(value, dict):
        keyed = change_key or change
        return {keyed(key): _map_strings(item, change, change_key, key) for key, item in value.items()}
    return value


def all_strings(value: object) -> list[str]:
    """Every string in a JSON-like value, keys included."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for item in value for text in all_strings(item)]
    if isinstance(value, dict):
        return [text for key, item in value.items() for text in (key, *all_strings(item))]
    return []
