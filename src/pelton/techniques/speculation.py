"""Guessing tokens, and checking guesses. One row a technique; see row.py."""

from __future__ import annotations

from .row import Paper, Technique

SPECULATION: tuple[Technique, ...] = (
    Technique(
        name="coupled-verification",
        family="speculation",
        title="A draft is accepted as far as it guessed the sample: the same text at any temperature",
        papers=(Paper("Coupling without Communication and Drafter-Invariant Speculative Decoding"),),
        exact=True,
        switch="LLM(drafter=...)",
        test="tests/decode/test_accept.py::test_any_draft_gives_the_text_of_plain_decoding",
        benchmark="coupled-verification",
        source="pelton.decode.accept:CoupledVerifier",
    ),
    Technique(
        name="ngram-drafts",
        family="speculation",
        title="Guesses copied from what followed the last few tokens earlier in the same text",
        papers=(Paper("Prompt lookup decoding"),),
        exact=True,
        switch="LLM(drafter=NgramDrafter())",
        test="tests/test_engine.py::test_drafts_change_the_number_of_steps_never_the_text",
        benchmark="ngram-drafts",
        source="pelton.spec.ngram:NgramDrafter",
    ),
)
