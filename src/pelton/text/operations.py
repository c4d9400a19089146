"""The operators, methods and formats that templates may use, each bounded before it runs."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import BuiltinMethodType, MethodType

from jinja2.exceptions import SecurityError
from jinja2.runtime import LoopContext, Macro, Undefined

from pelton.text.budget import MAX_NODES, MAX_NUMBER_BITS, Budget

_PLAIN_TEXT_METHODS = frozenset(
    (
        *("strip", "lstrip", "rstrip", "split", "rsplit", "splitlines", "partition", "rpartition"),
        *(
            "startswith",
            "endswith",
            "removeprefix",
            "removesuffix",
            "find",
            "rfind",
            "index",
            "rindex",
            "count",
        ),
        *("upper", "lower", "title", "capitalize", "swapcase", "casefold"),
        *(
            "isdigit",
            "isalpha",
            "isalnum",
            "isspace",
            "isupper",
            "islower",
            "isnumeric",
            "isdecimal",
            "isascii",
        ),
    )
)
_METHODS: Mapping[type, frozenset[str]] = {
    list: frozenset({"index", "count", "copy"}),
    tuple: frozenset({"index", "count"}),
    dict: frozenset({"get", "items", "keys", "values", "copy"}),
    float: frozenset({"is_integer"}),
    int: frozenset({"bit_length"}),
}
_LOOP_METHODS = frozenset({"cycle", "changed"})
_LONG_NUMBER = re.compile(r"\d{4}")


def call_method(
    budget: Budget, method: object, args: tuple[object, ...], kwargs: dict[str, object]
) -> object:
    """Calls a bound method of a plain value, a macro or a loop; SecurityError for anything else."""
    if isinstance(method, Macro | Undefined):
        return method(*args, **kwargs)
    if isinstance(method, LoopContext):  # `loop(children)` in a recursive loop
        (inner,) = args
        if not isinstance(inner, Iterable):
            raise TypeError("a recursive loop takes a list")
        return method(inner)
    if isinstance(method, MethodType) and isinstance(method.__self__, LoopContext):
        if method.__name__ in _LOOP_METHODS:
            return method(*args, **kwargs)
    elif isinstance(method, BuiltinMethodType):
        owner, name = method.__self__, method.__name__
        if type(owner) is str:
            return _call_text_method(budget, owner, name, method, args, kwargs)
        if name in _METHODS.get(type(owner), frozenset()):
            return method(*args, **kwargs)
    raise SecurityError(f"templates may not call {getattr(method, '__name__', type(method).__name__)!r}")


def _call_text_method(
    budget: Budget,
    text: str,
    name: str,
    method: Callable[..., object],
    args: tuple[object, ...],
    kwargs: dict[str, object],
) -> object:
    if name in _PLAIN_TEXT_METHODS:
        for arg in (*args, *kwargs.values()):
            budget.search(text, arg)
        return method(*args, **kwargs)
    if name == "replace" and not kwargs:
        return replace(budget, text, *args)
    if name == "join" and len(args) == 1 and not kwargs:
        return join_texts(budget, args[0], text)
    if name in ("center", "ljust", "rjust", "zfill") and args:
        check_width(budget, args[0])
        return method(*args)
    if name == "format":
        return BoundedFormatter(budget).vformat(text, args, kwargs)
    raise SecurityError(f"templates may not call str.{name}")


def replace(budget: Budget, text: str, old: object = "", new: object = "", count: object = None) -> str:
    """`text.replace(old, new)`, at most `count` times, with the length of the result known first."""
    if not isinstance(old, str) or not isinstance(new, str):
        raise TypeError("replace takes texts")
    times = -1 if count is None or not isinstance(count, int) else count
    found = text.count(old)
    if times >= 0:
        found = min(found, times)
    budget.make(len(text) + found * max(0, len(new) - len(old)))
    return text.replace(old, new, times)


def join_texts(budget: Budget, pieces: object, separator: str) -> str:
    """`separator.join(pieces)`; TypeError unless all are texts."""
    if not isinstance(pieces, Iterable):
        raise TypeError("join takes a list")
    listed = []
    for piece in pieces:
        if not isinstance(piece, str):
            raise TypeError(f"join takes texts, not {type(piece).__name__}")
        listed.append(piece)
        if len(listed) > MAX_NODES:
            raise SecurityError("the template joins too many texts")
    return budget.joined(listed, separator)


def check_width(budget: Budget, width: object) -> None:
    """Refuses a padding width beyond the longest text."""
    if not isinstance(width, int) or abs(width) > budget.max_text:
        raise SecurityError("the template pads a text too far")
    budget.make(abs(width))


def binary(budget: Budget, operator: str, left: object, right: object, plain: Callable[[], object]) -> object:
    """The result of `left operator right`, which `plain` computes, refused when it would be too large."""
    if operator == "*":
        _check_product(budget, left, right)
    elif operator == "**":
        _check_power(left, right)
    elif operator == "%" and isinstance(left, str):
        _check_percent(budget, left, right)
    elif operator == "+" and isinstance(left, str) and isinstance(right, str):
        budget.make(len(left) + len(right))
        return left + right
    return budget.weigh(plain())


def _check_product(budget: Budget, left: object, right: object) -> None:
    for sequence, times in ((left, right), (right, left)):
        if isinstance(sequence, str | list | tuple) and isinstance(times, int):
            budget.make(len(sequence) * max(0, times) * (1 if isinstance(sequence, str) else 8))
            return
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() + right.bit_length())


def _check_power(left: object, right: object) -> None:
    if isinstance(left, int) and isinstance(right, int) and right > 0:
        _check_bits(left.bit_length() * right)


def _check_bits(bits: int) -> None:
    if bits > MAX_NUMBER_BITS:
        raise SecurityError("the template makes too large a number")


def _check_percent(budget: Budget, pattern: str, values: object) -> None:
    if _LONG_NUMBER.search(pattern) or re.search(r"%[^%a-zA-Z]*\*", pattern):
        raise SecurityError("the template pads a text too far")
    nodes = values if isinstance(values, list | tuple) else [values]
    for value in nodes:
        if not isinstance(value, str | int | float | bool | None | Undefined):
            raise SecurityError(f"templates may not format a {type(value).__name__}")
    longest = max((len(value) for value in nodes if isinstance(value, str)), default=0)
    budget.make(len(pattern) + pattern.count("%") * (longest + 1000))


class BoundedFormatter(string.Formatter):
    """`str.format` on plain values without attributes, items or large widths."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget

    def get_field(
        self, field_name: str, args: Sequence[object], kwargs: Mapping[str, object]
    ) -> tuple[object, int | str]:
        """The value of a field; only plain names and positions, no way into objects."""
        if "." in field_name or "[" in field_name:
            raise SecurityError("a format may not reach into values")
        found, used = super().get_field(field_name, args, kwargs)
        return found, used

    def format_field(self, value: object, format_spec: str) -> str:
        """One formatted value, its width bounded."""
        if _LONG_NUMBER.search(format_spec):
            raise SecurityError("the template pads a text too far")
        self._budget.tick()
        shown = self._budget.text(value) if not isinstance(value, int | float) else value
        formatted: str = format(shown, format_spec)
        self._budget.make(len(formatted))
        return formatted
