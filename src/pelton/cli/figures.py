"""Numbers as people read them."""

from __future__ import annotations


def mebibytes(count: float) -> str:
    """`93.81 MiB`, `1.23 GiB`: llama-bench's units; `45.0 KiB` for what is small."""
    if count >= 2**30:
        return f"{count / 2**30:.2f} GiB"
    return f"{count / 2**20:.2f} MiB" if count >= 2**19 else f"{count / 2**10:.1f} KiB"


def parameters(count: int) -> str:
    """`134.52 M`, `1.24 B`."""
    return f"{count / 1e9:.2f} B" if count >= 1e9 else f"{count / 1e6:.2f} M"


def rate(per_second: float) -> str:
    """`463 G/s`, `36.6 G/s`."""
    return f"{per_second / 1e9:.3g} G/s" if per_second < 1e12 else f"{per_second / 1e12:.3g} T/s"


def seconds(value: float) -> str:
    """`1.24 s`, `38 ms`, `4.10 ms`, `4.1 us`."""
    if value >= 1.0:
        return f"{value:.2f} s"
    if value >= 1e-4:
        return f"{value * 1e3:.0f} ms" if value >= 1e-2 else f"{value * 1e3:.2f} ms"
    return f"{value * 1e6:.1f} us"


def share(part: float) -> str:
    return f"{part:.1%}"
