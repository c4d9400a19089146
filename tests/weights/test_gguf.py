"""GGUF files as the gguf package writes them, and the metadata they carry."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from pelton.errors import ModelFileError, UnsupportedModelError
from pelton.quant import FORMATS
from pelton.weights.gguf import open_gguf
from pelton.weights.gguf_numbers import ALIGNMENT_KEY, DEFAULT_ALIGNMENT, TENSOR_TYPES, ValueType
from pelton.weights.mapped import map_file, release_pages

from .container_bytes import ARRAY, GGUF, STRING, U32, array, entry, every_kind_of_pair, number, pair, text


def written(folder: Path, content: GGUF) -> Path:
    path = folder / "model.gguf"
    path.write_bytes(content.bytes())
    return path


def test_numbers_of_types_are_those_of_the_gguf_package() -> None:
    assert {kind.name: kind.value for kind in ValueType} == {k.name: k.value for k in gguf.GGUFValueType}
    theirs = {kind.value: kind.name for kind in gguf.GGMLQuantizationType}
    both = TENSOR_TYPES.keys() & theirs.keys()
    assert [TENSOR_TYPES[value] for value in both] == [theirs[value] for value in both]
    for name, form in FORMATS.items():
        kind = gguf.GGMLQuantizationType[name]
        assert TENSOR_TYPES[kind.value] == name
        assert gguf.GGML_QUANT_SIZES[kind] == (form.block, form.block_bytes)
    assert (gguf.Keys.General.ALIGNMENT, gguf.GGUF_DEFAULT_ALIGNMENT) == (ALIGNMENT_KEY, DEFAULT_ALIGNMENT)


@pytest.mark.parametrize("name", list(FORMATS))
def test_a_tensor_of_every_format_as_the_gguf_package_writes_it(tmp_path: Path, name: str) -> None:
    item = FORMATS[name]
    values = np.random.default_rng(3).normal(0, 0.02, (5, 256)).astype(np.float32)
    raw = item.encode(values.reshape(-1, item.block)).reshape(5, -1)
    kind = gguf.GGMLQuantizationType[name]
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tensor("first", np.arange(3, dtype=np.float32))
    writer.add_tensor("weight", raw, raw_shape=raw.shape, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    tensor = open_gguf(tmp_path / "m.gguf").tensors["weight"]

    assert tensor.shape == (5, 256)
    assert tensor.format is item
    assert np.array_equal(tensor.row_bytes(), raw)
    assert np.array_equal(tensor.dequantize(), item.decode(raw.reshape(-1, item.block_bytes)).reshape(5, 256))


def test_metadata_of_every_type_as_the_gguf_package_writes_it(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_uint8("u8", 200)
    writer.add_int8("i8", -3)
    writer.add_uint64("u64", 2**63)
    writer.add_int64("i64", -(2**62))
    writer.add_float32("f32", 0.5)
    writer.add_float64("f64", 1e300)
    writer.add_bool("yes", True)
    writer.add_string("greeting", "grüß dich")
    writer.add_array("words", ["a", "", "\N{OWL}"])
    writer.add_array("numbers", [1, -2, 3])
    writer.add_array("reals", [0.5, 2.0])
    writer.add_array("flags", [True, False])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    metadata = open_gguf(str(tmp_path / "m.gguf")).metadata

    assert [metadata.get_int(key) for key in ("u8", "i8", "u64", "i64")] == [200, -3, 2**63, -(2**62)]
    assert [metadata.get_float(key) for key in ("f32", "f64", "u8")] == [0.5, 1e300, 200.0]
    assert metadata.get_bool("yes") is True
    assert metadata.get_str("greeting") == "grüß dich"
    assert metadata.get_array("words", element=str) == ["a", "", "\N{OWL}"]
    assert metadata.get_array("numbers", element=int) == [1, -2, 3]
    assert metadata.get_array("reals", element=float) == [0.5, 2.0]
    assert metadata.get_array("flags", element=bool) == [True, False]
    assert metadata.keys()[0] == "general.architecture"
    assert metadata.is_array("words")
    assert not metadata.is_array("greeting")


def test_data_is_mapped_and_read_only(tmp_path: Path) -> None:
    payload = bytes(range(128))
    path = written(tmp_path, GGUF([], [entry("w", [32])], payload))
    data = open_gguf(path).tensors["w"].data
    assert not data.flags.owndata
    assert not data.flags.writeable
    assert data.tobytes() == payload


def test_version_2_other_alignments_and_dimension_order(tmp_path: Path) -> None:
    alignment = pair("general.alignment", U32, number(U32, 256))
    rows = [entry("a", [32, 3, 2], 8, 0), entry("b", [1], 0, 256)]
    content = GGUF(
        [alignment, *every_kind_of_pair()], rows, bytes(256) + number(6, 7.0), version=2, alignment=256
    )
    found = open_gguf(written(tmp_path, content))
    assert found.version == 2
    assert found.tensors["a"].shape == (2, 3, 32)
    assert found.tensors["b"].dequantize().tolist() == [7.0]
    assert list(found.tensors) == ["a", "b"]


def test_getters_name_file_key_and_value(tmp_path: Path) -> None:
    pairs = [
        *every_kind_of_pair(),
        pair("nan", 6, number(6, float("nan"))),
        pair("bad", ARRAY, array(STRING, [text("fine"), text(b"\xff\xfe")])),
    ]
    metadata = open_gguf(written(tmp_path, GGUF(pairs))).metadata
    wrong: list[tuple[Callable[[str], object], str, object]] = [
        (metadata.get_int, "name", "tiny"),
        (metadata.get_int, "scalar.6", 1.0),
        (metadata.get_int, "scalar.7", True),
        (metadata.get_str, "scalar.4", 1),
        (metadata.get_bool, "scalar.4", 1),
        (metadata.get_float, "name", "tiny"),
        (metadata.get_array, "name", "tiny"),
        (metadata.get_array, "bad", b"\xff\xfe"),
        (metadata.get_int, "missing", None),
    ]
    for getter, key, value in wrong:
        with pytest.raises(ModelFileError) as caught:
            getter(key)
        assert caught.value.subject == str(tmp_path / "model.gguf")
        assert str(caught.value.field).startswith(key)
        assert caught.value.value == value
    with pytest.raises(ModelFileError, match="finite"):
        metadata.get_float("nan")
    with pytest.raises(ModelFileError, match="str only"):
        metadata.get_array("array.4", element=str)
    assert metadata.get_int("missing", 5) == 5
    assert metadata.get_array("missing", None) is None


def test_expect_refuses_an_option_that_is_not_implemented(tmp_path: Path) -> None:
    metadata = open_gguf(written(tmp_path, GGUF(every_kind_of_pair()))).metadata
    metadata.expect("name", "tiny", "small")
    metadata.expect("missing", "anything")
    with pytest.raises(UnsupportedModelError, match=r"name = 'tiny'"):
        metadata.expect("name", "small")
    with pytest.raises(UnsupportedModelError):
        metadata.expect("scalar.7", 1)
    assert "name" not in metadata.unread()
    assert "words" in metadata.unread()


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty.gguf"
    empty.touch()
    for path in (tmp_path, tmp_path / "absent.gguf", empty, Path("nul\0")):
        with pytest.raises(ModelFileError) as caught:
            open_gguf(path)
        assert caught.value.subject == str(path)


def test_a_named_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(ModelFileError, match="regular"):
        open_gguf(tmp_path / "pipe.gguf")


def test_released_pages_read_the_same_again(tmp_path: Path) -> None:
    path = tmp_path / "bytes"
    path.write_bytes(bytes(range(256)) * 256)
    data = map_file(path)
    expected = data.copy()
    release_pages(data[100:60_000])
    np.testing.assert_array_equal(data, expected)
    release_pages(expected)  # no mapped file: nothing happens
