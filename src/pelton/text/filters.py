"""The filters chat templates use, each bounded; any other name is an unknown filter."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Iterable

from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS
from jinja2.runtime import Context, Undefined
from jinja2.utils import pass_context

from pelton.text.budget import Budget
from pelton.text.operations import binary, check_width, join_texts, replace

Filter = Callable[..., object]
Check = Callable[[tuple[object, ...], dict[str, object]], None]
BudgetOf = Callable[[Context], Budget]

MAX_STRIDE = 100_000
MAX_DIGITS = 4096
MAX_INDENT = 16
MAX_WORDS_TEXT = 65536


def bounded_filters(budget_of: BudgetOf) -> dict[str, Filter]:
    """All filters by name. `budget_of` finds the budget of the rendering that a context belongs to."""
    table = {name: _checked(name, budget_of, check) for name, check in _JINJA.items()}
    table.update({name: _with_budget(function, budget_of) for name, function in _OWN.items()})
    return table


def _with_budget(function: Filter, budget_of: BudgetOf) -> Filter:
    """One of the filters below, which get the budget first."""

    @pass_context
    def call(context: Context, *args: object, **kwargs: object) -> object:
        budget = budget_of(context)
        budget.tick()
        return function(budget, *args, **kwargs)

    return call


def _checked(name: str, budget_of: BudgetOf, check: Check | None) -> Filter:
    """Jinja's own filter: its arguments checked before, its result weighed after."""
    function = FILTERS[name]
    first = _FIRST_ARGUMENT.get(name)

    @pass_context
    def call(context: Context, *args: object, **kwargs: object) -> object:
        budget = budget_of(context)
        if check is not None:
            check(args, kwargs)
        leading = () if first is None else (first(context),)
        return budget.weigh(function(*leading, *args, **kwargs))

    return call


def _refuse_long_stride(args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    for value in (*args[1:2], *kwargs.values()):
        if isinstance(value, int) and value > MAX_STRIDE:
            raise SecurityError("the template cuts a list into too many parts")


def _refuse_precision(args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    for value in (*args[1:], *kwargs.values()):
        if isinstance(value, int) and abs(value) > 32:
            raise SecurityError("the template rounds to too many digits")


def _refuse_list_sum(args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    start = kwargs.get("start", args[2] if len(args) > 2 else 0)
    if not isinstance(start, int | float):
        raise SecurityError("templates may sum numbers only")


def _refuse_long_number(args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    if any(isinstance(value, str) and len(value) > MAX_DIGITS for value in args):
        raise SecurityError("the template reads too long a number")


def _refuse_long_text(args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    # Jinja does these word by word in Python: a million words take two seconds.
    if isinstance(args[0], str) and len(args[0]) > MAX_WORDS_TEXT:
        raise SecurityError("the template takes too long a text apart")


# Jinja's filters that make nothing larger than what they are given, each with what to refuse before.
_JINJA: dict[str, Check | None] = {
    **dict.fromkeys(("abs", "capitalize", "count", "d", "default", "dictsort", "first", "groupby"), None),
    **dict.fromkeys(("items", "last", "length", "list", "lower", "map", "max", "min", "reject"), None),
    **dict.fromkeys(("rejectattr", "reverse", "select", "selectattr", "sort", "unique", "upper"), None),
    **dict.fromkeys(("title", "wordcount"), _refuse_long_text),
    **dict.fromkeys(("batch", "slice"), _refuse_long_stride),
    **dict.fromkeys(("int", "float"), _refuse_long_number),
    "round": _refuse_precision,
    "sum": _refuse_list_sum,
}
_FIRST_ARGUMENT: dict[str, Callable[[Context], object]] = {
    **dict.fromkeys(("map", "reject", "rejectattr", "select", "selectattr"), lambda context: context),
    **dict.fromkeys(("list", "slice"), lambda context: context.eval_ctx),
    **dict.fromkeys(
        ("first", "groupby", "last", "max", "min", "sort", "sum", "unique"),
        lambda context: context.environment,
    ),
}


def _tojson(
    budget: Budget,
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As Hugging Face's: without HTML escapes, and Unicode as it is."""
    if indent is not None and not (isinstance(indent, int) and 0 <= indent <= MAX_INDENT):
        raise SecurityError(f"the template indents JSON by more than {MAX_INDENT}")
    if separators is not None and any(len(separator) > MAX_INDENT for separator in separators):
        raise SecurityError("the template separates JSON by too much")
    budget.check_json(value, indent or 0)
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _join(
    budget: Budget, value: Iterable[object], separator: object = "", attribute: str | None = None
) -> str:
    if attribute is not None:
        raise SecurityError("templates may not join attributes; map them first")
    texts = [budget.text(item) for item in value]
    return join_texts(budget, texts, budget.text(separator))


def _indent(budget: Budget, text: str, width: object = 4, first: bool = False, blank: bool = False) -> str:
    if not isinstance(text, str):
        raise TypeError("indent takes a text")
    check_width(budget, width if isinstance(width, int) else len(budget.text(width)))
    margin = " " * width if isinstance(width, int) else budget.text(width)
    budget.make(len(text) + (text.count("\n") + 2) * len(margin))
    lines = (text + "\n").splitlines()
    rest = [margin + line if line or blank else line for line in lines[1:]]
    head = margin + lines[0] if first else lines[0]
    return "\n".join([head, *rest])


def _center(budget: Budget, text: object, width: object = 80) -> str:
    shown = budget.text(text)
    check_width(budget, width)
    assert isinstance(width, int)
    return shown.center(width)


def _trim(budget: Budget, text: object, characters: str | None = None) -> str:
    shown = budget.text(text)
    budget.search(shown, characters)
    return shown.strip(characters)


def _replace(budget: Budget, text: object, old: object, new: object, count: object = None) -> str:
    return replace(budget, budget.text(text), old, new, count)


def _format(budget: Budget, pattern: object, *args: object, **kwargs: object) -> object:
    shown = budget.text(pattern)
    if args and kwargs:
        raise TypeError("format takes positions or names, not both")
    if kwargs:
        raise SecurityError("templates may format by position only")
    return binary(budget, "%", shown, args, lambda: shown % args)


def _string(budget: Budget, value: object) -> str:
    return budget.text(value)


def _escape(budget: Budget, value: object) -> str:
    shown = budget.text(value)
    budget.make(6 * len(shown))
    return html.escape(shown)


def _attribute(budget: Budget, value: object, name: str) -> object:
    """`value|attr(name)` for mappings only: there is no way into objects."""
    return value[name] if isinstance(value, dict) and name in value else Undefined(name=str(name))


_OWN: dict[str, Filter] = {
    "attr": _attribute,
    "center": _center,
    "e": _escape,
    "escape": _escape,
    "format": _format,
    "indent": _indent,
    "join": _join,
    "replace": _replace,
    "safe": _string,
    "string": _string,
    "tojson": _tojson,
    "trim": _trim,
}
