"""GGUF files: metadata and named tensors, mapped from the file and never copied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

from ..errors import ModelFileError, UnsupportedModelError
from ..quant import FORMATS, Format, Tensor
from ..quant.format import U8
from .fields import Fields
from .gguf_header import Header, TensorEntry, read_header
from .gguf_numbers import ALIGNMENT_KEY, DEFAULT_ALIGNMENT, TENSOR_TYPES, ValueType
from .mapped import map_file

# The format asks for a multiple of 8; a page is the most anyone has used.
_LEAST_ALIGNMENT, _MOST_ALIGNMENT = 8, 1 << 16


@dataclass(frozen=True)
class GGUFFile:
    """An opened model file. `tensors` has NumPy shapes (GGUF's dimensions reversed), in file order."""

    path: Path
    version: int
    metadata: Fields
    tensors: Mapping[str, Tensor]


def open_gguf(path: Path | str) -> GGUFFile:
    """Map a GGUF file of version 2 or 3 (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).

    Raises ModelFileError naming file, field and value where anything in it is not what the
    format allows, UnsupportedModelError for what is allowed and not implemented.
    """
    path = Path(path)
    data = map_file(path)
    header = read_header(path, data)
    metadata = Fields(path, MappingProxyType(header.metadata))
    if metadata.get_int("split.count", 1) > 1:
        raise UnsupportedModelError(
            "files split in parts are not supported; merge them first",
            subject=path,
            field="split.count",
            value=metadata.get_int("split.count"),
        )
    alignment = _alignment(path, header)
    start = -(-header.end // alignment) * alignment
    tensors: dict[str, Tensor] = {}
    spans: list[tuple[int, int, str]] = []
    for entry in header.entries:
        if entry.name in tensors:
            raise ModelFileError("the tensor stands twice", subject=path, field="tensor", value=entry.name)
        tensor = _tensor(path, data, start, alignment, entry)
        tensors[entry.name] = tensor
        spans.append((entry.offset, entry.offset + tensor.num_bytes, entry.name))
    _refuse_overlap(path, spans)
    return GGUFFile(path, header.version, metadata, MappingProxyType(tensors))


def _alignment(path: Path, header: Header) -> int:
    key = ALIGNMENT_KEY
    if key not in header.metadata:
        return DEFAULT_ALIGNMENT
    value = header.metadata[key]
    if header.types[key] != ValueType.UINT32 or not isinstance(value, int):
        raise ModelFileError("must be a uint32", subject=path, field=key, value=header.types[key].name)
    if not _LEAST_ALIGNMENT <= value <= _MOST_ALIGNMENT or value & (value - 1):
        raise ModelFileError(
            f"must be a power of two from {_LEAST_ALIGNMENT} to {_MOST_ALIGNMENT}",
            subject=path,
            field=key,
            value=value,
        )
    return value


def _format(path: Path, entry: TensorEntry) -> Format:
    name = TENSOR_TYPES.get(entry.type_id)
    if name is None:
        raise ModelFileError(
            "no such tensor type", subject=path, field=f"{entry.name} type", value=entry.type_id
        )
    found = FORMATS.get(name)
    if found is None:
        raise UnsupportedModelError(
            f"this number format is not implemented ({', '.join(FORMATS)} are)",
            subject=path,
            field=f"{entry.name} type",
            value=name,
        )
    return found


def _tensor(path: Path, data: U8, start: int, alignment: int, entry: TensorEntry) -> Tensor:
    item = _format(path, entry)
    shape = entry.dimensions[::-1]
    if shape[-1] % item.block:
        raise ModelFileError(
            f"{item.name} rows need a multiple of {item.block} elements",
            subject=path,
            field=f"{entry.name} shape",
            value=shape,
        )
    size = item.row_bytes(shape[-1])
    for extent in shape[:-1]:
        size *= extent
    if entry.offset % alignment:
        raise ModelFileError(
            f"not a multiple of the alignment {alignment}",
            subject=path,
            field=f"{entry.name} offset",
            value=entry.offset,
        )
    first = start + entry.offset
    if first + size > data.size:
        raise ModelFileError(
            f"its {size} bytes at {first} reach past the file's end at {data.size}",
            subject=path,
            field=f"{entry.name} offset",
            value=entry.offset,
        )
    return Tensor(entry.name, item, shape, data[first : first + size])


def _refuse_overlap(path: Path, spans: list[tuple[int, int, str]]) -> None:
    spans = sorted(spans)
    for (_, end, name), (offset, _, other) in pairwise(spans):
        if offset < end:
            raise ModelFileError(
                f"overlaps the data of {name!r}, which ends at {end}",
                subject=path,
                field=f"{other} offset",
                value=offset,
            )
