"""How a request is treated, as opposed to what it asks for: none of this can change its text."""

from __future__ import annotations

from dataclasses import dataclass

from .config import MAX_INTEGER
from .errors import RequestError

LONGEST_LABEL = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTerms:
    """Who asks, how urgently, and with whom prefixes may be shared. Raises RequestError.

    priority: lower runs first where a scheduler looks at it (vLLM's sense). deadline: seconds from the
    request's arrival by which its whole answer is wanted. tenant: whose share of the machine it uses.
    program: the agent or conversation that this call is one step of (Autellix). cache_salt: prefixes are
    shared only between requests of the same salt.
    """

    priority: int = 0
    deadline: float | None = None
    tenant: str = ""
    program: str = ""
    cache_salt: str = ""

    def __post_init__(self) -> None:
        if type(self.priority) is not int or abs(self.priority) > MAX_INTEGER:
            raise RequestError(
                f"must be a whole number from {-MAX_INTEGER} to {MAX_INTEGER}", field="priority"
            )
        if self.deadline is not None and not (
            type(self.deadline) in (int, float) and 0 < self.deadline <= MAX_INTEGER
        ):
            raise RequestError("must be a number of seconds above 0", field="deadline")
        for field in ("tenant", "program", "cache_salt"):
            value = getattr(self, field)
            if type(value) is not str or len(value) > LONGEST_LABEL:
                raise RequestError(f"must be a text of at most {LONGEST_LABEL} characters", field=field)
            if not value.isprintable():
                raise RequestError("must be printable", field=field)


ORDINARY = RequestTerms()
"""What a request gets that says nothing about its treatment."""
