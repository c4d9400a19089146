"""Damaged files of the disk tier: cut, flipped or made up, they are misses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pelton.kv.disk_format import FIXED_BYTES, BlockHeader, BrokenFileError, decode_header
from pelton.types import BLOCK_SIZE

from .disk_bench import IDENTITY, DiskBench, files, prompt


def one_file(tmp_path: Path) -> tuple[Path, bytes]:
    bench = DiskBench(tmp_path / "kv")
    bench.run(prompt(BLOCK_SIZE, 1), salt="s")
    bench.close()
    (path,) = files(tmp_path)
    return path, path.read_bytes()


def found_after(path: Path, data: bytes) -> int:
    path.write_bytes(data)
    bench = DiskBench(path.parent)
    found = bench.run([*prompt(BLOCK_SIZE, 1), 5], salt="s")
    bench.close()
    for file in path.parent.glob("*.kv"):
        file.unlink()
    return found


def test_every_cut_is_a_miss(tmp_path: Path) -> None:
    path, data = one_file(tmp_path)
    header = decode_header(data).header_bytes
    random = np.random.default_rng(0)
    cuts = [*range(header + 1), *random.integers(header, len(data), 60).tolist(), len(data) - 1]
    assert all(found_after(path, data[:cut]) == 0 for cut in cuts)
    assert found_after(path, data + b"\0") == 0
    assert found_after(path, data) == BLOCK_SIZE


@pytest.mark.load
def test_every_cut_is_a_miss_at_500_offsets(tmp_path: Path) -> None:
    path, data = one_file(tmp_path)
    cuts = np.random.default_rng(1).integers(0, len(data), 500).tolist()
    assert all(found_after(path, data[:cut]) == 0 for cut in cuts)


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_every_flipped_bit_of_a_header_is_seen(tmp_path: Path) -> None:
    _, data = one_file(tmp_path)
    header = decode_header(data)
    for bit in range(8 * header.header_bytes):
        with pytest.raises(BrokenFileError):
            decode_header(flipped(data, bit))


def test_flipped_bits_are_misses(tmp_path: Path) -> None:
    path, data = one_file(tmp_path)
    for bit in np.random.default_rng(0).integers(0, 8 * len(data), 100).tolist():
        assert found_after(path, flipped(data, bit)) == 0


@pytest.mark.load
def test_100_000_flipped_bits_of_the_payload_are_seen(tmp_path: Path) -> None:
    from pelton.kv.disk_format import checked_payload

    _, data = one_file(tmp_path)
    header = decode_header(data)
    low, high = 8 * header.header_bytes, 8 * len(data)
    for bit in np.random.default_rng(0).integers(low, high, 100_000).tolist():
        with pytest.raises(BrokenFileError):
            checked_payload(flipped(data, bit), header)


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    for start in (b"", BlockHeader(IDENTITY, "s", np.arange(3, dtype=np.int32), 9).encode()[:FIXED_BYTES]):
        try:
            decode_header(start + data)
        except BrokenFileError:
            continue
