"""safetensors files, single or sharded: named tensors, mapped from the files and never copied.

A file is a 64-bit header length, that much JSON, and the data. The header is read here and not
by the `safetensors` package: NumPy has no bfloat16, and the package hands data out as copies.
The checks are those of its own parser, and some more: repeated names, empty tensors.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ..errors import ModelFileError, UnsupportedModelError
from ..quant import FORMATS, Format, Tensor
from .mapped import map_file
from .strict_json import parse_object

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"

_MOST_HEADER_BYTES = 100_000_000  # the bound of the reference implementation
_MOST_INDEX_BYTES = 64 << 20
_MOST_SHARDS = 4096
_MOST_DIMENSIONS = 8
_LONGEST_NAME = 1024
_MOST_BYTES = 1 << 62


@dataclass(frozen=True)
class _Entry:
    name: str
    format: Format
    shape: tuple[int, ...]
    start: int
    end: int


def open_safetensors(folder_or_file: Path | str) -> Mapping[str, Tensor]:
    """The tensors of a .safetensors file, a shard index, or a folder that holds either.

    Raises ModelFileError naming file, field and value where a file is not what the format
    allows, UnsupportedModelError for element types other than F32, F16 and BF16.
    """
    path = Path(folder_or_file)
    if path.is_dir():
        index = path / INDEX_NAME
        path = index if index.exists() else path / SINGLE_NAME
    if path.name.endswith(".index.json"):
        return _open_shards(path)
    return MappingProxyType(_open_file(path))


def _open_shards(index: Path) -> Mapping[str, Tensor]:
    data = map_file(index)
    if data.size > _MOST_INDEX_BYTES:
        raise ModelFileError(
            f"longer than {_MOST_INDEX_BYTES} bytes", subject=index, field="size", value=data.size
        )
    weight_map = parse_object(data.data, index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise ModelFileError("must be an object", subject=index, field="weight_map", value=weight_map)
    names: dict[str, list[str]] = {}
    for name, shard in weight_map.items():
        names.setdefault(_shard_name(index, name, shard), []).append(name)
    if len(names) > _MOST_SHARDS:
        raise ModelFileError(
            f"more than {_MOST_SHARDS} files", subject=index, field="weight_map", value=len(names)
        )
    tensors: dict[str, Tensor] = {}
    for shard, promised in names.items():
        found = _open_file(index.parent / shard)
        for name in promised:
            if name not in found:
                raise ModelFileError(
                    f"{shard} has no such tensor", subject=index, field="weight_map", value=name
                )
            tensors[name] = found[name]
        stray = found.keys() - set(promised)
        if stray:
            raise ModelFileError(
                f"{shard} holds a tensor the index does not give to it",
                subject=index,
                field="weight_map",
                value=min(stray),
            )
    return MappingProxyType(tensors)


def _shard_name(index: Path, tensor: str, shard: object) -> str:
    """A plain file name next to the index: nothing that could leave the folder."""
    plain = isinstance(shard, str) and shard.endswith(".safetensors") and len(shard) <= 255
    if not plain or not isinstance(shard, str) or not shard.isprintable() or set(shard) & set("/\\:"):
        raise ModelFileError(
            "must be the name of a .safetensors file in the same folder",
            subject=index,
            field=f"weight_map[{tensor[:80]!r}]",
            value=shard,
        )
    return shard


def _open_file(path: Path) -> dict[str, Tensor]:
    data = map_file(path)
    if data.size < 8:
        raise ModelFileError(
            "too short for a safetensors header", subject=path, field="size", value=data.size
        )
    length = int(struct.unpack("<Q", data[:8].tobytes())[0])
    if length > min(_MOST_HEADER_BYTES, data.size - 8):
        raise ModelFileError(
            f"longer than {_MOST_HEADER_BYTES} bytes or the file",
            subject=path,
            field="header length",
            value=length,
        )
    if length == 0 or data[8] != ord("{"):
        raise ModelFileError("must start with {", subject=path, field="header", value=data[8:16].tobytes())
    header = parse_object(data.data[8 : 8 + length], path)
    _check_metadata(path, header.pop("__metadata__", None))
    entries = [_entry(path, name, value) for name, value in header.items()]
    body = data[8 + length :]
    _require_contiguous(path, entries, body.size)
    return {
        item.name: Tensor(item.name, item.format, item.shape, body[item.start : item.end]) for item in entries
    }


def _check_metadata(path: Path, found: object) -> None:
    if found is None:
        return
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ModelFileError("must be an object of strings", subject=path, field="__metadata__", value=found)


def _entry(path: Path, name: str, value: object) -> _Entry:
    shown = name[:80]
    if not name or len(name) > _LONGEST_NAME or not name.isprintable():
        raise ModelFileError("not a usable tensor name", subject=path, field="tensor", value=shown)
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise ModelFileError(
            "must be an object of dtype, shape and data_offsets", subject=path, field=shown, value=value
        )
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if dtype not in ("F32", "F16", "BF16"):
        raise UnsupportedModelError(
            "only F32, F16 and BF16 are implemented", subject=path, field=f"{shown} dtype", value=dtype
        )
    if not _whole_numbers(shape, 1) or not 1 <= len(shape) <= _MOST_DIMENSIONS:
        raise ModelFileError(
            f"must be 1 to {_MOST_DIMENSIONS} positive whole numbers",
            subject=path,
            field=f"{shown} shape",
            value=shape,
        )
    if not _whole_numbers(offsets, 0) or len(offsets) != 2:
        raise ModelFileError(
            "must be two whole numbers", subject=path, field=f"{shown} data_offsets", value=offsets
        )
    item = FORMATS[dtype]
    size = item.block_bytes
    for extent in shape:
        size *= extent
    if offsets[1] - offsets[0] != size:
        raise ModelFileError(
            f"its shape {shape} takes {size} bytes",
            subject=path,
            field=f"{shown} data_offsets",
            value=offsets,
        )
    return _Entry(name, item, tuple(shape), offsets[0], offsets[1])


def _whole_numbers(found: object, least: int) -> bool:
    return isinstance(found, list) and all(
        type(item) is int and least <= item < _MOST_BYTES for item in found
    )


def _require_contiguous(path: Path, entries: list[_Entry], size: int) -> None:
    """No gaps, no overlaps, nothing after the last tensor: no room for a second file inside this one."""
    position = 0
    for item in sorted(entries, key=lambda item: (item.start, item.end)):
        if item.start != position:
            raise ModelFileError(
                f"must start at {position}, where the tensor before it ends",
                subject=path,
                field=f"{item.name[:80]} data_offsets",
                value=item.start,
            )
        position = item.end
    if position != size:
        raise ModelFileError(
            f"the tensors take {position} bytes", subject=path, field="data size", value=size
        )
