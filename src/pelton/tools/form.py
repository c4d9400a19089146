"""The exact spelling of calls that a grammar makes a model write, and the parser that reads just that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .calls import Delta, Found
from .json_scan import JsonScanner, Scan


@dataclass(frozen=True)
class CallForm:
    """`prefix`, then calls with `separator` between them, then `suffix`; a call is `opening` name `between`
    arguments `closing`. Names end where `between`, or the `{` of the arguments, begins."""

    opening: str
    between: str
    closing: str
    separator: str
    prefix: str = ""
    suffix: str = ""


HERMES = CallForm('<tool_call>\n{"name": "', '", "arguments": ', "}\n</tool_call>", "\n")
LLAMA3 = CallForm('{"name": "', '", "parameters": ', "}", "; ")
MISTRAL_LIST = CallForm('{"name": "', '", "arguments": ', "}", ", ", "[TOOL_CALLS][", "]")
MISTRAL_NAMED = CallForm("[TOOL_CALLS]", "[ARGS]", "", "")


class FormParser:
    """Reads the text of a grammar made from a form, and gives the arguments as they come.

    Blanks beyond the form's own do not occur in such a text. One that was cut off leaves its last call's
    arguments unfinished; whatever is not of the form ends the calls and becomes text.
    """

    def __init__(self, form: CallForm) -> None:
        self.steps = 0
        self._form = form
        self._found = Found()
        self._expected = form.prefix + form.opening
        self._place = 0
        self._raw: list[str] = []  # of a call whose name is not whole yet
        self._name: list[str] = []
        self._scanner = JsonScanner()
        self._step: Callable[[str], None] = self._in_opening

    def feed(self, text: str) -> list[Delta]:
        for character in text:
            self.steps += 1
            self._step(character)
        return self._found.take()

    def finish(self) -> list[Delta]:
        """What was cut off before it was a call is text, unless calls came before it."""
        if not self._found.num_calls:
            self._found.text("".join(self._raw))
        return self._found.take()

    def _in_opening(self, character: str) -> None:
        self._raw.append(character)
        if not self._is_expected(character):
            self._give_up()
        elif self._place == len(self._expected):
            self._step = self._in_name

    def _in_name(self, character: str) -> None:
        if character in '"[{':  # no name has these, and either a form's `between` or the arguments begin so
            self._expected, self._place = self._form.between, 0
            self._step = self._in_between
            self._in_between(character)
        else:
            self._raw.append(character)
            self._name.append(character)

    def _in_between(self, character: str) -> None:
        self._raw.append(character)
        if self._place < len(self._expected):
            if not self._is_expected(character):
                self._give_up()
        elif character != "{":
            self._give_up()
        else:
            self._found.call("".join(self._name), "")
            self._raw.clear()
            self._name.clear()
            self._scanner = JsonScanner()
            self._step = self._in_arguments
            self._in_arguments(character)

    def _in_arguments(self, character: str) -> None:
        scan = self._scanner.feed(character)
        if scan is Scan.BAD:
            self._raw.append(character)
            return self._give_up()
        self._found.arguments(character)
        if scan is Scan.DONE:
            self._expected, self._place = self._form.closing, 0
            self._step = self._in_closing

    def _in_closing(self, character: str) -> None:
        """The closing; then the suffix, or the separator and the next call."""
        form = self._form
        if self._place < len(self._expected):
            if not self._is_expected(character):
                self._raw.append(character)
                self._give_up()
        elif form.suffix and character == form.suffix[0]:
            self._step = self._in_suffix
        else:
            self._expected, self._place = form.separator + form.opening, 0
            self._step = self._in_opening
            self._in_opening(character)

    def _in_suffix(self, character: str) -> None:
        """Nothing that matters follows."""

    def _is_expected(self, character: str) -> bool:
        if self._expected[self._place] != character:
            return False
        self._place += 1
        return True

    def _give_up(self) -> None:
        self._found.text("".join(self._raw))
        self._raw.clear()
        self._step = self._found.text
