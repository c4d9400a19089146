"""Small tokenizers for tests: real BPE models of a few hundred tokens, from metadata as GGUF has it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pelton.text import Tokenizer, tokenizer_from_gguf
from pelton.text.pieces import BYTE_OF_CHARACTER, SPACE_MARK
from pelton.text.vocabulary import Kind

CONTROL = ("<|end|>", "<|start|>", "<s>")
_WORDS = ["the", "he", "in", "er", "on", "at", "hello", "world", "start", "end", "user", "assistant"]


class Metadata:
    """Metadata from a dict, typed as a reader of a file would have it."""

    def __init__(self, values: dict[str, object]) -> None:
        self.values = values

    def __contains__(self, key: object) -> bool:
        return key in self.values

    def get_str(self, key: str) -> str:
        value = self.values[key]
        assert isinstance(value, str)
        return value

    def get_int(self, key: str) -> int:
        value = self.values[key]
        assert isinstance(value, int)
        return value

    def get_bool(self, key: str) -> bool:
        value = self.values[key]
        assert isinstance(value, bool)
        return value

    def get_array(self, key: str) -> Sequence[object]:
        value = self.values[key]
        assert isinstance(value, list)
        return value


def _merges_for(words: list[str]) -> tuple[list[str], list[str]]:
    """Pieces and merges that build each word from the left."""
    pieces: list[str] = []
    merges: list[str] = []
    for word in words:
        for end in range(2, len(word) + 1):
            if word[:end] not in pieces:
                pieces.append(word[:end])
                merges.append(f"{word[: end - 1]} {word[end - 1]}")
    return pieces, merges


def byte_level_values(pre: str = "gpt-2", control: tuple[str, ...] = CONTROL) -> dict[str, object]:
    """Metadata of a byte-level model: control tokens, 256 bytes, some words with and without a space."""
    words, merges = _merges_for([*_WORDS, *("\u0120" + word for word in _WORDS)])
    tokens = [*control, *sorted(BYTE_OF_CHARACTER, key=lambda c: BYTE_OF_CHARACTER[c]), *words, "<tool>"]
    kinds = [int(Kind.CONTROL)] * len(control) + [int(Kind.NORMAL)] * (len(tokens) - len(control) - 1)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [*kinds, int(Kind.USER_DEFINED)],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.add_bos_token": False,
    }


def sentencepiece_values(space_prefix: bool = True) -> dict[str, object]:
    """Metadata of a SentencePiece model: unknown, control, 256 byte tokens, letters, words with scores."""
    words, _ = _merges_for([*_WORDS, *(SPACE_MARK + word for word in _WORDS), SPACE_MARK * 2])
    letters = sorted({letter for word in words for letter in word} | set("abcdefgh,.!?é你"))
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters, *words]
    kinds = [
        Kind.UNKNOWN,
        Kind.CONTROL,
        Kind.CONTROL,
        *[Kind.BYTE] * 256,
        *[Kind.NORMAL] * (len(tokens) - 259),
    ]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [int(kind) for kind in kinds],
        "tokenizer.ggml.scores": [0.0 if index < 259 else 259.0 - index for index in range(len(tokens))],
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_space_prefix": space_prefix,
    }


def byte_level(pre: str = "gpt-2") -> Tokenizer:
    """A byte-level tokenizer of 300 tokens."""
    return tokenizer_from_gguf(Metadata(byte_level_values(pre)), subject="tiny.gguf")


def sentencepiece(space_prefix: bool = True) -> Tokenizer:
    """A SentencePiece tokenizer of 380 tokens."""
    return tokenizer_from_gguf(Metadata(sentencepiece_values(space_prefix)), subject="tiny.gguf")


def tokenizer_json(tokenizer: Tokenizer) -> dict[str, object]:
    """The same tokenizer as the `tokenizers` library writes it, with a decoder as published files have it."""
    backend = tokenizer._plain
    data: dict[str, object] = json.loads(backend.to_str())
    data["decoder"] = (
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
        if tokenizer._parts.byte_level
        else {"type": "Sequence", "decoders": _sentencepiece_decoders(tokenizer.strip_leading_space)}
    )
    return data


def _sentencepiece_decoders(strip: bool) -> list[dict[str, object]]:
    decoders: list[dict[str, object]] = [
        {"type": "Replace", "pattern": {"String": SPACE_MARK}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    return [*decoders, {"type": "Strip", "content": " ", "start": 1, "stop": 0}] if strip else decoders


def write_folder(folder: Path, data: dict[str, object], **files: dict[str, object]) -> Path:
    """Writes tokenizer.json and further NAME.json files."""
    (folder / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder
