"""Vocabularies that contradict themselves or are not what pelton knows: one typed error each."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from pelton.errors import PeltonError, TokenizerError, UnsupportedModelError
from pelton.text import tokenizer_from_gguf
from pelton.text.pretokenize import PRE_TOKENIZERS
from tests.text.tiny_text import Metadata, byte_level, byte_level_values, sentencepiece_values

Values = dict[str, object]
TOKENS, TYPES, MERGES = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.merges"
SCORES, PRE = "tokenizer.ggml.scores", "tokenizer.ggml.pre"


def changed(values: Values, key: str, change: Callable[[list[object]], object]) -> Values:
    raw = values[key]
    assert isinstance(raw, list)
    copy = list(raw)
    change(copy)
    return {**values, key: copy}


def put(index: int, value: object) -> Callable[[list[object]], object]:
    return lambda row: row.__setitem__(index, value)


def all_normal(row: list[object]) -> None:
    row[:] = [1] * len(row)


def without(values: Values, key: str) -> Values:
    return {name: value for name, value in values.items() if name != key}


BPE, SPM = byte_level_values(), sentencepiece_values()
CASES: dict[str, tuple[Values, type[PeltonError], str]] = {
    "unknown model": (
        {**BPE, "tokenizer.ggml.model": "rwkv"},
        UnsupportedModelError,
        "tokenizer.ggml.model = 'rwkv'",
    ),
    "unknown pre": ({**BPE, PRE: "martian"}, UnsupportedModelError, "tokenizer.ggml.pre = 'martian'"),
    "no pre": (without(BPE, PRE), UnsupportedModelError, PRE),
    "empty": ({**BPE, TOKENS: [], TYPES: []}, TokenizerError, "empty"),
    "no tokens": (without(BPE, TOKENS), TokenizerError, TOKENS),
    "duplicate": (changed(BPE, TOKENS, put(9, "!")), TokenizerError, "twice"),
    "not text": (changed(BPE, TOKENS, put(9, 7)), TokenizerError, r"tokens\[9\] = 7"),
    "surrogate": (changed(BPE, TOKENS, put(9, "\ud800")), TokenizerError, r"tokens\[9\]"),
    "long piece": (changed(BPE, TOKENS, put(9, "x" * 20_000)), TokenizerError, r"tokens\[9\]"),
    "few types": (changed(BPE, TYPES, list.pop), TokenizerError, "types"),
    "strange type": (changed(BPE, TYPES, put(5, 77)), UnsupportedModelError, r"token_type\[5\] = 77"),
    "type not a number": (changed(BPE, TYPES, put(5, "x")), TokenizerError, TYPES),
    "merge of missing token": (changed(BPE, MERGES, put(0, "t Q9")), TokenizerError, "merge 0 = 't Q9'"),
    "merge into missing token": (changed(BPE, MERGES, put(0, "z z")), TokenizerError, "merge 0"),
    "merge of one": (changed(BPE, MERGES, put(3, "th")), TokenizerError, r"merges\[3\]"),
    "merge of three": (changed(BPE, MERGES, put(3, "a b c")), TokenizerError, r"merges\[3\]"),
    "merge not text": (changed(BPE, MERGES, put(3, None)), TokenizerError, r"merges\[3\]"),
    "eos out of range": (
        {**BPE, "tokenizer.ggml.eos_token_id": 10**9},
        TokenizerError,
        "eos_token_id = 1000000000",
    ),
    "bos negative": ({**BPE, "tokenizer.ggml.bos_token_id": -1}, TokenizerError, "bos_token_id = -1"),
    "bos wanted, not named": (
        {**without(BPE, "tokenizer.ggml.bos_token_id"), "tokenizer.ggml.add_bos_token": True},
        TokenizerError,
        "add_bos_token",
    ),
    "bad byte": (changed(SPM, TOKENS, put(20, "<0x-1>")), TokenizerError, r"tokens\[20\] = '<0x-1>'"),
    "byte beyond 255": (changed(SPM, TOKENS, put(20, "<0x1FF>")), TokenizerError, r"tokens\[20\]"),
    "byte twice": (changed(SPM, TOKENS, put(20, "<0x0a>")), TokenizerError, r"tokens\[20\]"),
    "few scores": (changed(SPM, SCORES, list.pop), TokenizerError, "scores"),
    "score not a number": (changed(SPM, SCORES, put(7, float("nan"))), TokenizerError, r"scores\[7\]"),
    "no scores": (without(SPM, SCORES), TokenizerError, SCORES),
    "white space removed": (
        {**SPM, "tokenizer.ggml.remove_extra_whitespaces": True},
        UnsupportedModelError,
        "remove_extra_whitespaces",
    ),
    "no bytes, no unknown": (
        changed(
            without(SPM, "tokenizer.ggml.unknown_token_id"),
            TYPES,
            all_normal,
        ),
        TokenizerError,
        "byte tokens",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_contradiction_is_one_error_that_names_it(name: str) -> None:
    values, kind, message = CASES[name]
    with pytest.raises(kind, match=message) as caught:
        tokenizer_from_gguf(Metadata(values), subject="bad.gguf")
    assert caught.value.subject == "bad.gguf"


def test_empty_pieces_get_a_name_of_their_own() -> None:
    values = changed(BPE, TOKENS, put(-2, ""))
    values = {**values, MERGES: []}
    tokenizer = tokenizer_from_gguf(Metadata(values), subject="x")
    assert tokenizer.piece(tokenizer.vocab_size - 2) == f"[EMPTY_{tokenizer.vocab_size - 2}]"


def test_random_damage_never_gets_past_a_typed_error() -> None:
    draw = random.Random(3)
    junk: list[object] = [
        None,
        -1,
        10**20,
        "",
        "\ud800",
        "<0x-1>",
        " ",
        "a b",
        3.5,
        True,
        "x" * 99_999,
        float("inf"),
    ]
    for _ in range(300):
        values = dict(draw.choice((BPE, SPM)))
        for _ in range(draw.randint(1, 3)):
            key = draw.choice([TOKENS, TYPES, MERGES, SCORES])
            if key in values:
                row = values[key]
                assert isinstance(row, list)
                values = changed(values, key, put(draw.randrange(len(row)), draw.choice(junk)))
        try:
            tokenizer = tokenizer_from_gguf(Metadata(values), subject="x")
            tokenizer.decode(tokenizer.encode("the <s> hello\n é 你"))
        except PeltonError:
            pass


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_every_named_cut_loses_nothing(pre: str) -> None:
    text = (
        "Hello's  WORLD 12345 x\u00b2 \n\n\tdon't 日本語、テスト。 привет! naïve <|end|> a_b... \u3000z\r\n  "
    )
    tokenizer = byte_level(pre)
    assert tokenizer.decode(tokenizer.encode(text, add_special=False)) == text
