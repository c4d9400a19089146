"""The lower bound on a text's tokens: never above what there are, and of use where a text is long."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pelton.text import Tokenizer, tokenizer_from_folder, tokenizer_from_gguf
from pelton.weights.gguf import open_gguf
from tests.text.strings import sample_strings
from tests.text.tiny_text import (
    CONTROL,
    Metadata,
    byte_level,
    byte_level_values,
    sentencepiece,
    tokenizer_json,
    write_folder,
)

BYTE_LEVEL: dict[str, Any] = tokenizer_json(byte_level("llama-bpe"))
PIECES: dict[str, Any] = tokenizer_json(sentencepiece())
NORMALIZERS: dict[str, Any] = {
    **{form: {"type": form} for form in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase")},
    "removing": {"type": "Replace", "pattern": {"String": "e"}, "content": ""},
    "all": {
        "type": "Sequence",
        "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}, {"type": "Prepend", "prepend": "▁"}],
    },
}
REMOVING = {"type": "Split", "pattern": {"String": " "}, "behavior": "Removed", "invert": False}
TEXTS = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from(" \n<|>/sender\u0301\u0300\u1100\u1161\u11a8\u212a\uff21\ufdfa\U0001d400▁"),
    ),
    max_size=60,
)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    found = {"bytes": byte_level(), "spm": sentencepiece(), "bare": sentencepiece(False)}
    for data in (BYTE_LEVEL, PIECES):
        for name, normalizer in NORMALIZERS.items():
            folder = tmp_path_factory.mktemp("tokenizer")
            write_folder(folder, {**data, "normalizer": normalizer})
            found[f"{name} {len(found)}"] = tokenizer_from_folder(folder)
    return found


@given(data=st.data(), text=TEXTS, times=st.sampled_from([1, 2, 50]))
@settings(max_examples=400)
def test_no_text_has_fewer(
    tokenizers: dict[str, Tokenizer], data: st.DataObject, text: str, times: int
) -> None:
    tokenizer = tokenizers[data.draw(st.sampled_from(sorted(tokenizers)))]
    for parse in (False, True):
        ids = tokenizer.encode(text * times, add_special=False, parse_special=parse)
        assert tokenizer.least_tokens(text * times) <= len(ids)


def test_the_longest_token_again_and_again_has_just_as_many(tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers["bytes"]
    longest = "<|start|>"
    ids = tokenizer.encode(longest * 1000, add_special=False, parse_special=True)
    assert len(ids) == 1000 > tokenizer.least_tokens(longest * 1000) >= 900  # one piece is a byte longer


def test_a_long_text_has_many(tokenizers: dict[str, Tokenizer]) -> None:
    for name, tokenizer in tokenizers.items():
        assert tokenizer.least_tokens("") == 0
        if not name.startswith("removing"):
            assert tokenizer.least_tokens("ab " * 100_000) > 5_000, name


def stripping() -> Tokenizer:
    """Phi-3's control tokens take the white space behind them."""
    values = {**byte_level_values(), "tokenizer.ggml.model": "gpt2"}
    data = tokenizer_json(tokenizer_from_gguf(Metadata(values), subject="x"))
    tokens: Any = data["added_tokens"]
    tokens[0]["rstrip"] = True
    return folder_of(data)


def removing() -> Tokenizer:
    return folder_of({**BYTE_LEVEL, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        REMOVING, {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}]}})  # fmt: skip


def unknown() -> Tokenizer:
    """Without byte tokens any run of unknown characters is one token."""
    model = {**PIECES["model"], "byte_fallback": False}
    return folder_of({**PIECES, "model": model})


def folder_of(data: dict[str, Any]) -> Tokenizer:
    with TemporaryDirectory() as folder:
        return tokenizer_from_folder(write_folder(Path(folder), data))


@pytest.mark.parametrize(
    ("make", "text"),
    [(stripping, "<|end|>" + " " * 5000), (removing, " " * 5000), (unknown, "\U0001f600" * 5000)],
)
def test_where_text_may_vanish_nothing_is_told(make: Any, text: str) -> None:
    tokenizer = make()
    assert len(tokenizer.encode(text, add_special=False, parse_special=True)) < 10
    assert tokenizer.least_tokens(text) == 0


def test_the_real_model_has_no_text_with_fewer(real_model_path: Path) -> None:
    real = tokenizer_from_gguf(open_gguf(real_model_path).metadata, subject="real")
    for text in sample_strings(2000, CONTROL):
        assert real.least_tokens(text) <= len(real.encode(text, add_special=False, parse_special=True))
    assert real.least_tokens("word " * 1_000_000) > 60_000
    assert real.encode("\x04" * 1000) == []  # a byte that this model has no token for
    assert real.least_tokens("\x04" * 1000) == 0
