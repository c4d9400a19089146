"""Limits on time that are near what a slow hour takes: exact where nothing else runs, else ten times as long.

Refusing a million parts takes 40 to 80 ms of the 100 allowed, and 130 where others have the cores; /health
takes 4 to 20 and then 100 to 290. CI still finds what waits for a client or grows with its square, and
`pytest -m speed` holds the limits.
"""

from __future__ import annotations

import pytest

with_slack = pytest.mark.parametrize(
    "slack", [pytest.param(10.0, id="shared"), pytest.param(1.0, id="quiet", marks=pytest.mark.speed)]
)
