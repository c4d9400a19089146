"""Random weights of any shape in any format, quickly: to time a model without having it.

Weights are normal with standard deviation 1/sqrt(inputs), so activations keep their size
through a deep model and every kernel does its usual work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType

import numpy as np

from ..errors import ConfigError
from ..quant import FORMATS, Format, Tensor
from ..quant.format import U8

# Blocks encoded once and then copied about. Primes: a row is never a whole number of pools
# long, so no two rows of a matrix are equal.
_POOL_BLOCKS = {1: 262_139, 32: 8_191, 256: 1_021}
_NORM_SPREAD = 0.1
_BIAS_SPREAD = 0.02


def synthetic_tensor(name: str, shape: tuple[int, ...], item: Format, seed: int) -> Tensor:
    """The same tensor for the same (name, shape, format, seed); its memory is its file size.

    One-dimensional tensors are F32 whatever the format: near one for norms, near zero where
    the name ends in "bias". Raises ConfigError for a shape the format cannot hold.
    """
    if not shape or min(shape) < 1 or (shape[-1] % item.block and len(shape) > 1):
        raise ConfigError(
            f"{item.name} rows need a positive multiple of {item.block} elements",
            subject=name,
            field="shape",
            value=shape,
        )
    generator = np.random.Generator(np.random.Philox(key=_key(name, seed)))
    if len(shape) == 1:
        centre, spread = (0.0, _BIAS_SPREAD) if name.endswith("bias") else (1.0, _NORM_SPREAD)
        values = (centre + spread * generator.standard_normal(shape[0])).astype("<f4")
        return Tensor(name, FORMATS["F32"], shape, _frozen(values.view(np.uint8)))
    num_bytes = item.row_bytes(shape[-1])
    for extent in shape[:-1]:
        num_bytes *= extent
    pool = _pool(item.name, shape[-1], seed)
    return Tensor(name, item, shape, _frozen(_fill(num_bytes, pool, item.block_bytes, generator)))


def synthetic_tensors(
    shapes: Iterable[tuple[str, tuple[int, ...]]], item: Format, seed: int
) -> Mapping[str, Tensor]:
    """synthetic_tensor for each (name, shape)."""
    return MappingProxyType({name: synthetic_tensor(name, shape, item, seed) for name, shape in shapes})


def _key(name: str, seed: int) -> int:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:16], "little")


@lru_cache(maxsize=8)
def _pool(format_name: str, inputs: int, seed: int) -> U8:
    """Encoded blocks uint8 [bytes], twice over: from any start in the first half a whole pool follows."""
    item = FORMATS[format_name]
    generator = np.random.Generator(np.random.Philox(key=_key(f"pool {inputs}", seed)))
    values = generator.standard_normal((_POOL_BLOCKS[item.block], item.block), dtype=np.float32)
    encoded = item.encode(values / np.float32(np.sqrt(inputs))).reshape(-1)
    return _frozen(np.concatenate([encoded, encoded]))


def _fill(num_bytes: int, pool: U8, block_bytes: int, generator: np.random.Generator) -> U8:
    out = np.empty(num_bytes, np.uint8)
    length = pool.size // 2
    starts = generator.integers(0, length // block_bytes, -(-num_bytes // length)) * block_bytes
    for index, start in enumerate(starts.tolist()):
        part = out[index * length : (index + 1) * length]
        part[:] = pool[start : start + part.size]
    return out


def _frozen(data: U8) -> U8:
    data.setflags(write=False)
    return data
