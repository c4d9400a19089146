"""The real tokenizer against Hugging Face's, and the rules that hold for any."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend

from pelton.errors import RequestError
from pelton.text import Tokenizer, tokenizer_from_gguf
from pelton.weights.gguf import open_gguf
from tests.text.strings import BLOCK, block_hashes, sample_strings
from tests.text.tiny_text import (
    CONTROL,
    Metadata,
    byte_level,
    byte_level_values,
    sentencepiece,
    sentencepiece_values,
    tokenizer_json,
)

GOLDEN = json.loads((Path(__file__).parent / "golden" / "tokenizer.json").read_text())
TINY = {"byte level": byte_level(), "sentencepiece": sentencepiece(), "no prefix": sentencepiece(False)}
ANY_TINY = st.sampled_from(sorted(TINY))
TEXTS = st.text(
    st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(" \n<|>/sender")), max_size=40
)


@pytest.fixture(scope="session")
def real(real_model_path: Path) -> Tokenizer:
    return tokenizer_from_gguf(open_gguf(real_model_path).metadata, subject=real_model_path.name)


@pytest.mark.parametrize(("golden", "parse"), [("plain", False), ("parsed", True)])
def test_10000_strings_equal_hugging_face(real: Tokenizer, golden: str, parse: bool) -> None:
    assert real.control_pieces() == tuple(sorted(GOLDEN["control"], key=lambda piece: (-len(piece), piece)))
    strings = sample_strings(10_000, tuple(GOLDEN["control"]))
    ids = [real.encode(text, add_special=False, parse_special=parse) for text in strings]
    wrong = [
        block
        for block, pair in enumerate(zip(block_hashes(ids), GOLDEN[golden], strict=True))
        if len(set(pair)) > 1
    ]
    assert not wrong, (
        f"strings {wrong[0] * BLOCK} to {wrong[0] * BLOCK + BLOCK - 1}: {len(wrong)} blocks differ"
    )


def test_the_real_model_names_its_tokens(real: Tokenizer) -> None:
    assert (real.vocab_size, real.bos_id, real.eos_id, real.eot_id) == (49152, 1, 2, 2)
    assert real.end_ids == {0, 2}
    assert real.special_ids == set(range(17))
    assert real.piece(2) == "<|im_end|>"
    assert real.token_id("<|im_end|>") == 2


def test_special_tokens_in_text_stay_text(real: Tokenizer) -> None:
    for piece in GOLDEN["control"]:
        typed = real.encode(f"a{piece}b", add_special=False)
        assert real.special_ids.isdisjoint(typed)
        assert real.decode(typed) == f"a{piece}b"
        assert real.encode(piece, add_special=False, parse_special=True) == [real.token_id(piece)]


@settings(max_examples=300)
@given(ANY_TINY, TEXTS)
def test_text_survives_encoding_and_holds_no_control_token(name: str, text: str) -> None:
    tokenizer = TINY[name]
    ids = tokenizer.encode(text, add_special=False)
    assert tokenizer.special_ids.isdisjoint(ids)
    assert tokenizer.decode(ids, skip_special=False) == text


@settings(max_examples=300)
@given(ANY_TINY, st.lists(st.integers(0, 420), max_size=30), st.booleans())
def test_decoding_equals_the_library(name: str, ids: list[int], skip: bool) -> None:
    """SentencePiece aside from one rule: a run of byte tokens that is no UTF-8 as a whole.

    There the library replaces every byte of the run, valid characters too; pelton only the bad bytes.
    """
    tokenizer = TINY[name]
    library = Backend.from_str(json.dumps(tokenizer_json(tokenizer))).decode(ids, skip_special_tokens=skip)
    ours = tokenizer.decode(ids, skip_special=skip)
    if name == "byte level" or "\ufffd" not in library:
        assert ours == library
    else:
        assert "\ufffd" in ours


def test_decoding_bytes_of_a_run_keeps_valid_characters() -> None:
    tokenizer = TINY["sentencepiece"]
    ids = [tokenizer.token_id(f"<0x{byte:02X}>") or -1 for byte in "你".encode() + b"\xff"]
    assert tokenizer.decode(ids) == "你\ufffd"


@pytest.mark.parametrize("space_prefix", [True, False])
def test_sentencepiece_spaces(space_prefix: bool) -> None:
    tokenizer = sentencepiece(space_prefix)
    ids = tokenizer.encode("hello  world")
    assert ids[0] == tokenizer.bos_id
    assert tokenizer.piece(ids[1]) == ("\u2581hello" if space_prefix else "hello")
    assert tokenizer.decode(ids) == "hello  world"


def test_the_files_flags_decide_what_surrounds_a_prompt() -> None:
    values = {
        **byte_level_values(),
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": True,
    }
    tokenizer = tokenizer_from_gguf(Metadata(values), subject="x")
    bare = tokenizer.encode("the", add_special=False)
    assert tokenizer.encode("the") == [1, *bare, 0]
    assert byte_level().encode("the") == bare
    silent = {key: value for key, value in sentencepiece_values().items() if "add_bos" not in key}
    assert tokenizer_from_gguf(Metadata(silent), subject="x").encode("the")[0] == 1


def test_whole_word_lookup_cannot_make_a_control_token() -> None:
    """With ignore_merges a whole word is looked up as it is, and `<s>` would be one under this cut."""
    values = {
        **byte_level_values("llama-bpe", control=(*CONTROL, "secret")),
        "tokenizer.ggml.add_bos_token": False,
    }
    tokenizer = tokenizer_from_gguf(Metadata(values), subject="x")
    typed = tokenizer.encode("secret", add_special=False)
    assert tokenizer.special_ids.isdisjoint(typed)
    assert tokenizer.decode(typed) == "secret"


def test_user_defined_tokens_are_taken_whole() -> None:
    tokenizer = TINY["byte level"]
    assert tokenizer.encode("a<tool>b")[1] == tokenizer.token_id("<tool>")


def test_ids_past_the_vocabulary_are_empty_and_negative_ones_refused() -> None:
    tokenizer = TINY["byte level"]
    assert tokenizer.token_bytes(10**6) == b""
    assert tokenizer.decode([10**6]) == ""
    with pytest.raises(RequestError, match="-1"):
        tokenizer.decode([-1])


def test_input_is_bounded_and_must_be_unicode() -> None:
    tokenizer = tokenizer_from_gguf(Metadata(byte_level_values()), subject="x", max_input_bytes=10)
    assert tokenizer.decode(tokenizer.encode("a" * 10)) == "a" * 10
    for text, field in (("a" * 11, "characters"), ("é" * 6, "bytes"), ("a\ud800", "text")):
        with pytest.raises(RequestError, match=field):
            tokenizer.encode(text)
