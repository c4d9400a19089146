"""Where a JSON object or array in a model's text ends, told one character at a time."""

from __future__ import annotations

from enum import Enum

MAX_DEPTH = 64
BLANKS = " \t\n\r"
_ESCAPES = '"\\/bfnrtu'
_WORD = frozenset("truefalsn0123456789+-.eE")


class Scan(Enum):
    """What is known of the text so far."""

    OPEN = "open"
    DONE = "done"
    BAD = "bad"


class _Expect(Enum):
    VALUE = "a value"
    FIRST_VALUE = "a value or ]"
    FIRST_KEY = "a key or }"
    KEY = "a key"
    COLON = ":"
    COMMA = ", or the end"


class JsonScanner:
    """Follows an object or array to its end; constant work a character, no recursion.

    Says BAD at the first character that can belong to no JSON text, except inside numbers and words such
    as `true`: those are only held to their alphabet, so a reader must still parse the whole.
    """

    __slots__ = ("_escape", "_expect", "_in_string", "_is_key", "_stack", "_word")

    def __init__(self) -> None:
        self._stack: list[str] = []
        self._expect = _Expect.VALUE
        self._in_string = False
        self._is_key = False
        self._escape = False
        self._word = False

    def feed(self, character: str) -> Scan:
        """Take one character; the first must open an object or array."""
        if self._in_string:
            return self._string(character)
        if self._word:
            if character in _WORD:
                return Scan.OPEN
            self._word = False
            self._expect = _Expect.COMMA
        if character in BLANKS:
            return Scan.OPEN if self._stack else Scan.BAD
        return self._token(character)

    def _string(self, character: str) -> Scan:
        if self._escape:
            self._escape = False
            return Scan.OPEN if character in _ESCAPES else Scan.BAD
        if character == '"':
            self._in_string = False
            self._expect = _Expect.COLON if self._is_key else _Expect.COMMA
        elif character == "\\":
            self._escape = True
        elif character < " ":
            return Scan.BAD
        return Scan.OPEN

    def _token(self, character: str) -> Scan:
        expect = self._expect
        if expect is _Expect.COMMA:
            return self._after_value(character)
        if expect is _Expect.COLON:
            self._expect = _Expect.VALUE
            return Scan.OPEN if character == ":" else Scan.BAD
        if expect in (_Expect.KEY, _Expect.FIRST_KEY):
            if character == "}" and expect is _Expect.FIRST_KEY:
                return self._close()
            self._in_string = self._is_key = True
            return Scan.OPEN if character == '"' else Scan.BAD
        if character == "]" and expect is _Expect.FIRST_VALUE:
            return self._close()
        return self._value(character)

    def _value(self, character: str) -> Scan:
        if character in "{[":
            if len(self._stack) >= MAX_DEPTH:
                return Scan.BAD
            self._stack.append("}" if character == "{" else "]")
            self._expect = _Expect.FIRST_KEY if character == "{" else _Expect.FIRST_VALUE
            return Scan.OPEN
        if not self._stack:
            return Scan.BAD
        if character == '"':
            self._in_string, self._is_key = True, False
            return Scan.OPEN
        self._word = character in "tfn-0123456789"
        return Scan.OPEN if self._word else Scan.BAD

    def _after_value(self, character: str) -> Scan:
        closing = self._stack[-1]
        if character == closing:
            return self._close()
        if character != ",":
            return Scan.BAD
        self._expect = _Expect.KEY if closing == "}" else _Expect.VALUE
        return Scan.OPEN

    def _close(self) -> Scan:
        self._stack.pop()
        self._expect = _Expect.COMMA
        return Scan.OPEN if self._stack else Scan.DONE
