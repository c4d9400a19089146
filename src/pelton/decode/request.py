"""What decoding needs to know of one sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ..config import SamplingParams
from .history import TokenHistory
from .pipeline import build_processors
from .processor import Processor, RequestTokens
from .shape import Shape, shape_of


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """How the tokens of one sequence are chosen.

    Settings are fixed; `history` is the sequence's own and grows by the caller's pushes. The random
    number of a token is that of (`seed`, its position, `stream`), so nothing else needs saving.
    `shape` is what the processors come to where that is all they do, else None; `is_plain` says whether
    the most likely token is all that is asked for.
    """

    processors: tuple[Processor, ...]
    greedy: bool
    seed: int
    stream: int
    logprobs: int | None
    history: TokenHistory
    shape: Shape | None = field(init=False)
    is_plain: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", shape_of(self.processors, self.greedy))
        plain = self.greedy and not self.processors and self.logprobs is None
        object.__setattr__(self, "is_plain", plain)

    @classmethod
    def from_params(
        cls,
        params: SamplingParams,
        tokens: RequestTokens,
        prompt: Sequence[int],
        seed: int,
        stream: int = 0,
    ) -> DecodeRequest:
        """Sequence `stream` of a request; `seed` is the request's, or one the engine drew for it."""
        processors = build_processors(params, tokens)
        grammar = None if tokens.grammar is None else tokens.grammar.start()
        history = TokenHistory(prompt, grammar=grammar)
        return cls(processors, params.is_greedy, seed, stream, params.logprobs, history)

    def fork(self, stream: int) -> DecodeRequest:
        """The same settings and tokens so far, continuing on another random stream."""
        return replace(self, stream=stream, history=self.history.fork())
