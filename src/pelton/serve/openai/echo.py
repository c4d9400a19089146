"""`echo`: the prompt before each text of /v1/completions, with its log probabilities where those are told."""

from __future__ import annotations

from collections.abc import Sequence

from ...decode.logprobs import TokenLogprobs
from ..answers.prompts import Prompts
from .logprobs import OffsetLogprobs
from .replies import TextLogprobs

PromptRows = Sequence[TokenLogprobs | None] | None


class Echo:
    """The prompts of one request, as they were given."""

    def __init__(self, prompts: Prompts, given: Sequence[str | list[int]], is_cut: bool) -> None:
        self._prompts = prompts
        self._given = given
        self._is_cut = is_cut
        self._rows: dict[int, PromptRows] = {}

    async def text(self, number: int, ids: list[int]) -> str:
        """Prompt `number`, whose token ids are `ids`."""
        given = self._given[number]
        return given if isinstance(given, str) and not self._is_cut else await self._prompts.decode(ids)

    def keep(self, number: int, rows: PromptRows) -> None:
        """Log probabilities of a prompt come once, with whichever text begins first."""
        if rows is not None:
            self._rows[number] = rows

    def logprobs(self, number: int, ids: list[int], offsets: OffsetLogprobs, top: int) -> TextLogprobs:
        """Those of a prompt's tokens; the first has none, since nothing predicts it."""
        rows = self._rows.get(number) or ()
        first = self._prompts.tokenizer.decode(ids[:1], skip_special=False)
        begun = offsets.unpredicted(first)
        rest = offsets.take([row for row in rows if row is not None], top)
        return joined_logprobs(begun, rest)


def joined_logprobs(first: TextLogprobs, second: TextLogprobs) -> TextLogprobs:
    return TextLogprobs(
        text_offset=first.text_offset + second.text_offset,
        token_logprobs=first.token_logprobs + second.token_logprobs,
        tokens=first.tokens + second.tokens,
        top_logprobs=first.top_logprobs + second.top_logprobs,
    )
