"""`pelton bench latency`: prompt and decode speed of one sequence, in llama-bench's terms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from ..console import note, say, say_json, say_markdown_table
from ..figures import mebibytes, parameters, seconds, share
from ..options import EngineFlags, Json
from .shares import profiles_of, say_profile

if TYPE_CHECKING:
    from ...cost.machine import Machine
    from ...cost.passes import PassResult, PassTest, PassTimer
    from ...cost.profile import Profile
    from ...llm import LLM

_COLUMNS = ("model", "size", "params", "backend", "threads", "test", "t/s", "ceiling", "share")
_RIGHT = ("size", "params", "threads", "test", "t/s", "ceiling", "share")
_WORD = "Hello"
_SHARE_TOKENS = 64


@dataclass(frozen=True)
class Setup:
    """What the run is about, for every row. python_share: of the time between decode steps' ends."""

    model: str
    format: str
    backend: str
    threads: int
    model_bytes: int
    model_parameters: int
    load_to_first_token_seconds: float
    python_share: float
    peak_memory_bytes: int
    kv_bytes_per_token: int


def latency(
    *,
    engine: EngineFlags,
    prompt: Annotated[str, typer.Option("--n-prompt", "-p", help="Prompt lengths, such as 128,512.")] = "512",
    generate: Annotated[str, typer.Option("--n-gen", "-n", help="Numbers of tokens to decode.")] = "128",
    depth: Annotated[str, typer.Option("--n-depth", "-d", help="Positions computed before.")] = "0",
    repetitions: Annotated[int, typer.Option("--repetitions", "-r", min=1, max=1000)] = 5,
    json: Json = False,
) -> None:
    """Time prompts (pp) and decoding (tg) as llama-bench does: no tokenizing, no sampling."""
    from ...cost.machine import measure, remember
    from ...cost.passes import PassTimer
    from ..home import machines_folder

    tests = tests_of(prompt, generate, depth)
    start = perf_counter()
    with replace(engine, drafts="off").open() as llm:  # single passes are timed
        to_first, python, peak = first_token(llm, start), python_share(llm), peak_memory()
        machine = measure(llm.settings.num_threads, engine.isa)
        setup = setup_of(engine, llm, machine, to_first, python, peak)
        remember(machines_folder(), machine)
        timer = PassTimer(llm.engine, engine.max_num_batched_tokens)
        chunk = engine.max_num_batched_tokens
        if not json:
            _say_ceilings(machine, tests, ceilings_of(llm, machine, tests, chunk))
        results = list(results_of(llm, machine, timer, tests, chunk, repetitions))
        profiles = profiles_of(llm, machine, tests, chunk)
    if json:
        say_json(document_of(setup, machine, results, profiles))
        return
    _say_results(setup, results)
    for profile in profiles:
        say_profile(profile)


def tests_of(prompt: str, generate: str, depth: str) -> list[PassTest]:
    """Every prompt length and every number of tokens at every depth; 0 leaves a kind out."""
    from ...cost.passes import PassTest, parse_counts
    from ...errors import ConfigError

    prompts, generated = parse_counts(prompt, "--n-prompt"), parse_counts(generate, "--n-gen")
    kinds = [("pp", count) for count in prompts if count] + [("tg", count) for count in generated if count]
    if not kinds:
        raise ConfigError("leaves nothing to measure", field="--n-prompt and --n-gen", value="0")
    return [PassTest(kind, count, at) for at in parse_counts(depth, "--n-depth") for kind, count in kinds]


def first_token(llm: LLM, start: float) -> float:
    from ...config import SamplingParams

    one = SamplingParams(max_tokens=1, temperature=0.0)
    llm.generate(_WORD if llm.tokenizer is not None else [0], one)
    return perf_counter() - start


def python_share(llm: LLM) -> float:
    """Share of a decode step's wall time outside the executor: scheduling, sampling, text, all of Python."""
    from ...config import SamplingParams

    params = SamplingParams(max_tokens=_SHARE_TOKENS + 1, temperature=0.0, ignore_eos=True)
    state = llm.requests.add(_WORD if llm.tokenizer is not None else [0], params)
    llm.requests.step()
    before, start = llm.engine.stats.executor_seconds, perf_counter()
    while not state.finished:
        llm.requests.step()
    return 1.0 - (llm.engine.stats.executor_seconds - before) / (perf_counter() - start)


def peak_memory() -> int:
    """Most bytes this process ever had in memory, the mapped part of the model's file included."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def setup_of(
    engine: EngineFlags, llm: LLM, machine: Machine, to_first: float, python: float, peak: int
) -> Setup:
    from ...types import BLOCK_SIZE
    from ..inspection import shares_of

    loaded = llm.loaded.model
    shares = shares_of(loaded.weights.values())
    return Setup(
        model=engine.model,
        format=shares[0].format,
        backend=f"native {machine.isa}" if engine.executor == "native" else engine.executor,
        threads=machine.threads,
        model_bytes=sum(share.bytes for share in shares),
        model_parameters=loaded.shape.parameters,
        load_to_first_token_seconds=to_first,
        python_share=python,
        peak_memory_bytes=peak,
        kv_bytes_per_token=llm.engine.kv.layout.block_bytes // BLOCK_SIZE,
    )


def ceilings_of(llm: LLM, machine: Machine, tests: Sequence[PassTest], chunk: int) -> list[tuple[float, str]]:
    from ...cost.passes import ceiling

    formats = {name: tensor.format for name, tensor in llm.loaded.model.weights.items()}
    return [ceiling(llm.engine, formats, machine, test, chunk) for test in tests]


def results_of(
    llm: LLM, machine: Machine, timer: PassTimer, tests: Sequence[PassTest], chunk: int, repetitions: int
) -> Iterator[PassResult]:
    """Where memory is the limit its speed is measured again before each repetition: on a virtual machine it
    moves by half within minutes, and a share of what it was earlier says little."""
    from statistics import median

    from ...cost.machine import reads_now
    from ...cost.passes import PassResult

    for test in tests:
        ((most, limit),) = ceilings_of(llm, machine, [test], chunk)
        timer.seconds(test)  # the first run of a shape is slower: memory is touched for the first time
        samples, rates = [], []
        for _ in range(repetitions):
            if limit == "memory":
                rates.append(reads_now(machine))
            samples.append(test.tokens / timer.seconds(test))
        if rates:
            ((most, limit),) = ceilings_of(llm, machine.reading_at(median(rates)), [test], chunk)
        yield PassResult(test, tuple(samples), most, limit)
    timer.close()


def _say_ceilings(machine: Machine, tests: Sequence[PassTest], ceilings: Sequence[tuple[float, str]]) -> None:
    peaks = (("int8", machine.int8), ("bf16", machine.bf16), ("f32", machine.f32))
    shown = ", ".join(f"{name} {value / 1e9:.0f} G/s" for name, value in peaks if value)
    say(f"machine: reads {machine.memory_bandwidth / 1e9:.1f} GB/s from memory, multiply-adds: {shown}")
    for test, (most, limit) in zip(tests, ceilings, strict=True):
        say(f"ceiling of {test}: {most:.1f} tokens/s, set by {limit}")
    say("")


def _say_results(setup: Setup, results: Sequence[PassResult]) -> None:
    same = (
        f"{setup.model} {setup.format}",
        mebibytes(setup.model_bytes),
        parameters(setup.model_parameters),
        setup.backend,
        str(setup.threads),
    )
    rows = [
        (*same, str(r.test), f"{r.mean:.2f} ± {r.deviation:.2f}", f"{r.ceiling:.0f}", share(r.share))
        for r in results
    ]
    say_markdown_table(_COLUMNS, rows, right=_RIGHT)
    say("")
    say(f"load to first token: {seconds(setup.load_to_first_token_seconds)}")
    say(f"Python's share of a decode step: {share(setup.python_share)}")
    say(f"peak memory: {mebibytes(setup.peak_memory_bytes)} (model {mebibytes(setup.model_bytes)})")
    if any(result.share > 1.0 for result in results):
        note("a share above 100 %: the machine was busier while its limits were measured; run again")


def document_of(
    setup: Setup, machine: Machine, results: Sequence[PassResult], profiles: Sequence[Profile]
) -> dict[str, object]:
    """All that was measured, as one JSON document."""
    from ... import __version__

    rows = [
        {
            "test": str(r.test),
            "n_prompt": r.test.tokens if r.test.kind == "pp" else 0,
            "n_gen": r.test.tokens if r.test.kind == "tg" else 0,
            "n_depth": r.test.depth,
            "avg_ts": r.mean,
            "stddev_ts": r.deviation,
            "samples_ts": list(r.samples),
            "ceiling_ts": r.ceiling,
            "share": r.share,
            "limit": r.limit,
        }
        for r in results
    ]
    shares = {str(p.test): [asdict(part) for part in p.shares] for p in profiles}
    return {
        "pelton": __version__,
        "setup": asdict(setup),
        "machine": asdict(machine),
        "tests": rows,
        "profiles": shares,
    }
