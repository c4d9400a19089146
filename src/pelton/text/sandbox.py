"""Jinja's immutable sandbox with every operation bounded.

Jinja's sandbox keeps a template away from Python's internals, but not from using up the
machine: `'a' * 10**10`, doubling in a loop or comparing lists that share parts stop the
process for good. Here a template's tree is rewritten before it is compiled, so that each
loop turn, macro call, concatenation, slice, comparison and list goes through the budget;
methods, filters and globals are those of a list, each bounded. Ordinary chats render in
well under a millisecond, which a process of its own for each template would not allow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import datetime

from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateRuntimeError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, pass_context
from jinja2.visitor import NodeTransformer

from pelton.text.budget import Budget
from pelton.text.filters import bounded_filters
from pelton.text.operations import binary, call_method

MAX_RANGE = 100_000
MAX_TREE = 30_000  # nodes; the longest published templates have about 4,000, and compiling takes 50 us each
_DATE_FORMAT = re.compile(r"(?:[^%]|%[-_^#]?[A-Za-z%])*\Z")
_FORBIDDEN = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends, nodes.Block, nodes.ImportedName)


class GenerationTag(Extension):
    """`{% generation %}...{% endgeneration %}`, which marks text to train on; no effect here."""

    tags = {"generation"}  # noqa: RUF012 - Jinja reads it from the class

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The statements between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class PlainNamespace(Namespace):
    """Jinja's namespace without names that begin with an underscore."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        attributes = dict(*args, **kwargs)
        for name in attributes:
            _refuse_private(name)
        super().__init__(attributes)

    def __setitem__(self, name: str, value: object) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


def _refuse_private(name: object) -> None:
    if not isinstance(name, str) or name.startswith("_"):
        raise SecurityError("a namespace's names are words that begin with a letter")


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """The environment of one chat template. `budget` is set for each rendering, one at a time."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.budget: Budget = Budget(0.0, 0)
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", GenerationTag],
            finalize=pass_context(lambda context, value: self.budget.text(value)),
            optimized=False,
            cache_size=0,
        )
        self._functions: dict[str, Callable[..., object]] = {
            "raise_exception": _raise_exception,
            "strftime_now": lambda form: _formatted(now(), form),
            "range": _bounded_range,
            "dict": lambda *args, **kwargs: dict(*args, **kwargs),
            "namespace": PlainNamespace,
        }
        self.globals.clear()
        self.globals.update(self._functions)
        self.filters.clear()
        self.filters.update(bounded_filters(lambda context: self.budget))
        self.filters.update(
            {
                "-step": pass_context(lambda context, value: self._step(value)),
                "-weigh": pass_context(lambda context, value: self.budget.weigh(value)),
                "-concat": pass_context(
                    lambda context, values: self.budget.joined(map(self.budget.text, values))
                ),
                "-slice": pass_context(lambda context, value, *ends: self.budget.weigh(value[slice(*ends)])),
            }
        )

    def concat(self, pieces: Iterable[str]) -> str:
        """Joins what a macro or a `set` block wrote."""
        return self.budget.joined(pieces)

    def call(__self, __context: Context, __obj: object, *args: object, **kwargs: object) -> object:
        """Calls one of the functions of the list, a macro, or a method of a plain value."""
        budget = __self.budget
        budget.tick()
        for internal in ("_loop_vars", "_block_vars"):  # Jinja's own, for functions that take the context
            kwargs.pop(internal, None)
        if any(__obj is function for function in __self._functions.values()):
            assert callable(__obj)
            return budget.weigh(__obj(*args, **kwargs))
        return budget.weigh(call_method(budget, __obj, args, kwargs))

    def call_binop(self, context: Context, operator: str, left: object, right: object) -> object:
        """An arithmetic operator, refused where its result would be too large."""
        plain = self.binop_table[operator]
        return binary(self.budget, operator, left, right, lambda: plain(left, right))

    def wrap_str_format(self, value: object) -> None:
        """Jinja wraps `str.format` on access; here every call is checked when it happens."""
        return None

    def bounded_tree(self, source: str) -> nodes.Template:
        """The parsed template with the budget woven in; Jinja's TemplateError when it does not parse."""
        tree = self.parse(source)
        if sum(1 for _ in tree.find_all(nodes.Node)) > MAX_TREE:
            raise SecurityError(f"the template has more than {MAX_TREE} parts")
        for forbidden in tree.find_all(_FORBIDDEN):
            raise SecurityError(
                f"templates may not use {type(forbidden).__name__.lower()}, line {forbidden.lineno}"
            )
        woven = _Weaver().visit(tree)
        assert isinstance(woven, nodes.Template)
        woven.set_environment(self)
        return woven

    def _step(self, value: object) -> object:
        self.budget.tick()
        return value


class _Weaver(NodeTransformer):
    """Puts calls of the internal filters (no template can write their names) into a template's tree."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        node.body.insert(0, _step_statement(node))
        if node.test is not None:
            node.test = _filter("-step", node.test)
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Macro:
        self.generic_visit(node)
        node.body.insert(0, _step_statement(node))
        return node

    visit_CallBlock = visit_Macro

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filter("-concat", nodes.List(node.nodes, lineno=node.lineno))

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        ends = [end or nodes.Const(None) for end in (node.arg.start, node.arg.stop, node.arg.step)]
        return _filter("-slice", node.node, *ends)

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        constant = isinstance(node, nodes.List | nodes.Tuple) and all(
            isinstance(i, nodes.Const) for i in node.items
        )
        return node if constant or getattr(node, "ctx", "load") != "load" else _filter("-weigh", node)

    visit_Tuple = visit_List
    visit_Dict = visit_List

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        return _filter("-step", node)

    visit_Test = visit_Compare


def _filter(name: str, value: nodes.Node, *args: nodes.Expr) -> nodes.Filter:
    assert isinstance(value, nodes.Expr)
    return nodes.Filter(value, name, list(args), [], None, None, lineno=value.lineno)


def _step_statement(near: nodes.Node) -> nodes.ExprStmt:
    return nodes.ExprStmt(_filter("-step", nodes.Const(None, lineno=near.lineno)), lineno=near.lineno)


def _raise_exception(message: object) -> object:
    raise TemplateRuntimeError(f"the template refuses this chat: {str(message)[:500]}")


def _bounded_range(*args: int) -> range:
    numbers = range(*args)
    if len(numbers) > MAX_RANGE:
        raise SecurityError(f"a range may have {MAX_RANGE} numbers")
    return numbers


def _formatted(moment: datetime, form: object) -> str:
    if not isinstance(form, str) or len(form) > 128 or not _DATE_FORMAT.match(form):
        raise SecurityError("this date format is refused")
    return moment.strftime(form)
