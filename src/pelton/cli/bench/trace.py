"""`pelton bench trace`: a timeline of some steps, as a Chrome trace and as a bar in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..console import note, say, say_json
from ..figures import seconds, share
from ..options import EngineFlags, Json

if TYPE_CHECKING:
    from ...request import RequestState

_WIDTH = 50
_FULL, _PARTS = "█", " ▏▎▍▌▋▊▉"


def trace(
    *,
    engine: EngineFlags,
    steps: Annotated[int, typer.Option("--steps", min=1, max=2000, help="Decode steps to record.")] = 32,
    sequences: Annotated[int, typer.Option("--sequences", min=1, max=1024, help="Sequences together.")] = 1,
    depth: Annotated[int, typer.Option("--n-depth", "-d", min=1, help="Tokens of each prompt.")] = 64,
    prompt: Annotated[
        bool, typer.Option("--prompt", help="Record the prompts' own steps instead of decoding.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write a trace for chrome://tracing or Perfetto there.")
    ] = None,
    json: Json = False,
) -> None:
    """Show where each microsecond of a step goes: Python, copies, each operation, barrier waits."""
    from ...config import SamplingParams
    from ...cost.timeline import record
    from ...errors import ConfigError
    from ...exec.native import NativeExecutor
    from .throughput import random_prompts

    with engine.open() as llm:
        executor = llm.engine.executor
        if not isinstance(executor, NativeExecutor):
            raise ConfigError("keeps no times; trace the native one", field="executor", value=engine.executor)
        params = SamplingParams(temperature=0.0, max_tokens=steps + 2, ignore_eos=True)
        prompts = random_prompts(llm, sequences, depth, seed=0)
        llm.generate(prompts, SamplingParams(temperature=0.0, max_tokens=2, ignore_eos=True))
        if prompt and llm.engine.prefixes is not None:
            note("the prompts' full blocks come from the prefix cache; --no-prefix-cache computes them")
        states = [llm.requests.add(tokens, params) for tokens in prompts]
        while not prompt and not all(_is_decoding(state) for state in states):
            llm.requests.step()
        timeline = record(llm, executor, states, steps)
        for state in states:
            llm.requests.abort(state)
    if out is not None:
        out.write_text(timeline.chrome(), encoding="utf-8")
    shares = timeline.shares()
    if json:
        say_json({"steps": len(timeline.steps), "seconds": timeline.seconds, "shares": shares})
        return
    mean = timeline.seconds / len(timeline.steps)
    say(f"{len(timeline.steps)} steps of {seconds(mean)}, {timeline.threads} threads")
    width = max(map(len, shares))
    for name, part in shares.items():
        say(f"{name:<{width}}  {share(part):>6}  {seconds(part * mean):>8}  {bar(part)}".rstrip())
    if out is not None:
        say(f"{out}: {len(timeline.marks)} marks")


def _is_decoding(state: RequestState) -> bool:
    return bool(state.snapshot().outputs[0].token_ids)


def bar(part: float) -> str:
    """A bar of at most 50 characters, in eighths of one."""
    eighths = round(max(0.0, min(part, 1.0)) * _WIDTH * 8)
    return _FULL * (eighths // 8) + _PARTS[eighths % 8].strip()
