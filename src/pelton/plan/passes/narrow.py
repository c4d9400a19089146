"""Leave out work for rows whose result nobody reads.

In a decoder that is the whole last layer but for its keys and values, for every row of a prompt but those
whose logits are wanted.
"""

from __future__ import annotations

from ...types import ALL_ROWS
from ..builder import PlanBuilder, rebuild
from ..op import Op, Step, Value
from ..ops import Attend, ScatterRows, SelectRows, Tap
from ..plan import Plan


def _is_across_rows(op: Op) -> bool:
    """Whether its rows are not each made from the same row of its inputs, or it must see all of them.

    Attention treats each query by itself, but for the mass that is summed over all.
    """
    return isinstance(op, ScatterRows | SelectRows | Tap) or (isinstance(op, Attend) and op.mass is not None)


def _needed_rows(step: Step, row_set: str) -> tuple[str, ...]:
    """The rows of each input from which these rows of the outputs are made."""
    if isinstance(step.op, Attend):
        return row_set, ALL_ROWS, ALL_ROWS
    return (row_set,) * len(step.inputs)


def narrow(plan: Plan) -> Plan:
    """The same logits with selections of rows moved up to where a value is needed in full.

    A value that only reaches selections of one row set, through operations that treat each row by itself,
    is computed for those rows alone. Taps ask for all rows, so they go in before this
    pass, which is the last one before an executor is made.
    """
    return _Narrowing(plan).run()


class _Narrowing:
    """One walk from the end says which rows each value is wanted for; another rebuilds."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._wanted = _wanted_rows(plan)
        self._selected: dict[tuple[int, str], Value] = {}

    def run(self) -> Plan:
        return rebuild(self._plan, self._rewrite)

    def _rewrite(self, builder: PlanBuilder, step: Step, inputs: tuple[Value, ...]) -> tuple[Value, ...]:
        if isinstance(step.op, SelectRows):
            return (self._rows_of(builder, inputs[0], step.op.row_set),)
        if not step.outputs or _is_across_rows(step.op):
            return builder.apply(step.op, *inputs)
        needed = zip(inputs, _needed_rows(step, self._wanted[step.outputs[0]]), strict=True)
        return builder.apply(step.op, *(self._rows_of(builder, value, rows) for value, rows in needed))

    def _rows_of(self, builder: PlanBuilder, value: Value, row_set: str) -> Value:
        """The value on these rows: itself, or a selection of it that is made once."""
        if value.shape.rows == row_set or row_set == ALL_ROWS:
            return value
        key = value.id, row_set
        if key not in self._selected:
            self._selected[key] = builder.select_rows(value, row_set)
        return self._selected[key]


def _wanted_rows(plan: Plan) -> dict[int, str]:
    """The rows each value is wanted for: a row set, or all rows."""
    wanted = {plan.logits: plan.shapes[plan.logits].rows}

    def want(value: int, row_set: str) -> None:
        known = wanted.setdefault(value, row_set)
        if known != row_set:
            wanted[value] = ALL_ROWS

    for step in reversed(plan.steps):
        if isinstance(step.op, SelectRows):
            want(step.inputs[0], step.op.row_set)
            continue
        rows = {wanted.get(value, plan.shapes[value].rows) for value in step.outputs}
        one = rows.pop() if len(rows) == 1 and not _is_across_rows(step.op) else ALL_ROWS
        for value in step.outputs:
            wanted[value] = one
        for value, needed in zip(step.inputs, _needed_rows(step, one), strict=True):
            want(value, needed if plan.shapes[value].rows == ALL_ROWS else plan.shapes[value].rows)
    return wanted
