"""What would make this machine faster, from what can be read of it; each line names what to do."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from .machine import Machine

_SLOW_BARRIER_SECONDS = 20e-6
_COMFORTABLE_FREE_BYTES = 1 << 30


@dataclass(frozen=True)
class Surroundings:
    """What the process runs on.

    levels: instruction-set levels the processor has, slowest first; `isa` is the one in use. quota:
    processors a container may use, None without a limit. load: runnable processes of the last minute, this
    one included. governor: the kernel's frequency policy and huge_pages: its policy, None where unknown.
    """

    processor: str
    flags: tuple[str, ...]
    levels: tuple[str, ...]
    isa: str
    processors: int
    threads: int
    l1_bytes: int
    l2_bytes: int
    l3_bytes: int
    memory_bytes: int
    free_bytes: int
    swap_used_bytes: int
    quota: float | None
    load: float
    governor: str | None
    huge_pages: str | None


def observe(threads: int, isa: str | None = None) -> Surroundings:
    """Read the surroundings afresh. ConfigError for a level the processor does not have."""
    from .. import _native

    features = _native.cpu_features()
    memory = psutil.virtual_memory()
    return Surroundings(
        processor=features.brand or "unknown processor",
        flags=tuple(features.flags),
        levels=tuple(_native.isa_levels()),
        isa=_native.resolve_isa(isa or ""),
        processors=features.num_processors,
        threads=threads,
        l1_bytes=features.l1_bytes,
        l2_bytes=features.l2_bytes,
        l3_bytes=features.l3_bytes,
        memory_bytes=memory.total,
        free_bytes=memory.available,
        swap_used_bytes=psutil.swap_memory().used,
        quota=parse_quota(_read("/sys/fs/cgroup/cpu.max")),
        load=os.getloadavg()[0],
        governor=_read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        huge_pages=parse_choice(_read("/sys/kernel/mm/transparent_hugepage/enabled")),
    )


def advice(around: Surroundings, machine: Machine) -> tuple[str, ...]:
    """Sentences, the weightiest first; empty where nothing is to be gained."""
    return tuple(line for rule in _RULES for line in rule(around, machine))


def parse_quota(text: str | None) -> float | None:
    """Processors of a control group's `cpu.max`, "QUOTA PERIOD" in microseconds, "max" for no limit."""
    parts = (text or "").split()
    if len(parts) != 2 or not all(part.isdecimal() for part in parts) or int(parts[1]) == 0:
        return None
    return int(parts[0]) / int(parts[1])


def parse_choice(text: str | None) -> str | None:
    """The bracketed word of a kernel setting such as `always [madvise] never`."""
    return next((word[1:-1] for word in (text or "").split() if word[:1] == "[" and word[-1:] == "]"), None)


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None


def _level(around: Surroundings, machine: Machine) -> Iterator[str]:
    fastest = around.levels[-1]
    if around.isa != fastest:
        yield f"The level in force is {around.isa}, the processor has {fastest}: drop PELTON_ISA and --isa."
    elif fastest == "generic":
        yield "The processor has no AVX2: the generic kernels run. Any x86-64 processor since 2013 is faster."
    elif not {"avx512_vnni", "avx_vnni"} & set(around.flags):
        yield "The processor lacks VNNI, which makes 8-bit dot products several times faster."


def _threads(around: Surroundings, machine: Machine) -> Iterator[str]:
    usable = min(around.processors, around.quota or around.processors)
    if around.threads < int(usable):
        yield f"{around.threads} of {int(usable)} processors are used: raise --threads."
    if around.threads > max(1.0, usable):
        yield (
            f"{around.threads} threads share {usable:g} processors and will wait for each other:"
            f" use --threads {max(1, int(usable))}."
        )
    if around.quota is not None and around.quota < around.processors:
        yield f"The container may use {around.quota:g} of {around.processors} processors: raise its limit."


def _neighbours(around: Surroundings, machine: Machine) -> Iterator[str]:
    others = around.load - around.threads
    if around.load > 0.5 and others > -0.5 * around.threads:
        yield f"Other programs keep the processors busy (load {around.load:.1f}): stop them to measure."
    if machine.barrier > _SLOW_BARRIER_SECONDS:
        yield (
            f"Threads take {machine.barrier * 1e6:.0f} us to meet, 20 at most on an idle machine: processors"
            " are shared with other programs or other virtual machines."
        )


def _memory(around: Surroundings, machine: Machine) -> Iterator[str]:
    if around.free_bytes < _COMFORTABLE_FREE_BYTES:
        free = around.free_bytes / 1e6
        yield f"Only {free:,.0f} MB of memory are free: end other programs or pass a small --kv-memory."
    if around.swap_used_bytes > around.memory_bytes // 100:
        yield f"{around.swap_used_bytes / 1e6:,.0f} MB are swapped out: a disk is 10 to 100 times slower."
    if around.huge_pages == "never":
        yield (
            "Huge pages are off: as root, `echo madvise > /sys/kernel/mm/transparent_hugepage/enabled` lets"
            " weights stream with fewer page look-ups."
        )


def _frequency(around: Surroundings, machine: Machine) -> Iterator[str]:
    if around.governor in ("powersave", "conservative"):
        yield (
            f"The frequency policy is {around.governor}: as root, `cpupower frequency-set -g performance`"
            " keeps the clock up."
        )


def _balance(around: Surroundings, machine: Machine) -> Iterator[str]:
    gain = machine.read_bandwidth(0) / machine.memory_bandwidth
    if gain > 1.5:
        yield (
            f"Weights that fit the cache are read {gain:.1f} times faster than from memory: a smaller number"
            " format speeds decoding up by more than its size."
        )


_Rule = Callable[[Surroundings, Machine], Iterator[str]]
_RULES: tuple[_Rule, ...] = (_level, _threads, _neighbours, _memory, _frequency, _balance)
