"""Grammar states: what they allow, and that only the tokens so far decide it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pelton.config import SamplingParams
from pelton.decode.grammar import GrammarCompiler, GrammarState, GrammarVocabulary, token_ids
from pelton.decode.grammar_mask import GrammarMask
from pelton.decode.history import TokenHistory
from pelton.decode.processor import REFUSED, RequestTokens
from pelton.decode.request import DecodeRequest
from pelton.decode.sampler import Decoded, Sampler
from pelton.errors import RequestError
from pelton.structured import StructuredOutputs

from .grammars import COMPILER, END, FORMS, Form, text_of, tokens_of


def walk(form: Form, random: np.random.Generator, most: int) -> tuple[list[int], GrammarState]:
    """Tokens drawn at random among the allowed, until the text ends or `most` are out."""
    state = COMPILER.compile(form.wanted).start()
    tokens: list[int] = []
    while len(tokens) < most and END not in tokens:
        token = int(random.choice(token_ids(state.allowed())))
        tokens.append(token)
        state.push(token)
    return tokens, state


def after(form: Form, tokens: list[int]) -> GrammarState:
    state = COMPILER.compile(form.wanted).start()
    for token in tokens:
        state.push(token)
    return state


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("count", [30, pytest.param(9000, marks=pytest.mark.fuzz, id="long")])
def test_texts_drawn_under_the_mask_have_the_form(name: str, count: int) -> None:
    """Reliability 23: 11 forms of 9,000 texts in the long run."""
    form, random = FORMS[name], np.random.default_rng(7)
    ended = 0
    for _ in range(count):
        tokens, state = walk(form, random, 120)
        if tokens[-1] == END:
            ended += 1
            assert form.accepts(text_of(tokens)), text_of(tokens)
        assert bool(state.allowed()[END]) == (tokens[-1] == END or form.accepts(text_of(tokens)))
    assert ended > 5


@pytest.mark.parametrize("name", FORMS)
def test_the_end_is_allowed_exactly_where_the_text_is_whole(name: str) -> None:
    form, random = FORMS[name], np.random.default_rng(3)
    state = COMPILER.compile(form.wanted).start()
    tokens: list[int] = []
    for _ in range(80):
        allowed = token_ids(state.allowed())
        assert (END in allowed) == form.accepts(text_of(tokens)), text_of(tokens)
        inner = [token for token in allowed if token != END]
        if not inner:
            break
        tokens.append(int(random.choice(inner)))
        state.push(tokens[-1])


@given(name=st.sampled_from(sorted(FORMS)), seed=st.integers(0, 2**20), data=st.data())
@settings(max_examples=60)
def test_pushes_rollbacks_and_forks_leave_no_trace(name: str, seed: int, data: st.DataObject) -> None:
    form, random = FORMS[name], np.random.default_rng(seed)
    tokens, state = walk(form, random, data.draw(st.integers(1, 60)))
    keep = data.draw(st.integers(0, len(tokens)))
    twin = state.fork()
    state.rollback(len(tokens) - keep)
    fresh = after(form, tokens[:keep])
    assert token_ids(state.allowed()) == token_ids(fresh.allowed())
    for token in tokens[keep:]:
        assert token in token_ids(state.allowed())
        state.push(token)
    assert token_ids(twin.allowed()) == token_ids(after(form, tokens).allowed())
    assert token_ids(state.allowed()) == token_ids(twin.allowed())


def test_after_the_end_only_the_end_is_allowed_and_it_rolls_back() -> None:
    state = after(FORMS["date"], [*tokens_of("2024-02-03"), END, END])
    assert token_ids(state.allowed()) == [END]
    state.rollback(3)
    assert text_of(token_ids(state.allowed())) == "0123456789"
    assert END not in token_ids(state.allowed())


def test_tokens_of_several_characters_are_allowed_where_they_fit() -> None:
    words = GrammarVocabulary((b"ye", b"s", b"no", b"yes", b"n", b"\xc3", b"\xa9", b"<e>"), (7,), (7,), 9)
    compiler = GrammarCompiler(words)
    state = compiler.compile(StructuredOutputs(choice=["yes", "no", "né"])).start()
    assert token_ids(state.allowed()) == [0, 2, 3, 4]
    state.push(4)
    assert token_ids(state.allowed()) == [5]
    state.push(5)
    assert token_ids(state.allowed()) == [6]


@pytest.mark.parametrize(
    "wanted",
    [
        StructuredOutputs(json={"type": "object"}),
        StructuredOutputs(json={"type": "object"}, disable_any_whitespace=True),
        StructuredOutputs(json_object=True),
        StructuredOutputs(choice=["{x"]),
        StructuredOutputs(regex=r"\{x"),
        StructuredOutputs(grammar='start: "{x"'),
        StructuredOutputs(grammar='root ::= "{x"'),
    ],
)
def test_a_text_that_the_vocabulary_cannot_spell_gets_no_other_token(wanted: StructuredOutputs) -> None:
    words = GrammarVocabulary((b"x", b" ", b'"', b"<e>"), (3,), (3,), 4)
    with pytest.raises(RequestError, match="no text matches it"):
        GrammarCompiler(words).compile(wanted).start().allowed()


def test_where_one_text_can_follow_every_token_that_begins_it_is_allowed() -> None:
    words = GrammarVocabulary((b"a", b"ab", b"abc", b"b", b"c", b"<e>"), (5,), (5,), 6)
    state = GrammarCompiler(words).compile(StructuredOutputs(regex="abc")).start()
    assert token_ids(state.allowed()) == [0, 1, 2]
    state.push(0)
    assert token_ids(state.allowed()) == [3]


@pytest.mark.parametrize(
    "text", ["a\x7fb", "\x00", "\x1f", "\\", '"', "é", "\u2028", "\U0001f600", "%json {}", "#", "\\n"]
)
def test_a_choice_may_hold_any_character(text: str) -> None:
    words = GrammarVocabulary((*(bytes([byte]) for byte in range(256)), b"<e>"), (256,), (256,), 257)
    state = GrammarCompiler(words).compile(StructuredOutputs(choice=[text, "zz"])).start()
    for byte in text.encode():
        assert state.allowed()[byte]
        state.push(byte)
    assert token_ids(state.allowed()) == [256]


def test_control_tokens_never_stand_for_their_spelling() -> None:
    words = GrammarVocabulary((b"<e>", b"<", b"e", b">", b"<|x|>"), (0, 4), (0,), 5)
    state = GrammarCompiler(words).compile(StructuredOutputs(regex=".*")).start()
    assert token_ids(state.allowed()) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (StructuredOutputs(regex="("), "unclosed group"),
        (StructuredOutputs(regex="(?=a)b"), "look-around"),
        (StructuredOutputs(json={"type": "foo"}), "Invalid type: foo"),
        (StructuredOutputs(grammar="root ::= missing"), "missing"),
        (StructuredOutputs(grammar="start: missing"), "missing"),
    ],
)
def test_a_mistake_is_an_error_with_the_librarys_reason(wanted: StructuredOutputs, reason: str) -> None:
    with pytest.raises(RequestError, match=reason) as caught:
        COMPILER.compile(wanted)
    assert caught.value.field == wanted.kind
    assert "forcing" not in str(caught.value)


def test_a_grammar_without_texts_is_an_error_at_its_first_mask() -> None:
    state = COMPILER.compile(StructuredOutputs(grammar="start: start")).start()
    with pytest.raises(RequestError, match="no text matches it"):
        state.allowed()


def test_a_grammar_that_outgrows_its_limits_ends_its_own_request() -> None:
    request = request_with(StructuredOutputs(regex="(?:a|b)*a(?:a|b){18}"), temperature=1.0)
    for letter in np.random.default_rng(1).integers(0, 2, 40_000):  # each makes a new state of the lexer
        request.history.push(tokens_of("ab")[letter])
    outcome = Sampler().sample_row(np.zeros(96, dtype=np.float32), request)
    assert isinstance(outcome, RequestError)
    assert outcome.field == "regex"


def request_with(wanted: StructuredOutputs, **params: float) -> DecodeRequest:
    tokens = RequestTokens(96, (END,), grammar=COMPILER.compile(wanted))
    return DecodeRequest.from_params(
        SamplingParams(structured_outputs=wanted, **params),  # type: ignore[arg-type]
        tokens,
        [1, 2],
        seed=1,
    )


def test_the_mask_touches_only_what_it_refuses() -> None:
    row = np.linspace(-3, 3, 96, dtype=np.float32)
    masked = row.copy()
    state = COMPILER.compile(StructuredOutputs(choice=["ab", "cd"])).start()
    GrammarMask().apply(masked, TokenHistory([], grammar=state))
    kept = tokens_of("ac")
    assert np.array_equal(masked[kept], row[kept])
    assert np.count_nonzero(masked == REFUSED) == 94


def test_greedy_takes_the_best_allowed_token() -> None:
    request = request_with(StructuredOutputs(choice=["ab", "cd"]), temperature=0.0)
    row = np.zeros(96, dtype=np.float32)
    row[tokens_of("zc")] = [9.0, 1.0]
    assert Sampler().sample_row(row, request) == Decoded(tokens_of("c")[0])


def test_a_mask_against_the_grammar_leaves_an_error() -> None:
    wanted = StructuredOutputs(choice=["ab"])
    tokens = RequestTokens(96, (END,), grammar=COMPILER.compile(wanted))
    params = SamplingParams(structured_outputs=wanted, allowed_token_ids=[5])
    request = DecodeRequest.from_params(params, tokens, [1], seed=1)
    outcome = Sampler().sample_row(np.zeros(96, dtype=np.float32), request)
    assert isinstance(outcome, RequestError)
