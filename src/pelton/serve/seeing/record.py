"""What is known of one HTTP request: its log line and its trace are made of this when it has ended."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from time import monotonic, time
from typing import Any

from ...config import SamplingParams

_KEY = "pelton.record"


@dataclass
class RequestRecord:
    """Filled in on the way; no text of prompts or answers, no keys. Times on `monotonic`'s clock.

    until: when the request must have ended; None: no limit. route: the pattern that matched, "" if none.
    began_at: when it came, seconds since 1970. started: when the engine first ran it. parts: what of it is
    under way: its HTTP exchange, and work that goes on after that in the background.
    """

    id: str
    method: str
    path: str
    until: float | None = None
    traceparent: str = ""
    tracestate: str = ""
    tenant: str = ""
    route: str = ""
    status: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    sequences: int = 0
    finish_reasons: list[str] = field(default_factory=list)
    params: SamplingParams | None = None
    began_at: float = field(default_factory=time)
    began: float = field(default_factory=monotonic)
    started: float | None = None
    first_token: float | None = None
    ended: float | None = None
    parts: int = 1

    @property
    def seconds(self) -> float:
        """From its arrival to its end, or until now."""
        return (monotonic() if self.ended is None else self.ended) - self.began

    @property
    def left(self) -> float | None:
        """Seconds that it may still take; None: any number."""
        return None if self.until is None else max(0.0, self.until - monotonic())


def deadline(seconds: float | None) -> float | None:
    """When a request that comes now must have ended, if it may take so many seconds; None: no limit."""
    return None if seconds is None else monotonic() + seconds


def attach(scope: MutableMapping[str, Any], record: RequestRecord) -> None:
    """Let whoever handles the ASGI scope find its record."""
    scope[_KEY] = record


def record_of(scope: MutableMapping[str, Any]) -> RequestRecord:
    record = scope[_KEY]
    assert isinstance(record, RequestRecord)
    return record
