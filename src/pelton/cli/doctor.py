"""`pelton doctor`: what this machine is, what it can do at most, and what would make it faster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .console import note, say, say_facts, say_json
from .figures import mebibytes, rate, seconds
from .home import machines_folder
from .options import IsaOption, Json, ThreadsOption

if TYPE_CHECKING:
    from ..cost.advice import Surroundings
    from ..cost.machine import Machine


def doctor(threads: ThreadsOption = None, isa: IsaOption = None, json: Json = False) -> None:
    """Show the processor, its measured limits, memory, and what would make pelton faster here."""
    from ..cost.advice import advice, observe
    from ..cost.machine import measure, remember
    from ..settings import EngineSettings

    count = EngineSettings(threads=threads, isa=isa).num_threads
    around = observe(count, isa)
    if not json:
        note("measuring, a few seconds ...")
    machine = measure(count, isa)
    remember(machines_folder(), machine)
    hints = advice(around, machine)
    if json:
        say_json(_document(around, machine, hints))
        return
    say_facts(_facts(around, machine))
    say("")
    for hint in hints or ("Nothing found that would make this machine faster.",):
        say(f"* {hint}")


def _facts(around: Surroundings, machine: Machine) -> dict[str, str]:
    cached_size, cached = machine.bandwidth[0]
    caches = (("L1", around.l1_bytes), ("L2", around.l2_bytes), ("L3", around.l3_bytes))
    return {
        "processor": around.processor,
        "features": " ".join(around.flags) or "none that pelton knows",
        "level": f"{around.isa} (of {', '.join(around.levels)})",
        "threads": f"{around.threads} of {around.processors} processors",
        "caches": ", ".join(f"{name} {mebibytes(size)}" for name, size in caches if size) or "unknown",
        "memory": f"{mebibytes(around.free_bytes)} free of {mebibytes(around.memory_bytes)}",
        "read bandwidth": f"{machine.memory_bandwidth / 1e9:.1f} GB/s from memory,"
        f" {cached / 1e9:.1f} GB/s for {mebibytes(cached_size)}",
        "multiply-adds": ", ".join(
            f"{name} {rate(value)}" if value else f"{name} not at this level"
            for name, value in (("int8", machine.int8), ("bf16", machine.bf16), ("f32", machine.f32))
        ),
        "thread barrier": seconds(machine.barrier),
    }


def _document(around: Surroundings, machine: Machine, hints: tuple[str, ...]) -> dict[str, object]:
    from dataclasses import asdict

    from .. import __version__

    facts = {"surroundings": asdict(around), "machine": asdict(machine)}
    return {
        "pelton": __version__,
        **facts,
        "memory_bandwidth": machine.memory_bandwidth,
        "advice": list(hints),
    }
