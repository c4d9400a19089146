"""Random weights of any shape in any format, quickly: to time a model without having it.

Weights are normal with standard deviation 1/sqrt(inputs), so activations keep their size
through a deep model and every kernel does its usual work. They are made when asked for and
not kept: a model that is packed as it is made is in memory once.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..errors import ConfigError
from ..quant import FORMATS, Format, Tensor, Weight
from ..quant.format import U8

# Blocks encoded once and then copied about. Primes: a row is never a whole number of pools
# long, so no two rows of a matrix are equal.
_POOL_BLOCKS = {1: 262_139, 32: 8_191, 256: 1_021}
_NORM_SPREAD = 0.1
_BIAS_SPREAD = 0.02


@dataclass(frozen=True)
class SyntheticWeight(Weight):
    """The same bytes each time for the same (name, shape, format, seed); see synthetic_weight."""

    seed: int

    def load(self) -> Tensor:
        """Made anew; its memory is its file size."""
        generator = np.random.Generator(np.random.Philox(key=_key(self.name, self.seed)))
        if len(self.shape) == 1:
            centre, spread = (0.0, _BIAS_SPREAD) if self.name.endswith("bias") else (1.0, _NORM_SPREAD)
            values = centre + spread * generator.standard_normal(self.shape[0])
            data = values.astype("<f4").view(np.uint8)
        else:
            pool = _pool(self.format.name, self.shape[-1], self.seed)
            data = _fill(self.num_bytes, pool, self.format.block_bytes, generator)
        return Tensor(self.name, self.format, self.shape, _frozen(data))


def synthetic_weight(name: str, shape: tuple[int, ...], item: Format, seed: int) -> SyntheticWeight:
    """One-dimensional weights are F32 whatever the format: near one for norms, near zero where the name
    ends in "bias". Raises ConfigError for a shape the format cannot hold."""
    if not shape or min(shape) < 1 or (shape[-1] % item.block and len(shape) > 1):
        raise ConfigError(
            f"{item.name} rows need a positive multiple of {item.block} elements",
            subject=name,
            field="shape",
            value=shape,
        )
    return SyntheticWeight(name, FORMATS["F32"] if len(shape) == 1 else item, shape, seed)


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
