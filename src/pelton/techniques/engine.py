"""What holds for every step. One row a technique; see row.py."""

from __future__ import annotations

from .row import Technique

ENGINE: tuple[Technique, ...] = (
    Technique(
        name="fixed-order-reductions",
        family="engine",
        title="Every sum runs in one order whatever the batch, chunks or threads: equal bits, not near ones",
        papers=(),
        exact=True,
        switch="always on",
        test="tests/laws/test_rows.py::test_the_real_model",
        benchmark="fixed-order-reductions",
        source="csrc/kernels/linear.h",
    ),
)
