"""pelton: the most right answers out of a fixed amount of compute."""

from __future__ import annotations

__version__ = "0.1.0"
