"""From a model's name to an engine that runs it."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .decode.accept import CoupledVerifier
from .decode.sampler import Sampler
from .engine import Engine
from .errors import ConfigError, MemoryBudgetError, TemplateError
from .exec.protocol import Executor
from .exec.reference import ReferenceExecutor
from .kv import EVICTIONS, KV_FORMATS, CacheFolder, DiskTier, KVArena, KVLayout, blocks_for, kv_identity
from .models.load import LoadedModel, load_model
from .plan import Plan
from .plan.passes import narrow
from .quant.tensor import Weight
from .sched.rates import StepRates
from .sched.registry import SchedulerChoice
from .settings import EngineSettings
from .spec.budget import DraftBudget, FixedBudget, GoodputBudget
from .spec.draft import MOST_DRAFTED, Drafter
from .spec.ngram import NgramDrafter
from .text import ChatTemplate, Tokenizer, tokenizer_of
from .types import BLOCK_SIZE
from .weights.gguf import open_gguf
from .weights.store import ModelStore, Progress, ResolvedModel


@dataclass(frozen=True)
class LoadedEngine:
    """A model ready to run. `tokenizer` is None for synthetic models. `template` is None where the model
    has none, and an error where it has one that cannot be used."""

    resolved: ResolvedModel
    model: LoadedModel
    tokenizer: Tokenizer | None
    template: ChatTemplate | TemplateError | None
    engine: Engine

    def close(self) -> None:
        """Stop the executor's threads and free the model; the engine cannot be used afterwards."""
        self.engine.close()


def load_engine(
    reference: str,
    settings: EngineSettings,
    store: ModelStore,
    progress: Progress | None = None,
    drafter: Drafter | None = None,
) -> LoadedEngine:
    """Resolve, download if need be, map, pack, and set up KV memory.

    Raises StoreError, ModelFileError, TokenizerError, TemplateError, ConfigError, MemoryBudgetError.
    """
    if settings.tuning_folder is None:
        settings = replace(settings, tuning_folder=str(store.home / "tuning"))
    return load_resolved(store.resolve(reference, progress), settings, drafter)


def load_resolved(
    resolved: ResolvedModel, settings: EngineSettings, drafter: Drafter | None = None
) -> LoadedEngine:
    """Map, pack, and set up KV memory for a model that lies on this machine. Raises as load_engine."""
    where = resolved.path or resolved.reference
    model = load_model(where, resolved.kind, settings.context_length)
    settings = replace(settings, kv_dtype=chosen_kv_dtype(model, settings))
    context, arena = allocate_kv(model.plan, model.context_length, settings)
    if context != model.context_length:  # memory allows less; some RoPE scalings depend on it
        model = load_model(where, resolved.kind, context)
    with ThreadPoolExecutor(1) as beside:  # packing weights leaves Python free to read the vocabulary
        text = beside.submit(tokenizer_of, model.source, subject=str(resolved.path))
        executor = make_executor(settings, model.plan, model.weights)
        tokenizer, template = text.result()
    sampler = make_sampler(settings, executor)
    budget: DraftBudget = FixedBudget()
    if drafter is None and settings.drafts == "ngram":
        drafter, budget = NgramDrafter(length=MOST_DRAFTED), GoodputBudget(StepRates(fixed=1.0, row=0.1))
    engine = Engine(
        executor,
        arena,
        context,
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        scheduling=scheduling_of(settings, arena),
        drafter=drafter,
        draft_budget=budget,
        sampler=sampler,
        verifier=CoupledVerifier(sampler),
        prefix_cache=settings.prefix_cache,
        prefix_window=prefix_window(settings, arena, context),
        eviction=EVICTIONS[settings.prefix_eviction](),
        disk=disk_tier(settings, resolved, executor, arena),
    )
    return LoadedEngine(resolved, model, tokenizer, template, engine)


def scheduling_of(settings: EngineSettings, arena: KVArena) -> SchedulerChoice:
    """The scheduler that the settings name, with memory to swap to."""
    swap = settings.swap_memory
    if swap is None:
        swap = arena.num_blocks * arena.layout.block_bytes // 4
    return SchedulerChoice(settings.scheduler, settings.tenant_weights, swap)


def disk_tier(
    settings: EngineSettings, resolved: ResolvedModel, executor: Executor, arena: KVArena
) -> DiskTier | None:
    """The prefix cache's folder, if the settings name one. Raises ConfigError where it cannot be used."""
    if settings.kv_cache_dir is None:
        return None
    from . import __version__

    facts = [__version__, np.__version__, settings.executor, repr(executor.plan)]
    if resolved.path is None:
        facts.append(resolved.reference)
        files = []
    else:
        files = list(resolved.path.iterdir()) if resolved.path.is_dir() else [resolved.path]
    if settings.executor == "native":
        from .exec.native import NativeExecutor, native_module

        assert isinstance(executor, NativeExecutor)
        facts.append(executor.isa)
        files.append(native_module())
    identity = kv_identity(arena.layout, facts, filter(Path.is_file, files))
    return DiskTier(CacheFolder(Path(settings.kv_cache_dir)), arena, identity, settings.kv_disk)


def load_text(resolved: ResolvedModel) -> tuple[Tokenizer | None, ChatTemplate | TemplateError | None]:
    """Tokenizer and chat template alone, as in a LoadedEngine; nothing stays mapped from the file.

    Raises ModelFileError, UnsupportedModelError, TokenizerError.
    """
    if resolved.path is None:
        return None, None
    source = resolved.path if resolved.kind == "folder" else open_gguf(resolved.path).metadata
    return tokenizer_of(source, subject=str(resolved.path))


def make_executor(settings: EngineSettings, plan: Plan, weights: Mapping[str, Weight]) -> Executor:
    """The executor the settings name, of a plan without work for rows whose results nobody reads; the native
    module loads only when it is wanted."""
    plan = narrow(plan)
    if settings.executor == "reference":
        return ReferenceExecutor(plan, weights)
    from .exec.native import NativeExecutor

    folder = None if settings.tuning_folder is None else Path(settings.tuning_folder)
    return NativeExecutor(plan, weights, settings.num_threads, settings.isa, folder)


def make_sampler(settings: EngineSettings, executor: Executor) -> Sampler:
    """The sampler of an engine: its rows are chosen natively where the executor is native."""
    if settings.executor == "reference":
        return Sampler()
    from .exec.native import NativeExecutor

    return Sampler(executor if isinstance(executor, NativeExecutor) else None)


def prefix_window(settings: EngineSettings, arena: KVArena, context: int) -> int | None:
    """How many newer blocks an idle one sees, at first, before its memory is used again: a whole context, or
    a 64th of all. None, all that there are, where the user said how much memory to fill."""
    if settings.kv_memory is not None:
        return None
    return max(blocks_for(context), arena.num_blocks // 64)


_FAST_BYTES = ("avx_vnni", "avx512", "avx512_bf16")
"""Levels with dot products of bytes."""


def chosen_kv_dtype(model: LoadedModel, settings: EngineSettings) -> str:
    """What "auto" stands for: keys and values are no coarser than the activations, which meet weights as
    int8, as bfloat16, or, where most weights are float16 or float32, unrounded. Where the processor does not
    multiply that, or it does not suit the keys, they are the next finer. Raises ConfigError for a name there
    is not."""
    if settings.kv_dtype in KV_FORMATS:
        return settings.kv_dtype
    if settings.kv_dtype != "auto":
        known = ", ".join(("auto", *KV_FORMATS))
        raise ConfigError(f"must be one of {known}", field="kv_dtype", value=settings.kv_dtype)
    sizes = [(model.weights[name].format.name, model.weights[name].num_bytes) for name in model.plan.weights]
    total = sum(size for _, size in sizes)
    fine = sum(size for name, size in sizes if name in ("F16", "F32"))
    if settings.executor != "native" or 2 * fine > total:
        return "float16"
    from .exec.native import level_of

    level, dim = level_of(settings.isa), model.plan.kv.head_dim
    plain = sum(size for name, size in sizes if name in ("F16", "F32", "BF16"))
    # A bias can make one element of every key a hundred times the others. Turning spreads it over all, but
    # what it takes up of the range is then missing everywhere.
    even = not any(name.endswith("attn_k.bias") for name in model.plan.weights)
    if level in _FAST_BYTES and 2 * plain <= total and even and KV_FORMATS["int8"].fits(dim):
        return "int8"
    fast = level == "avx512_bf16" and KV_FORMATS["bfloat16"].fits(dim)
    return "bfloat16" if fast else "float16"


def allocate_kv(plan: Plan, trained: int, settings: EngineSettings) -> tuple[int, KVArena]:
    """The context length in force and an arena for it. A context that was asked for is never cut."""
    asked = settings.context_length
    if asked is not None and asked > trained:
        raise ConfigError(
            f"the model was trained for {trained} positions", field="context_length", value=asked
        )
    layout = KVLayout(plan.kv, settings.kv_dtype)
    wanted = settings.max_num_seqs * blocks_for(asked or trained) * layout.block_bytes
    num_blocks = settings.kv_budget(wanted) // layout.block_bytes
    context = asked or min(trained, num_blocks * BLOCK_SIZE)
    if blocks_for(context) > num_blocks:
        needed = blocks_for(context) * layout.block_bytes
        raise MemoryBudgetError(
            f"a context of {context} needs {needed} bytes of KV, the budget is"
            f" {num_blocks * layout.block_bytes}; lower context_length or raise kv_memory",
            field="kv_memory",
            value=settings.kv_memory,
        )
    return context, KVArena(layout, num_blocks)
