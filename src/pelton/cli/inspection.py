"""`pelton inspect`: what is in a model file and what running it takes. Nothing is run or packed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from ..weights.catalogue import DEFAULT_MODEL
from .console import progress_bar, say, say_facts, say_json, say_table
from .figures import mebibytes, parameters
from .home import machines_folder, user_store
from .options import IsaOption, Json, OfflineOption, ThreadsOption

if TYPE_CHECKING:
    from ..cost.machine import Machine
    from ..models.load import LoadedModel
    from ..quant.tensor import Weight


@dataclass(frozen=True)
class FormatShare:
    """How much of a model is held in one number format."""

    format: str
    tensors: int
    parameters: int
    bytes: int


def inspect(
    model: Annotated[str, typer.Argument(help="A model name, reference or path.")] = DEFAULT_MODEL,
    plan: Annotated[bool, typer.Option("--plan", help="Print the plan, one line a step.")] = False,
    threads: ThreadsOption = None,
    isa: IsaOption = None,
    offline: OfflineOption = False,
    json: Json = False,
) -> None:
    """Show a model's architecture, bytes per number format, plan, and KV bytes per token."""
    from ..cost.machine import remembered
    from ..models.load import load_model
    from ..plan import show
    from ..settings import EngineSettings

    with progress_bar(f"fetching {model}") as progress:
        resolved = user_store(offline=offline).resolve(model, progress)
    loaded = load_model(resolved.path or model)
    machine = remembered(machines_folder(), EngineSettings(threads=threads).num_threads, isa)
    if json:
        say_json(_document(model, loaded, machine, list(show(loaded.plan)) if plan else None))
    elif plan:
        for line in show(loaded.plan):
            say(line)
    else:
        _say_model(model, loaded, machine)


def shares_of(weights: Iterable[Weight]) -> list[FormatShare]:
    """One entry a format, the largest first; a weight that two names share counts once."""
    import math

    found: dict[str, tuple[int, int, int]] = {}
    for weight in {id(weight): weight for weight in weights}.values():
        count, elements, size = found.get(weight.format.name, (0, 0, 0))
        found[weight.format.name] = (count + 1, elements + math.prod(weight.shape), size + weight.num_bytes)
    shares = [FormatShare(name, *totals) for name, totals in found.items()]
    return sorted(shares, key=lambda share: -share.bytes)


@dataclass(frozen=True)
class DecodeNeed:
    """What one decoded token takes at depth `depth`; `tokens_per_second` at most, None if not measured."""

    depth: int
    bytes: float
    multiply_adds: float
    tokens_per_second: float | None


def decode_need(loaded: LoadedModel, machine: Machine | None, depth: int) -> DecodeNeed:
    """From the plan and the file's own sizes; the executor may keep a weight in a few bytes more."""
    from ..cost.roofline import bound_of, pass_load, step_costs

    sizes = {name: tensor.num_bytes for name, tensor in loaded.weights.items()}
    formats = {name: tensor.format for name, tensor in loaded.weights.items()}
    load = pass_load(rows=1, depth=depth, sequences=1, kv_bytes=2.0, weight_bytes=sizes)
    costs = step_costs(loaded.plan, load, formats)
    streamed, multiply_adds = sum(c.streamed for c in costs), sum(c.multiply_adds for c in costs)
    rate = None if machine is None else 1.0 / bound_of(costs, machine).seconds
    return DecodeNeed(depth, streamed, multiply_adds, rate)


def _kv_bytes(loaded: LoadedModel) -> dict[str, int]:
    from ..kv import KV_FORMATS, KVLayout
    from ..types import BLOCK_SIZE

    shape = loaded.plan.kv
    fitting = (name for name, kind in KV_FORMATS.items() if kind.fits(shape.head_dim))
    return {name: KVLayout(shape, name).block_bytes // BLOCK_SIZE for name in fitting}


def _say_model(model: str, loaded: LoadedModel, machine: Machine | None) -> None:
    shape, shares = loaded.shape, shares_of(loaded.weights.values())
    need = decode_need(loaded, machine, depth=0)
    kv = ", ".join(f"{mebibytes(size)} as {name}" for name, size in _kv_bytes(loaded).items())
    ceiling = "run `pelton doctor` once to measure this machine"
    if need.tokens_per_second is not None:
        ceiling = f"{need.tokens_per_second:.0f} tokens/s on this machine"
    say_facts(
        {
            "model": model,
            "architecture": shape.architecture,
            "parameters": parameters(shape.parameters),
            "layers": f"{shape.num_layers}, hidden {shape.hidden}",
            "attention": f"{shape.num_kv_heads} key-value heads of {shape.head_dim}",
            "vocabulary": f"{shape.vocab_size:,}",
            "context": f"{shape.context_length:,}",
            "weights": mebibytes(sum(share.bytes for share in shares)),
            "KV per token": kv,
            "a decode step": f"reads {mebibytes(need.bytes)}, {need.multiply_adds / 1e6:.1f} M multiply-adds",
            "decode ceiling": ceiling,
            "plan": f"{len(loaded.plan.steps)} steps (--plan lists them)",
        }
    )
    say("")
    rows = [(s.format, str(s.tensors), parameters(s.parameters), mebibytes(s.bytes)) for s in shares]
    say_table(("format", "tensors", "parameters", "size"), rows, right=("tensors", "parameters", "size"))


def _document(
    model: str, loaded: LoadedModel, machine: Machine | None, plan: list[str] | None
) -> dict[str, object]:
    from dataclasses import asdict

    document: dict[str, object] = {
        "model": model,
        "shape": asdict(loaded.shape),
        "formats": [asdict(share) for share in shares_of(loaded.weights.values())],
        "kv_bytes_per_token": _kv_bytes(loaded),
        "decode": asdict(decode_need(loaded, machine, depth=0)),
        "steps": len(loaded.plan.steps),
    }
    return document if plan is None else {**document, "plan": plan}
