"""GGUF files made to hurt: the shapes of published faults in other readers, each refused with its field."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import pytest

from pelton.errors import ModelFileError
from pelton.weights.gguf import open_gguf

from ..weights.container_bytes import (
    ARRAY,
    BOOL,
    F32,
    GGUF,
    I32,
    STRING,
    U8,
    U32,
    U64,
    array,
    entry,
    every_kind_of_pair,
    number,
    pair,
    text,
)

HUGE = 2**63
MOST = 2**64 - 1
WEIGHT = entry("w", [32])
DATA = bytes(128)


def aligned(kind: int, payload: bytes) -> GGUF:
    return GGUF([pair("general.alignment", kind, payload)], [WEIGHT], DATA)


def shaped(dimensions: list[int], kind: int = 0, rank: int | None = None) -> GGUF:
    return GGUF([], [entry("w", dimensions, kind, rank=rank)], DATA)


def placed(first: int, second: int, data: int = 256) -> GGUF:
    return GGUF([], [entry("a", [32], 0, first), entry("b", [32], 0, second)], bytes(data))


# name -> (file, a part of the field the error must name)
HOSTILE: dict[str, tuple[GGUF | bytes, str]] = {
    "only magic": (b"GGUF", "version"),
    "two bytes": (b"GG", "magic"),
    "other magic": (GGUF(magic=b"GGML"), "magic"),
    "reversed magic": (GGUF(magic=b"FUGG"), "magic"),
    "zip file": (b"PK\x03\x04" + bytes(64), "magic"),
    "version 0": (GGUF(version=0), "version"),
    "version 1": (GGUF(version=1), "version"),
    "version 4": (GGUF(version=4), "version"),
    "big endian": (GGUF(version=3 << 24), "version"),
    "version of all ones": (GGUF(version=2**32 - 1), "version"),
    "tensor count 2^63": (GGUF(tensor_count=HUGE), "tensor_count"),
    "tensor count of all ones": (GGUF(tensor_count=MOST), "tensor_count"),
    "tensor count beyond the file": (GGUF([], [WEIGHT], DATA, tensor_count=60_000), "tensor_count"),
    "tensor count one too high": (GGUF([], [WEIGHT], bytes(300), tensor_count=2), "tensor"),
    "key count 2^63": (GGUF(key_count=HUGE), "metadata_kv_count"),
    "key count that wraps in bytes": (GGUF(key_count=2**60), "metadata_kv_count"),
    "key count beyond the file": (GGUF(key_count=50_000), "metadata_kv_count"),
    "key of 2^63 bytes": (GGUF([text("k", HUGE)], data=DATA), "metadata key 0 length"),
    "key longer than the file": (GGUF([text("k", 60_000)], data=DATA), "metadata key 0"),
    "key longer than allowed": (GGUF([text("k" * 70_000)], data=DATA), "metadata key 0 length"),
    "key not UTF-8": (GGUF([pair(b"\xff\xfe", U8, b"\1")]), "metadata key 0"),
    "key empty": (GGUF([pair("", U8, b"\1")]), "metadata key 0"),
    "key with a line break": (GGUF([pair("a\nlog line", U8, b"\1")]), "metadata key 0"),
    "key twice": (GGUF([pair("k", U8, b"\1"), pair("k", U8, b"\2")]), "metadata key"),
    "value type 13": (GGUF([pair("k", 13, bytes(8))]), "k type"),
    "value type of all ones": (GGUF([pair("k", 2**32 - 1, bytes(8))]), "k type"),
    "string of 2^63": (GGUF([pair("k", STRING, text("v", HUGE))]), "k length"),
    "string of all ones": (GGUF([pair("k", STRING, text("v", MOST))]), "k length"),
    "string beyond the file": (GGUF([pair("k", STRING, text("v", 5000))]), "k"),
    "string not UTF-8": (GGUF([pair("k", STRING, text(b"\xc3\x28"))]), "k"),
    "string with a surrogate": (GGUF([pair("k", STRING, text(b"\xed\xa0\x80"))]), "k"),
    "truth value 2": (GGUF([pair("k", BOOL, b"\2")]), "k"),
    "truth value 2 in an array": (GGUF([pair("k", ARRAY, array(BOOL, [b"\1", b"\2"]))]), "k"),
    "array of arrays": (GGUF([pair("k", ARRAY, array(ARRAY, [array(U8, [b"\1"])]))]), "k type"),
    "array of type 99": (GGUF([pair("k", ARRAY, array(99, [b"\1"]))]), "k type"),
    "array of 2^63 bytes": (GGUF([pair("k", ARRAY, array(U8, [b"\1"], HUGE))]), "k count"),
    "array whose bytes wrap": (GGUF([pair("k", ARRAY, array(U64, [], 2**61))]), "k count"),
    "array of floats beyond the file": (GGUF([pair("k", ARRAY, array(F32, [], 1000))]), "k count"),
    "array of 2^60 strings": (GGUF([pair("k", ARRAY, array(STRING, [], 2**60))]), "k count"),
    "array of strings beyond the file": (GGUF([pair("k", ARRAY, array(STRING, [], 1000))]), "k count"),
    "string of an array of 2^64 - 1": (
        GGUF([pair("k", ARRAY, array(STRING, [text("a", MOST)]))]),
        "k[0] length",
    ),
    "string of an array beyond the file": (
        GGUF([pair("k", ARRAY, array(STRING, [text("a"), text("b", 999)]))]),
        "k[1] length",
    ),
    "alignment 0": (aligned(U32, number(U32, 0)), "general.alignment"),
    "alignment 1": (aligned(U32, number(U32, 1)), "general.alignment"),
    "alignment 48": (aligned(U32, number(U32, 48)), "general.alignment"),
    "alignment 2^31": (aligned(U32, number(U32, 2**31)), "general.alignment"),
    "alignment of all ones": (aligned(U32, number(U32, 2**32 - 1)), "general.alignment"),
    "alignment a uint64": (aligned(U64, number(U64, 32)), "general.alignment"),
    "alignment an int32": (aligned(I32, number(I32, -32)), "general.alignment"),
    "alignment a string": (aligned(STRING, text("32")), "general.alignment"),
    "alignment an array": (aligned(ARRAY, array(U32, [number(U32, 32)])), "general.alignment"),
    "part of a split file": (GGUF([pair("split.count", 2, number(2, 3))]), "split.count"),
    "split count a string": (GGUF([pair("split.count", STRING, text("3"))]), "split.count"),
    "no dimensions": (shaped([]), "w dimensions"),
    "five dimensions": (shaped([32, 1, 1, 1, 1]), "w dimensions"),
    "2^32 - 1 dimensions": (shaped([32], rank=2**32 - 1), "w dimensions"),
    "dimension 0": (shaped([0]), "w shape"),
    "dimension 0 among others": (shaped([32, 0, 2]), "w shape"),
    "product wraps to 32": (shaped([2**63 + 16, 2]), "w offset"),
    "product wraps to 0": (shaped([2**32, 2**32]), "w offset"),
    "dimension of all ones": (shaped([MOST]), "w offset"),
    "bytes wrap": (shaped([2**62]), "w offset"),
    "tensor beyond the file": (shaped([33]), "w offset"),
    "row that is no whole block": (shaped([33], 8), "w shape"),
    "row that is no whole super-block": (shaped([32], 14), "w shape"),
    "tensor type 99": (shaped([32], 99), "w type"),
    "tensor type of a removed format": (shaped([32], 4), "w type"),
    "tensor type of all ones": (shaped([32], 2**32 - 1), "w type"),
    "tensor type IQ2_XXS": (shaped([256], 16), "w type"),
    "tensor type I32": (shaped([32], 26), "w type"),
    "offset not aligned": (placed(0, 129, 512), "b offset"),
    "offset aligned to 8 only": (placed(0, 136, 512), "b offset"),
    "offsets equal": (placed(0, 0), "offset"),
    "offsets overlap": (placed(0, 96), "b offset"),
    "offsets overlap in reverse": (placed(96, 0), "a offset"),
    "offset outside": (placed(0, 1024), "b offset"),
    "offset 2^63": (placed(0, HUGE), "b offset"),
    "offset that wraps": (placed(0, 2**64 - 32), "b offset"),
    "one byte short": (placed(0, 128, 255), "b offset"),
    "tensor twice": (GGUF([], [WEIGHT, WEIGHT], DATA), "tensor"),
    "tensor name empty": (GGUF([], [entry("", [32])], DATA), "tensor 0 name"),
    "tensor name not UTF-8": (GGUF([], [entry(b"\xfe", [32])], DATA), "tensor 0 name"),
    "tensor name with an escape": (GGUF([], [entry("a\x1b[2J", [32])], DATA), "tensor 0 name"),
    "tensor name of 65 bytes": (GGUF([], [entry("w" * 65, [32])], DATA), "tensor 0 name length"),
    "tensor name of 2^63 bytes": (GGUF([], [text("w", HUGE) + bytes(40)], DATA), "tensor 0 name length"),
}


def written(folder: Path, content: GGUF | bytes) -> Path:
    path = folder / "hostile.gguf"
    path.write_bytes(content if isinstance(content, bytes) else content.bytes())
    return path


@pytest.mark.parametrize("name", list(HOSTILE))
def test_a_hostile_file_is_refused_with_its_field(tmp_path: Path, name: str) -> None:
    content, named = HOSTILE[name]
    path = written(tmp_path, content)
    tracemalloc.start()
    try:
        with pytest.raises(ModelFileError) as caught:
            open_gguf(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert caught.value.subject == str(path)
    assert named in str(caught.value.field)
    assert str(caught.value).isprintable()
    assert peak < 1 << 20


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (GGUF(data=bytes(1 << 20), key_count=(1 << 16) + 1), "metadata_kv_count"),
        (GGUF(data=bytes(3 << 20), tensor_count=(1 << 16) + 1), "tensor_count"),
        (GGUF([pair("k", ARRAY, array(STRING, [bytes(9 << 20)], (1 << 20) + 1))]), "k count"),
        (GGUF([pair("k", STRING, text(b"v" * ((16 << 20) + 1)))]), "k length"),
    ],
    ids=["keys", "tensors", "strings", "one string"],
)
def test_counts_are_bounded_even_where_the_file_backs_them(tmp_path: Path, content: GGUF, field: str) -> None:
    with pytest.raises(ModelFileError, match=r"more than \d+|longer than \d+") as caught:
        open_gguf(written(tmp_path, content))
    assert caught.value.field == field


def test_the_file_the_hostile_ones_are_made_from_is_fine(tmp_path: Path) -> None:
    assert open_gguf(written(tmp_path, GGUF(every_kind_of_pair(), [WEIGHT], DATA))).tensors["w"].shape == (
        32,
    )
    assert len(open_gguf(written(tmp_path, placed(128, 0))).tensors) == 2
    assert open_gguf(written(tmp_path, GGUF())).tensors == {}


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = GGUF(every_kind_of_pair(), [WEIGHT, entry("v", [32], 8, 128)], bytes(128 + 34)).bytes()
    for length in range(1, len(whole)):
        path = written(tmp_path, whole[:length])
        with pytest.raises(ModelFileError):
            open_gguf(path)
        path.unlink()


def test_a_vocabulary_of_tiny_strings_is_not_unpacked_while_loading(tmp_path: Path) -> None:
    word = struct.pack("<Q", 3) + "\N{SAMARITAN LETTER ALAF}".encode()
    words = struct.pack("<IQ", STRING, 400_000) + word * 400_000
    path = written(tmp_path, GGUF([pair("words", ARRAY, words)]))
    tracemalloc.start()
    try:
        found = open_gguf(path)
        _, peak = tracemalloc.get_traced_memory()
        assert len(found.metadata.get_array("words", element=str)) == 400_000
        _, listed = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20
    assert listed < 4 * path.stat().st_size + (64 << 20)
