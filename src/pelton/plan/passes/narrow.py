"""Leave out work for rows whose result nobody reads.

In a decoder that is all that follows the last layer's attention, for every row of a prompt but those whose
logits are wanted.
"""

from __future__ import annotations

from ...types import ALL_ROWS
from ..builder import PlanBuilder, rebuild
from ..op import Step, Value
from ..ops import Attend, ScatterRows, SelectRows, Tap
from ..plan import Plan

_ACROSS_ROWS = (Attend, ScatterRows, SelectRows, Tap)
"""Operations whose rows are not each made from the same row of their inputs, or that must see all of them."""


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
        if not step.outputs or not step.inputs or isinstance(step.op, _ACROSS_ROWS):
            return builder.apply(step.op, *inputs)
        row_set = self._wanted[step.outputs[0]]
        return builder.apply(step.op, *(self._rows_of(builder, value, row_set) for value in inputs))

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
        one = rows.pop() if len(rows) == 1 and not isinstance(step.op, _ACROSS_ROWS) else ALL_ROWS
        for value in step.outputs:
            wanted[value] = one
        for value in step.inputs:
            want(value, one if plan.shapes[value].rows == ALL_ROWS else plan.shapes[value].rows)
    return wanted
