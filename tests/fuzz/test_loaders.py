"""Twenty thousand broken model files: each loads into tensors that hold together, or raises ModelFileError.

Every mutant is a function of its number: a failure prints the number, and `mutant(number, ...)`
makes the file again.
"""

from __future__ import annotations

import contextlib
import json
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf
import pytest

from pelton.errors import ModelFileError
from pelton.quant import FORMATS, Tensor
from pelton.weights.config_file import open_config
from pelton.weights.fields import Fields
from pelton.weights.gguf import open_gguf
from pelton.weights.safetensors import open_safetensors

from ..weights.container_bytes import (
    ARRAY,
    GGUF,
    STRING,
    U32,
    array,
    described,
    entry,
    every_kind_of_pair,
    number,
    pair,
    safetensors_bytes,
    text,
)
from .mutation import mutant

SLACK = 64 << 20


def check_tensors(tensors: Mapping[str, Tensor], most_bytes: int) -> None:
    """Names, shapes and bytes agree; all of the data can be touched and decoded."""
    total = 0
    for name, tensor in tensors.items():
        assert tensor.name == name
        assert name.isprintable()
        assert min(tensor.shape) > 0
        assert tensor.num_bytes == tensor.num_rows * tensor.format.row_bytes(tensor.shape[-1])
        assert tensor.dequantize().shape == tensor.shape
        assert int(tensor.data.max()) < 256
        total += tensor.num_bytes
    assert total <= most_bytes


def check_metadata(metadata: Fields) -> None:
    """Every value can be had by the getter of its type, or that getter refuses it."""
    for key in metadata:
        assert key.isprintable() or metadata.subject.suffix == ".json"
        getters = (
            metadata.get_str,
            metadata.get_int,
            metadata.get_float,
            metadata.get_bool,
            metadata.get_array,
        )
        accepted = 0
        for getter in getters:
            with contextlib.suppress(ModelFileError):
                getter(key)
                accepted += 1
        # A whole number is also a finite number; nothing else is two things.
        assert accepted <= 2


def load_gguf(path: Path) -> None:
    found = open_gguf(path)
    check_tensors(found.tensors, path.stat().st_size)
    check_metadata(found.metadata)


def load_safetensors(path: Path) -> None:
    check_tensors(open_safetensors(path), sum(item.stat().st_size for item in path.parent.iterdir()))


def load_config(path: Path) -> None:
    check_metadata(open_config(path))


def gguf_of_all_formats() -> bytes:
    entries, data = [], b""
    ids = {name: int(gguf.GGMLQuantizationType[name]) for name in FORMATS}
    for index, (name, item) in enumerate(FORMATS.items()):
        width = 2 * item.block if item.block > 1 else 5
        raw = bytes((index * 7 + at) % 251 for at in range(3 * item.row_bytes(width)))
        entries.append(entry(f"blk.{index}.weight", [width, 3], ids[name], len(data)))
        data += raw + bytes(-len(raw) % 32)
    return GGUF([pair("general.architecture", STRING, text("llama"))], entries, data).bytes()


def gguf_of_metadata() -> bytes:
    words = pair("tokenizer.ggml.tokens", ARRAY, array(STRING, [text(f"w{index}") for index in range(40)]))
    return GGUF([*every_kind_of_pair(), words], [entry("a", [4, 2, 1, 3])], bytes(96)).bytes()


def gguf_aligned_to_8() -> bytes:
    alignment = pair("general.alignment", U32, number(U32, 8))
    entries = [entry("a", [2], 0, 0), entry("b", [32], 3, 8), entry("c", [3], 0, 32)]
    return GGUF([alignment], entries, bytes(44), version=2, alignment=8).bytes()


def safetensors_file() -> bytes:
    header = {
        "__metadata__": {"format": "pt"},
        "model.embed_tokens.weight": described("BF16", [4, 8], 0, 64),
        "model.norm.weight": described("F32", [8], 64, 96),
        "lm_head.weight": described("F16", [1, 4, 2], 96, 112),
    }
    return safetensors_bytes(header, bytes(range(112)))


def shard_index() -> bytes:
    return json.dumps({"metadata": {"total_size": 8}, "weight_map": {"w": "one.safetensors"}}).encode()


def config() -> bytes:
    settings = {
        "hidden_size": 64,
        "rope_scaling": {"factor": 8.0, "type": "yarn"},
        "architectures": ["A", "B"],
    }
    return json.dumps(
        {**settings, "rms_norm_eps": 1e-5, "tie": True, "head_dim": None, "act": "silu"}
    ).encode()


@dataclass(frozen=True)
class Target:
    """One kind of file, how it is loaded, and how many mutants of it the ordinary run makes."""

    file_name: str
    original: Callable[[], bytes]
    load: Callable[[Path], None]
    count: int


TARGETS = {
    "formats": Target("m.gguf", gguf_of_all_formats, load_gguf, 5000),
    "metadata": Target("m.gguf", gguf_of_metadata, load_gguf, 5000),
    "alignment": Target("m.gguf", gguf_aligned_to_8, load_gguf, 3000),
    "safetensors": Target("m.safetensors", safetensors_file, load_safetensors, 5000),
    "shards": Target("model.safetensors.index.json", shard_index, load_safetensors, 1000),
    "config": Target("config.json", config, load_config, 1000),
}


def integer_positions(target: Target, original: bytes) -> Sequence[int]:
    """Where a length, count, dimension or offset may stand: eight bytes whose upper five are zero."""
    if target.file_name.endswith(".json"):
        return ()
    header = original[:2048]
    return [at for at in range(len(header) - 8) if header[at + 3 : at + 8] == bytes(5) and header[at]]


def outcome(target: Target, path: Path) -> ModelFileError | None:
    """None where the file loads, the refusal where it is refused; any other exception passes."""
    try:
        target.load(path)
    except ModelFileError as error:
        return error
    return None


def run_mutants(target: Target, folder: Path, numbers: range) -> tuple[int, int]:
    """How many mutants loaded, and how many were refused; anything else is a failure."""
    (folder / "one.safetensors").write_bytes(safetensors_bytes({"w": described("F32", [2], 0, 8)}, bytes(8)))
    original = target.original()
    positions = integer_positions(target, original)
    path = folder / target.file_name
    loaded = refused = 0
    for number_of_mutant in numbers:
        path.write_bytes(mutant(number_of_mutant, original, positions))
        try:
            refusal = outcome(target, path)
        except Exception as error:
            raise AssertionError(f"mutant {number_of_mutant} of {target.file_name}") from error
        if refusal is None:
            loaded += 1
        else:
            refused += 1
            assert refusal.subject is not None
            assert len(str(refusal)) < 2000
        path.unlink()
    return loaded, refused


@pytest.mark.parametrize("name", list(TARGETS))
def test_originals_load(tmp_path: Path, name: str) -> None:
    target = TARGETS[name]
    (tmp_path / "one.safetensors").write_bytes(
        safetensors_bytes({"w": described("F32", [2], 0, 8)}, bytes(8))
    )
    (tmp_path / target.file_name).write_bytes(target.original())
    target.load(tmp_path / target.file_name)


@pytest.mark.parametrize("name", list(TARGETS))
def test_mutants_load_or_are_refused(tmp_path: Path, name: str) -> None:
    target = TARGETS[name]
    loaded, refused = run_mutants(target, tmp_path, range(target.count))
    assert loaded + refused == target.count
    # A mutator that breaks everything, or nothing, tests little.
    assert min(loaded, refused) > target.count // 50


def test_there_are_twenty_thousand() -> None:
    assert sum(target.count for target in TARGETS.values()) == 20_000


@pytest.mark.parametrize("name", list(TARGETS))
def test_no_mutant_takes_much_memory(tmp_path: Path, name: str) -> None:
    target = TARGETS[name]
    tracemalloc.start()
    try:
        run_mutants(target, tmp_path, range(10**6, 10**6 + 200))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # One file at a time, and each is a few kB: the slack of 64 MiB would hide a real fault here.
    assert peak <= 4 * len(target.original()) + (4 << 20)


@pytest.mark.parametrize("filler", [b"[],", b"{},", b'"":0,', b'{"a":[]},', b'"\\u00e9\\u4e00",'])
def test_headers_of_many_tiny_values_stay_within_memory(tmp_path: Path, filler: bytes) -> None:
    path = tmp_path / "m.safetensors"
    body = b'{"w":[' + filler * (
        500_000 // max(1, filler.count(b",") + filler.count(b"[") + filler.count(b"{"))
    )
    path.write_bytes(safetensors_bytes(body + b"0]}", b""))
    tracemalloc.start()
    try:
        with pytest.raises(ModelFileError):
            open_safetensors(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= 4 * path.stat().st_size + SLACK


@pytest.mark.fuzz
@pytest.mark.parametrize("name", list(TARGETS))
def test_many_more_mutants(tmp_path: Path, name: str) -> None:
    loaded, refused = run_mutants(TARGETS[name], tmp_path, range(2 * 10**6, 2 * 10**6 + 200_000))
    assert loaded
    assert refused
