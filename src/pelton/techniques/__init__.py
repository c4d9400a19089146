"""The registry: every technique from the literature that pelton carries, one row each in its family's file.

A row ties four things together and a test holds them to it: the file that implements the technique,
whose docstring names the papers; the switch that turns it on; the test of its defining property; and
the figure last measured for it, in docs/measurements/techniques.csv.
"""

from __future__ import annotations

from .engine import ENGINE
from .figures import COLUMNS, Figure, last_figures, measurements_folder
from .kernel import KERNEL
from .memory import MEMORY
from .row import FAMILIES, Paper, Technique
from .sampling import SAMPLING
from .scheduling import SCHEDULING
from .speculation import SPECULATION

__all__ = [
    "COLUMNS",
    "FAMILIES",
    "TECHNIQUES",
    "Figure",
    "Paper",
    "Technique",
    "last_figures",
    "measurements_folder",
]

TECHNIQUES: tuple[Technique, ...] = (
    *SCHEDULING,
    *MEMORY,
    *KERNEL,
    *ENGINE,
    *SAMPLING,
    *SPECULATION,
)
