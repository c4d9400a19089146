"""Where each family cuts, on the texts that tell the families apart."""

from __future__ import annotations

import pytest

from pelton.text.pretokenize import PRE_TOKENIZERS

TEXT = "HeLLO'S 12345  a\n x/y"
CUTS = {
    "gpt-2": ["HeLLO", "'", "S", "Ġ12345", "Ġ", "Ġa", "Ċ", "Ġx", "/", "y"],
    "smollm": ["HeLLO", "'", "S", "Ġ", "1", "2", "3", "4", "5", "Ġ", "Ġa", "Ċ", "Ġx", "/", "y"],
    "llama-bpe": ["HeLLO", "'S", "Ġ", "123", "45", "Ġ", "Ġa", "Ċ", "Ġx", "/y"],
    "qwen2": ["HeLLO", "'S", "Ġ", "1", "2", "3", "4", "5", "Ġ", "Ġa", "Ċ", "Ġx", "/y"],
    "tekken": ["He", "LLO", "'S", "Ġ", "1", "2", "3", "4", "5", "Ġ", "Ġa", "Ċ", "Ġx", "/y"],
    "gpt-4o": ["He", "LLO'S", "Ġ", "123", "45", "Ġ", "Ġa", "Ċ", "Ġx", "/y"],
    "deepseek-v3": ["HeLLO", "'S", "Ġ", "123", "45", "Ġ", "Ġa", "Ċ", "Ġx", "/y"],
    "deepseek-coder": ["HeLLO", "'", "S", "Ġ", "1", "2", "3", "4", "5", "Ġ", "Ġa", "Ċ", "Ġx", "/", "y"],
    "deepseek-llm": ["HeLLO", "'", "S", "Ġ", "12345", "Ġ", "Ġa", "Ċ", "Ġx", "/", "y"],
}


@pytest.mark.parametrize("name", CUTS)
def test_cuts(name: str) -> None:
    assert [piece for piece, _ in PRE_TOKENIZERS[name].build().pre_tokenize_str(TEXT)] == CUTS[name]


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_a_cut_covers_the_text(name: str) -> None:
    pieces = PRE_TOKENIZERS[name].build().pre_tokenize_str(TEXT)
    assert [start for _, (start, _) in pieces][1:] == [end for _, (_, end) in pieces][:-1]
    assert pieces[-1][1][1] == len(TEXT)


def test_names_share_rows_where_families_cut_alike() -> None:
    assert PRE_TOKENIZERS["refact"] == PRE_TOKENIZERS["starcoder"] == PRE_TOKENIZERS["smollm"]
    assert PRE_TOKENIZERS["qwen2"].nfc
    assert PRE_TOKENIZERS["command-r"].nfc
    assert not PRE_TOKENIZERS["stablelm2"].nfc
    assert PRE_TOKENIZERS["llama-bpe"].ignore_merges
    assert PRE_TOKENIZERS["llama-bpe"].adds_bos
    assert not PRE_TOKENIZERS["dbrx"].ignore_merges
