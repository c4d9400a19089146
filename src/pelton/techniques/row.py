"""What the registry says of a technique."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigError

FAMILIES = ("engine", "kernel", "memory", "sampling", "scheduling", "speculation")


@dataclass(frozen=True)
class Paper:
    """`name` is how the implementing file's docstring calls it; `number` its row in the literature list."""

    name: str
    number: int | None = None


@dataclass(frozen=True)
class Technique:
    """One technique.

    exact: whether the text (or distribution) is what it would be without it. switch: how a user turns it on.
    test: pytest node id of its defining property. benchmark: its row in techniques.csv; loss: the row of
    what it loses, where it is not exact. source: module and class, `pelton.decode.accept:CoupledVerifier`,
    or the C++ file that implements it.
    """

    name: str
    family: str
    title: str
    papers: tuple[Paper, ...]
    exact: bool
    switch: str
    test: str
    benchmark: str
    source: str
    loss: str = ""

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ConfigError(f"must be one of {', '.join(FAMILIES)}", subject=self.name, field="family")
        for field in ("name", "title", "switch", "test", "benchmark", "source"):
            if not getattr(self, field):
                raise ConfigError("must not be empty", subject=self.name or "technique", field=field)
        if self.exact != (self.loss == ""):
            raise ConfigError(
                "is for what a lossy technique loses", subject=self.name, field="loss", value=self.loss
            )
        if "::" not in self.test:
            raise ConfigError("must be a pytest node id", subject=self.name, field="test", value=self.test)
