"""How servers are reached and whom a pull reports to: settings alone, which cost no program without
downloads the import of a web client."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

# Called with (bytes done, bytes in all or None where the server does not say).
Progress: TypeAlias = Callable[[int, "int | None"], None]


@dataclass(frozen=True)
class Transport:
    """How to reach servers. Proxies come from `proxy`, else from the environment's usual variables.

    `attempts` failures in a row end a download; the n-th is followed by `pause_seconds` * 2^n.
    """

    certificate: Path | None = None
    proxy: str | None = None
    timeout_seconds: float = 30.0
    attempts: int = 5
    pause_seconds: float = 0.5


@dataclass(frozen=True)
class PullContext:
    """One pull: the folder it works in, how it reaches servers, whom it tells about its progress."""

    work: Path
    transport: Transport
    progress: Progress | None
    notify: Callable[[str], None]
