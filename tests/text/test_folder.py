"""Tokenizers from a Hugging Face folder: the library's ids, the named tokens, and refusals."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Backend

from pelton.errors import PeltonError, TokenizerError, UnsupportedModelError
from pelton.text import ChatTemplate, tokenizer_from_folder, tokenizer_of
from tests.text.strings import sample_strings
from tests.text.tiny_text import CONTROL, byte_level, sentencepiece, tokenizer_json, write_folder

CONFIG: dict[str, Any] = {
    "bos_token": "<|start|>",
    "eos_token": {"content": "<|end|>"},
    "chat_template": "{{ messages }}",
}
BYTE_LEVEL: dict[str, Any] = tokenizer_json(byte_level("llama-bpe"))
PIECES: dict[str, Any] = tokenizer_json(sentencepiece())


@pytest.mark.parametrize(
    "data", [BYTE_LEVEL, PIECES, tokenizer_json(sentencepiece(False))], ids=["bytes", "spm", "bare"]
)
def test_ids_and_text_equal_the_library(tmp_path: Path, data: dict[str, Any]) -> None:
    tokenizer = tokenizer_from_folder(write_folder(tmp_path, data))
    parsed = Backend.from_str(json.dumps(data))
    plain = Backend.from_str(json.dumps(data))
    plain.encode_special_tokens = True
    for text in sample_strings(700, CONTROL):
        ids = parsed.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode(text, add_special=False, parse_special=True) == ids
        assert tokenizer.encode(text, add_special=False) == plain.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids) == parsed.decode(ids)


def test_named_tokens_come_from_the_small_files(tmp_path: Path) -> None:
    folder = write_folder(
        tmp_path, BYTE_LEVEL, tokenizer_config=CONFIG, generation_config={"eos_token_id": [0, 2]}
    )
    tokenizer, template = tokenizer_of(folder, subject="unused")
    assert tokenizer is not None
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 0)
    assert tokenizer.end_ids == {0, 2}
    assert isinstance(template, ChatTemplate)
    assert template.source == "{{ messages }}"
    (folder / "chat_template.jinja").write_text("other")
    assert tokenizer_from_folder(folder).chat_template == "other"


def test_the_post_processor_or_the_flag_puts_bos_first(tmp_path: Path) -> None:
    single = [{"SpecialToken": {"id": "<|start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    data = {**BYTE_LEVEL, "post_processor": {"type": "TemplateProcessing", "single": single}}
    assert tokenizer_from_folder(write_folder(tmp_path, data)).encode("a")[0] == 1
    off = {**CONFIG, "add_bos_token": False}
    assert tokenizer_from_folder(write_folder(tmp_path, data, tokenizer_config=off)).encode("a")[0] != 1
    on = {**CONFIG, "add_bos_token": True}
    assert tokenizer_from_folder(write_folder(tmp_path, BYTE_LEVEL, tokenizer_config=on)).encode("a")[0] == 1


def edit(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        *way, last = path.split("/")
        inner: Any = data
        for step in way:
            inner = inner[int(step)] if step.isdigit() else inner[step]
        inner[int(last) if last.isdigit() else last] = value

    return change


EVIL = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
REFUSED: dict[str, tuple[Callable[[dict[str, Any]], None], type[PeltonError], str]] = {
    "unigram": (edit("model/type", "Unigram"), UnsupportedModelError, "model.type = 'Unigram'"),
    "dropout": (edit("model/dropout", 0.5), UnsupportedModelError, "model.dropout"),
    "suffix": (edit("model/end_of_word_suffix", "</w>"), UnsupportedModelError, "end_of_word_suffix"),
    "no vocabulary": (edit("model/vocab", {}), TokenizerError, "vocab = 0"),
    "vocabulary list": (edit("model/vocab", [1]), TokenizerError, "vocab"),
    "id negative": (edit("model/vocab/a", -1), TokenizerError, "-1"),
    "id huge": (edit("model/vocab/a", 10**12), TokenizerError, "1000000000000"),
    "id text": (edit("model/vocab/a", "7"), TokenizerError, "'7'"),
    "id twice": (edit("model/vocab/a", 70), TokenizerError, "share an id"),
    "merges text": (edit("model/merges", "a b"), TokenizerError, "merges"),
    "merge missing": (edit("model/merges/0", ["Q", "QQ"]), TokenizerError, "merge 0"),
    "merge shape": (edit("model/merges/0", ["a"]), TokenizerError, r"merges\[0\]"),
    "added id gap": (edit("added_tokens/0/id", 5000), TokenizerError, "gap"),
    "added without text": (edit("added_tokens/0/content", ""), TokenizerError, r"added_tokens\[0\]"),
    "added twice": (edit("added_tokens/0/id", 1), TokenizerError, "share an id"),
    "evil expression": (edit("pre_tokenizer", EVIL), UnsupportedModelError, "untrusted"),
    "unknown cut": (
        edit("pre_tokenizer", {"type": "UnicodeScripts"}),
        UnsupportedModelError,
        "UnicodeScripts",
    ),
    "deep cuts": (
        edit("pre_tokenizer", {"type": "Sequence", "pretokenizers": [EVIL] * 99}),
        UnsupportedModelError,
        "at most 16",
    ),
    "growing text": (
        edit("normalizer", {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 999}),
        UnsupportedModelError,
        "normalizer.content",
    ),
    "charsmap": (edit("normalizer", {"type": "Precompiled"}), UnsupportedModelError, "Precompiled"),
    "no decoder": (edit("decoder", None), UnsupportedModelError, "decoder"),
    "other decoder": (edit("decoder", {"type": "WordPiece"}), UnsupportedModelError, "WordPiece"),
    "other post": (
        edit("post_processor", {"type": "BertProcessing"}),
        UnsupportedModelError,
        "BertProcessing",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_pelton_does_not_know_is_refused_by_name(tmp_path: Path, name: str) -> None:
    change, kind, message = REFUSED[name]
    data = copy.deepcopy(BYTE_LEVEL)
    change(data)
    with pytest.raises(kind, match=message) as caught:
        tokenizer_from_folder(write_folder(tmp_path, data))
    assert caught.value.subject == str(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, "\ud800"])
def test_broken_files(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        tokenizer_from_folder(tmp_path)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"no tokenizer\.json"):
        tokenizer_from_folder(tmp_path)


def test_a_control_token_is_never_matched_after_normalizing(tmp_path: Path) -> None:
    """NFKC turns a full-width look-alike into the real thing; the file asks to match after that."""
    data = copy.deepcopy(BYTE_LEVEL)
    data["normalizer"] = {"type": "NFKC"}
    for token in data["added_tokens"]:
        token["normalized"] = True
    tokenizer = tokenizer_from_folder(write_folder(tmp_path, data))
    typed = tokenizer.encode("\uff1c|end|\uff1e", add_special=False, parse_special=True)
    assert tokenizer.special_ids.isdisjoint(typed)
    assert tokenizer.encode("<|end|>", add_special=False, parse_special=True) == [0]
