"""pelton and its peers on the same machine, model and work, turn by turn: one CSV, one table, one plot.

    python benchmarks/peers/run.py --home FOLDER [--out docs/measurements] [--rounds 2]
        [--only llama.cpp OpenVINO] [--tests pp512 "tg128 @ d8"] [--env llama_cpp=FOLDER] [--small]

Environments and files of the peers are made under --home the first time and used again later; --env names an
environment that is elsewhere. A peer that cannot be installed, or cannot do a test, is a named hole in the
table. From the second round on each peer runs the model's own file and, in each test, its fastest one.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path

from engines import chosen_engines
from environments import Environments
from files import Files
from limits import Limits
from report import draw, markdown
from rounds import About, Rounds
from samples import write_csv
from work import Test, chosen_tests, make_workload, shrunk

from pelton import LLM
from pelton.cost.machine import measure
from pelton.errors import PeltonError
from pelton.weights.store import default_store

BUSY_LOAD = 0.7


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="where environments and files are kept")
    parser.add_argument("--out", type=Path, default=Path("docs/measurements"))
    parser.add_argument("--model", default="smollm2-135m", help="a model of the store, or a GGUF file")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", "-t", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=[], metavar="PEER", help="pelton is always run")
    parser.add_argument(
        "--tests", nargs="+", default=[], metavar="TEST", help="a test's name or its beginning"
    )
    parser.add_argument("--env", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--jobs", type=int, default=1, help="compilers that run at once")
    parser.add_argument("--prompts", type=int, default=48, help="ShareGPT prompts")
    parser.add_argument("--windows", type=int, default=4, help="windows of 500 tokens for perplexity")
    parser.add_argument(
        "--small", action="store_true", help="tiny tests: shows that all works, measures nothing"
    )
    return parser.parse_args()


def environments_of(options: argparse.Namespace) -> Environments:
    """Raises ValueError for an --env that names no environment."""
    pairs = [text.partition("=") for text in options.env]
    given = {name: Path(folder).resolve() for name, _, folder in pairs}
    return Environments(options.home.resolve(), given, options.jobs)


def limits_now(limits: Limits, tests: tuple[Test, ...], threads: int) -> dict[str, float]:
    """Tokens a second that the machine allows, measured now."""
    machine = measure(threads)
    return {test.name: limits.tokens_per_second(test, machine) for test in tests}


def machine_name(threads: int) -> str:
    from pelton import _native

    return f"{_native.cpu_features().brand}, level {_native.resolve_isa('')}, {threads} threads"


def heading(about: About, options: argparse.Namespace, load: float) -> list[str]:
    shown = [f"--rounds {options.rounds}", *(f"--only {' '.join(options.only)}" for _ in options.only[:1])]
    shown += [f"--tests {' '.join(options.tests)}" for _ in options.tests[:1]]
    return [
        f"# {about.model} by pelton and its peers",
        "",
        f"{about.date}, {about.machine}, load average {load:.1f} before.",
        "",
        f"    python benchmarks/peers/run.py --home FOLDER {' '.join(shown)}",
        "",
        "Engines took turns test by test; all samples are in peers.csv. Medians, speeds in tokens a second;",
        "(2.00x): pelton is twice as good; same: the model's own file. The physical limit is measured",
        "bandwidth over bytes read, or measured peak over multiply-adds, with the model's own file. Peak",
        "memory is that of all tests, perplexity that of the same token ids. -: says why there is no figure.",
        *(["", "**Tiny tests: these speeds mean nothing.**"] if options.small else []),
    ]


def main() -> None:
    options = parse()
    try:
        engines, tests = chosen_engines(options.only), chosen_tests(options.tests)
        environments = environments_of(options)
        resolved = default_store().resolve(options.model)
    except (ValueError, PeltonError) as error:
        raise SystemExit(str(error)) from None
    assert resolved.path is not None, "a synthetic model is no file that a peer could read"
    model, load = resolved.path.resolve(), os.getloadavg()[0]
    if load > BUSY_LOAD:
        print(f"load is {load:.1f}: other programs disturb these figures", file=sys.stderr)
    if options.small:
        tests = tuple(shrunk(test) for test in tests)
    about = About(date.today().isoformat(), machine_name(options.threads), options.threads, model.stem)
    options.out.mkdir(parents=True, exist_ok=True)
    files = Files(environments.home, model, environments)
    with LLM(str(model), threads=options.threads) as llm:
        workload = make_workload(
            llm.encode, llm.engine.executor.plan.vocab_size, options.prompts, options.windows
        )
        if options.small:
            workload = replace(workload, windows=tuple(window[:48] for window in workload.windows))
        limits = Limits(llm, workload)
        with Rounds(about, engines, tests, workload, environments, files, environments.home) as rounds:
            rounds.prepare()
            rounds.start()
            for number in range(options.rounds):
                rounds.run(number, options.rounds, limits_now(limits, tests, options.threads))
            rounds.finish()
    write_csv(rounds.samples, options.out / "peers.csv")
    page = markdown(rounds.samples, heading(about, options, load))
    (options.out / "peers.md").write_text(page, encoding="utf-8")
    draw(rounds.samples, options.out / "peers.png")
    print(page)


if __name__ == "__main__":
    main()
