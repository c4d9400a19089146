"""safetensors files as the safetensors package writes them, shards, config.json, and hostile ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from pelton.errors import ModelFileError, UnsupportedModelError
from pelton.weights.config_file import open_config
from pelton.weights.safetensors import open_safetensors

from .container_bytes import described, safetensors_bytes


def test_a_file_as_the_safetensors_package_writes_it(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    arrays: dict[str, NDArray[np.float16] | NDArray[np.float32]] = {
        "a.weight": generator.normal(size=(3, 5)).astype(np.float32),
        "b": generator.normal(size=(7,)).astype(np.float16),
        "c": generator.normal(size=(2, 2, 2)).astype(np.float32),
    }
    save_file(arrays, tmp_path / "model.safetensors", metadata={"format": "pt"})
    tensors = open_safetensors(tmp_path)
    assert tensors.keys() == arrays.keys()
    for name, values in arrays.items():
        assert tensors[name].shape == values.shape
        assert np.array_equal(tensors[name].dequantize(), values.astype(np.float32))
        assert not tensors[name].data.flags.owndata
        assert not tensors[name].data.flags.writeable


def test_bf16(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_bytes({"w": described("BF16", [2], 0, 4)}, b"\x80\x3f\x00\xc0"))
    assert open_safetensors(path)["w"].dequantize().tolist() == [1.0, -2.0]


def sharded(folder: Path, weight_map: object) -> Path:
    for name, letter in (("one", "a"), ("two", "b")):
        save_file({letter: np.ones((2, 2), np.float32)}, folder / f"{name}.safetensors")
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )
    return folder


def test_shards(tmp_path: Path) -> None:
    tensors = open_safetensors(sharded(tmp_path, {"a": "one.safetensors", "b": "two.safetensors"}))
    assert sorted(tensors) == ["a", "b"]
    assert tensors["b"].dequantize().tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize(
    "weight_map",
    [
        {"a": "../one.safetensors"},
        {"a": "/etc/one.safetensors"},
        {"a": "sub/one.safetensors"},
        {"a": "..\\one.safetensors"},
        {"a": "C:one.safetensors"},
        {"a": "one.safetensors\0"},
        {"a": "one.bin"},
        {"a": "x" * 300 + ".safetensors"},
        {"a": 3},
        {"a": ["one.safetensors"]},
        {"a": "absent.safetensors"},
        {"a": "two.safetensors"},
        {"zzz": "one.safetensors"},
        {"a": "one.safetensors", "b": "one.safetensors"},
        "one.safetensors",
        None,
    ],
)
def test_hostile_shard_names_and_false_promises(tmp_path: Path, weight_map: object) -> None:
    with pytest.raises(ModelFileError) as caught:
        open_safetensors(sharded(tmp_path, weight_map))
    assert str(tmp_path) in str(caught.value)


def test_a_tensor_the_index_gives_to_no_file_is_refused(tmp_path: Path) -> None:
    folder = sharded(tmp_path, {"a": "one.safetensors", "b": "two.safetensors"})
    save_file({name: np.ones(2, np.float32) for name in "bc"}, folder / "two.safetensors")
    with pytest.raises(ModelFileError, match="does not give") as caught:
        open_safetensors(folder)
    assert caught.value.value == "c"


GOOD = described("F32", [2], 0, 8)
HOSTILE: dict[str, Callable[[], bytes]] = {
    "shorter than a length": lambda: b"\x08\0\0",
    "length of 2^63": lambda: safetensors_bytes({"w": GOOD}, bytes(8), 2**63),
    "length beyond the file": lambda: safetensors_bytes({"w": GOOD}, b"", 4096),
    "length over 100 MB": lambda: safetensors_bytes({"w": GOOD}, bytes(8), 100_000_001),
    "length zero": lambda: safetensors_bytes(b"", b""),
    "leading space": lambda: safetensors_bytes(b' {"w":{}}', b""),
    "list": lambda: safetensors_bytes(b"[1]", b""),
    "not JSON": lambda: safetensors_bytes(b"{nonsense", b""),
    "not UTF-8": lambda: safetensors_bytes(b'{"\xff":1}', b""),
    "deep nesting": lambda: safetensors_bytes(b'{"w":' + b"[" * 90_000, b""),
    "too many values": lambda: safetensors_bytes(b'{"w":[' + b"0," * 600_000 + b"0]}", b""),
    "long integer": lambda: safetensors_bytes(b'{"w":' + b"9" * 3000 + b"}", b""),
    "NaN": lambda: safetensors_bytes(b'{"w":NaN}', b""),
    "repeated name": lambda: safetensors_bytes(
        json.dumps({"w": GOOD})[:-1] + "," + json.dumps({"w": GOOD})[1:], bytes(8)
    ),
    "repeated field": lambda: safetensors_bytes(
        '{"w":{"dtype":"F32","dtype":"F16","shape":[2],"data_offsets":[0,8]}}', bytes(8)
    ),
    "metadata of numbers": lambda: safetensors_bytes({"__metadata__": {"a": 1}, "w": GOOD}, bytes(8)),
    "metadata a list": lambda: safetensors_bytes({"__metadata__": [], "w": GOOD}, bytes(8)),
    "entry a number": lambda: safetensors_bytes({"w": 5}, bytes(8)),
    "entry without shape": lambda: safetensors_bytes(
        {"w": {"dtype": "F32", "data_offsets": [0, 8]}}, bytes(8)
    ),
    "entry with more": lambda: safetensors_bytes({"w": {**GOOD, "x": 1}}, bytes(8)),
    "empty name": lambda: safetensors_bytes({"": GOOD}, bytes(8)),
    "control character in a name": lambda: safetensors_bytes({"a\nb": GOOD}, bytes(8)),
    "half a surrogate in a name": lambda: safetensors_bytes({"\ud800": GOOD}, bytes(8)),
    "name of 2000": lambda: safetensors_bytes({"a" * 2000: GOOD}, bytes(8)),
    "type F8": lambda: safetensors_bytes({"w": described("F8_E4M3", [8], 0, 8)}, bytes(8)),
    "type I64": lambda: safetensors_bytes({"w": described("I64", [1], 0, 8)}, bytes(8)),
    "type a list": lambda: safetensors_bytes({"w": {**GOOD, "dtype": ["F32"]}}, bytes(8)),
    "shape empty": lambda: safetensors_bytes({"w": described("F32", [], 0, 4)}, bytes(4)),
    "shape zero": lambda: safetensors_bytes({"w": described("F32", [0], 0, 0)}, b""),
    "shape negative": lambda: safetensors_bytes({"w": described("F32", [-2], 0, 8)}, bytes(8)),
    "shape of floats": lambda: safetensors_bytes({"w": {**GOOD, "shape": [2.0]}}, bytes(8)),
    "shape of truths": lambda: safetensors_bytes({"w": {**GOOD, "shape": [True, 2]}}, bytes(8)),
    "nine dimensions": lambda: safetensors_bytes({"w": described("F32", [2] + [1] * 8, 0, 8)}, bytes(8)),
    "product that wraps": lambda: safetensors_bytes(
        {"w": described("F32", [2**62 + 1, 4], 0, 16)}, bytes(16)
    ),
    "product that wraps to zero": lambda: safetensors_bytes(
        {"w": described("F32", [2**32, 2**32], 0, 0)}, b""
    ),
    "size of another shape": lambda: safetensors_bytes({"w": described("F32", [3], 0, 8)}, bytes(8)),
    "offsets reversed": lambda: safetensors_bytes({"w": described("F32", [2], 8, 0)}, bytes(8)),
    "offsets negative": lambda: safetensors_bytes({"w": described("F32", [2], -8, 0)}, bytes(8)),
    "three offsets": lambda: safetensors_bytes({"w": {**GOOD, "data_offsets": [0, 8, 8]}}, bytes(8)),
    "offsets beyond the file": lambda: safetensors_bytes({"w": described("F32", [2], 0, 8)}, bytes(7)),
    "offset of 2^63": lambda: safetensors_bytes({"w": described("F32", [2], 2**63, 2**63 + 8)}, bytes(8)),
    "gap at the start": lambda: safetensors_bytes({"w": described("F32", [2], 4, 12)}, bytes(12)),
    "gap in the middle": lambda: safetensors_bytes(
        {"w": GOOD, "v": described("F32", [1], 12, 16)}, bytes(16)
    ),
    "overlap": lambda: safetensors_bytes({"w": GOOD, "v": described("F32", [2], 4, 12)}, bytes(12)),
    "same bytes twice": lambda: safetensors_bytes({"w": GOOD, "v": GOOD}, bytes(8)),
    "second file behind": lambda: safetensors_bytes({"w": GOOD}, bytes(8) + b"PK\x03\x04"),
    "no tensors but data": lambda: safetensors_bytes({}, bytes(8)),
}
# The reference implementation takes these; pelton has no use for them and each invites a mistake.
STRICTER = {"shape empty", "shape zero", "type F8", "type I64", "name of 2000", "control character in a name"}
STRICTER |= {"empty name", "nine dimensions", "repeated name", "entry with more"}


def reference_accepts(path: Path) -> bool:
    try:
        with safe_open(path, framework="np") as opened:
            return len(opened.keys()) > 0
    except SafetensorError:
        return False


@pytest.mark.parametrize("name", list(HOSTILE))
def test_hostile_files_are_refused_by_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(HOSTILE[name]())
    with pytest.raises(ModelFileError) as caught:
        open_safetensors(path)
    assert caught.value.subject == str(path)
    assert len(str(caught.value)) < 1000
    assert reference_accepts(path) == (name in STRICTER)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("too many values", "more than 524288 values"),
        ("long integer", "a number of 3000 digits"),
        ("NaN", "no JSON number"),
    ],
)
def test_json_is_bounded_before_it_is_understood(tmp_path: Path, name: str, reason: str) -> None:
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(HOSTILE[name]())
    with pytest.raises(ModelFileError, match=reason):
        open_safetensors(path)


def test_a_large_header_is_read(tmp_path: Path) -> None:
    names = {
        f"layer.{index}.weight": described("F16", [1], 2 * index, 2 * index + 2) for index in range(30_000)
    }
    path = tmp_path / "large.safetensors"
    path.write_bytes(safetensors_bytes(names, bytes(60_000)))
    assert len(open_safetensors(path)) == 30_000


def test_config_is_typed_tracked_and_nested(tmp_path: Path) -> None:
    settings = {
        "hidden_size": 64,
        "rope_theta": 10000,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "head_dim": None,
        "hidden_act": "silu",
        "eos_token_id": [1, 2],
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "odd": 1},
        "surprise": 1,
    }
    (tmp_path / "config.json").write_text(json.dumps(settings))
    config = open_config(tmp_path)
    assert config.get_int("hidden_size") == 64
    assert config.get_float("rope_theta") == 10000.0
    assert config.get_bool("tie_word_embeddings") is True
    assert config.get_int("head_dim", None) is None
    assert config.get_array("eos_token_id", element=int) == [1, 2]
    config.expect("hidden_act", "silu")
    scaling = config.section("rope_scaling")
    assert scaling is not None
    assert scaling.get_float("factor") == 8.0
    assert scaling.unread() == ("rope_type", "odd")
    assert config.unread() == ("rms_norm_eps", "surprise")
    assert config.section("absent") is None
    with pytest.raises(ModelFileError, match=r"config.json: head_dim: the key is missing"):
        config.get_int("head_dim")
    with pytest.raises(ModelFileError, match=r"hidden_act = 'silu': must be an object"):
        config.section("hidden_act")
    with pytest.raises(UnsupportedModelError, match=r"rope_scaling.rope_type = 'llama3'"):
        scaling.expect("rope_type", "linear")


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{", b'{"a":1,"a":2}', b'{"a":Infinity}', b"\xff", b"x" * (5 << 20)]
)
def test_a_broken_config_names_its_file(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "config.json").write_bytes(raw)
    with pytest.raises(ModelFileError, match=r"config\.json"):
        open_config(tmp_path)
