"""`pelton bench report`: one HTML page, complete in itself, of what a model does on this machine."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from importlib.resources import files
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..console import say
from ..options import EngineFlags
from . import latency

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ...cost.batches import BatchSpeed

_BATCHES = (1, 2, 4, 8, 16, 32)
_BATCH_STEPS = 24


def report(
    *,
    engine: EngineFlags,
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path("pelton-report.html"),
    depth: Annotated[str, typer.Option("--n-depth", "-d", help="Positions computed before.")] = "0,512",
    repetitions: Annotated[int, typer.Option("--repetitions", "-r", min=1, max=100)] = 3,
) -> None:
    """Measure prompts, decoding and batches, and write a page with plots: about half a minute."""
    require_matplotlib()
    document, batches = _measure(engine, depth, repetitions)
    page = render(document, batches, date.today().isoformat())
    out.write_text(page, encoding="utf-8")
    say(f"{out}: {len(page.encode()) / 1024:.0f} KiB")


def require_matplotlib() -> None:
    """Before anything is measured: a report that cannot be drawn helps nobody."""
    from importlib.util import find_spec

    from ...errors import ConfigError

    if find_spec("matplotlib") is None:
        raise ConfigError(
            "needs matplotlib, which `pip install 'pelton[bench]'` brings", field="pelton bench report"
        )


def _measure(engine: EngineFlags, depth: str, repetitions: int) -> tuple[dict[str, object], list[BatchSpeed]]:
    from ...cost.batches import batch_speed
    from ...cost.machine import measure
    from ...cost.passes import PassTimer
    from .shares import profiles_of

    tests = latency.tests_of("512", "64", depth)
    start = perf_counter()
    with replace(engine, drafts="off").open() as llm:  # single passes are timed
        first = latency.first_token(llm, start), latency.python_share(llm), latency.peak_memory()
        machine = measure(llm.settings.num_threads, engine.isa)
        setup = latency.setup_of(engine, llm, machine, *first)
        chunk = engine.max_num_batched_tokens
        timer = PassTimer(llm.engine, chunk)
        results = list(latency.results_of(llm, machine, timer, tests, chunk, repetitions))
        profiles = profiles_of(llm, machine, tests, chunk)
        formats = {name: tensor.format for name, tensor in llm.loaded.model.weights.items()}
        batches = [
            batch_speed(llm.engine, formats, machine, count, 128, _BATCH_STEPS)
            for count in _BATCHES
            if count <= llm.engine.max_num_seqs
        ]
    return latency.document_of(setup, machine, results, profiles), batches


def render(document: Mapping[str, Any], batches: Sequence[BatchSpeed], day: str) -> str:
    """The page. Names and texts are escaped; plots are SVG inside it, so it needs no other file."""
    from jinja2 import Environment
    from markupsafe import Markup

    environment = Environment(autoescape=True)
    template = environment.from_string(files(__package__).joinpath("report.html").read_text("utf-8"))
    plots = {
        "speeds": _svg(_speeds(document["tests"])),
        "shares": _svg(_shares(document["profiles"])),
        "batches": _svg(_batches(batches)),
        "bandwidth": _svg(_bandwidth(document["machine"]["bandwidth"])),
    }
    marked = {name: Markup(svg) for name, svg in plots.items()}
    return template.render(day=day, plots=marked, batches=batches, **document)


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _speeds(tests: Sequence[Mapping[str, Any]]) -> Figure:
    figure, axes = _figure(7, 0.6 + 0.5 * len(tests))
    names = [test["test"] for test in tests]
    axes.barh(names, [100 * test["share"] for test in tests], color="#2b6cb0")
    axes.axvline(100, color="#c53030", linewidth=1)
    for row, test in enumerate(tests):
        axes.text(2, row, f"{test['avg_ts']:.0f} tokens/s", va="center", color="white", fontsize=9)
    axes.set_xlabel("% of the machine's ceiling")
    axes.invert_yaxis()
    return figure


def _shares(profiles: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    figure, axes = _figure(7, 0.9 + 0.5 * max(len(profiles), 1))
    kinds = list(dict.fromkeys(part["name"] for parts in profiles.values() for part in parts))
    left = dict.fromkeys(profiles, 0.0)
    for kind in kinds:
        widths = [
            100 * sum(part["share"] for part in parts if part["name"] == kind) for parts in profiles.values()
        ]
        axes.barh(list(profiles), widths, left=list(left.values()), label=kind)
        left = {name: start + width for (name, start), width in zip(left.items(), widths, strict=True)}
    axes.set_xlabel("% of the time")
    axes.invert_yaxis()
    if kinds:
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _batches(batches: Sequence[BatchSpeed]) -> Figure:
    figure, axes = _figure(7, 3)
    counts = [batch.sequences for batch in batches]
    axes.plot(counts, [batch.tokens_per_second for batch in batches], marker="o", label="measured")
    axes.plot(counts, [batch.ceiling for batch in batches], "--", color="#c53030", label="ceiling")
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.set_xlabel("sequences decoding together")
    axes.set_ylabel("tokens/s in all")
    axes.legend()
    return figure


def _bandwidth(pairs: Sequence[tuple[int, float]]) -> Figure:
    figure, axes = _figure(7, 2.5)
    axes.plot([size / 2**20 for size, _ in pairs], [rate / 1e9 for _, rate in pairs], marker="o")
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("working set, MiB")
    axes.set_ylabel("GB/s read")
    return figure
