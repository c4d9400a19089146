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
        switch="on; --drafts off, LLM(drafter=NgramDrafter())",
        test="tests/test_engine.py::test_drafts_change_the_number_of_steps_never_the_text",
        benchmark="ngram-drafts",
        source="pelton.spec.ngram:NgramDrafter",
    ),
    Technique(
        name="goodput-drafts",
        family="speculation",
        title="Drafts as long as is likely to raise tokens a second, by what was right and what rows cost",
        papers=(
            Paper(
                "Optimizing Speculative Decoding for Serving Large Language Models Using Goodput", number=43
            ),
        ),
        exact=True,
        switch="on; --drafts off",
        test="tests/spec/test_budget.py::test_the_length_is_the_one_of_the_best_goodput",
        benchmark="goodput-drafts",
        source="pelton.spec.budget:GoodputBudget",
    ),
)
