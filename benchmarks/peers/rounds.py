"""The rounds of a run: every test by every engine in turn, A B A B, with the time that is left."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from engines import SAME_FILE, WORKERS, Engine
from environments import CannotInstall, Environments
from files import Files
from samples import LOAD, MEMORY, PERPLEXITY, SPEED, UNITS, Sample, middle
from work import SAMPLE_SECONDS, Test, Workload
from worker_process import Hole, WorkerProcess

MEBI = 1 << 20


@dataclass(frozen=True)
class About:
    """What all samples of a run say of themselves."""

    date: str
    machine: str
    threads: int
    model: str


@dataclass
class Rounds:
    """Runs tests and collects samples. Entering starts every worker, leaving ends them."""

    about: About
    engines: Sequence[Engine]
    tests: Sequence[Test]
    workload: Workload
    environments: Environments
    files: Files
    home: Path
    samples: list[Sample] = field(default_factory=list)
    _workers: dict[Engine, WorkerProcess] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)
    _pace: dict[str, float] = field(default_factory=dict)
    """Seconds each engine takes for what is expected to take one."""

    def __enter__(self) -> Rounds:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def prepare(self) -> None:
        """Install, make and compile what is missing, so that nothing of it happens between measurements."""
        for engine in self.engines:
            try:
                self._command(engine)
                if engine.cache_variable and not self._cache(engine).exists():
                    _say(f"{engine.name} starts for the first time, which can take minutes")
                    with self._worker(engine) as worker:
                        worker.load()
            except (CannotInstall, Hole) as error:
                self._hole(engine, 0, str(error))

    def start(self) -> None:
        """Load every engine, one after another; what fails becomes holes."""
        for engine in self.engines:
            if any(s.engine == engine.peer and s.file == engine.file for s in self.samples):
                continue
            try:
                worker = self._stack.enter_context(self._worker(engine))
                worker.load()
            except (CannotInstall, Hole, OSError) as error:
                self._hole(engine, 0, str(error))
                continue
            self._workers[engine] = worker
            self._add(engine, 0, LOAD, worker.load_seconds)
            _say(f"loaded {engine.name} in {worker.load_seconds:.1f} s")

    def run(self, number: int, rounds: int, limits: dict[str, float]) -> None:
        """One round: each test by each engine in turn. `limits`: tokens a second the machine allows now."""
        began = monotonic()
        jobs = list(self._jobs(number))
        for place, (test, engine) in enumerate(jobs):
            self._measure(test, engine, number, limits[test.name])
            left = sum(self._expected(*job) for job in jobs[place + 1 :])
            left += sum(self._expected(*job) for job in self._jobs(1)) * (rounds - number - 1)
            value = self.samples[-1].value
            shown = f"{value:.1f} {SPEED}" if value is not None else f"-: {self.samples[-1].reason}"
            clock = f"{monotonic() - began:.0f} s of round {number + 1}/{rounds}, about {left:.0f} s left"
            _say(f"{test.name:>16}  {engine.name:<20} {shown:>16}   {clock}")

    def finish(self) -> None:
        """Memory as it was after the tests, then quality, which needs more of it."""
        for engine, worker in self._workers.items():
            self._add(engine, 0, MEMORY, worker.peak_memory() / MEBI)
        for engine, worker in self._workers.items():
            try:
                reply = worker.ask({"verb": "score", "windows": self.workload.windows})
                self._add(engine, 0, PERPLEXITY, math.exp(reply["nll"] / reply["tokens"]))
            except Hole as hole:
                self._add(engine, 0, PERPLEXITY, None, str(hole))
            _say(f"scored {engine.name}")

    def _worker(self, engine: Engine) -> WorkerProcess:
        variables = {"OMP_NUM_THREADS": str(self.about.threads), **dict(engine.variables)}
        if engine.preloads:
            variables["LD_PRELOAD"] = self.environments.preloads(engine.environment, engine.preloads)
        if engine.cache_variable:
            variables[engine.cache_variable] = str(self._cache(engine))
        log = self.home / "logs" / f"{engine.peer}-{engine.file}.log"
        log.parent.mkdir(exist_ok=True)
        return WorkerProcess(self._command(engine), variables, log)

    def _cache(self, engine: Engine) -> Path:
        return self.home / "caches" / engine.environment / self.about.model

    def _command(self, engine: Engine) -> list[str]:
        python, file = self.environments.python(engine.environment), self.files.path(engine.file)
        return [str(python), str(WORKERS / engine.worker), str(file), str(self.about.threads)]

    def _jobs(self, number: int) -> Iterator[tuple[Test, Engine]]:
        """All of them first; then of each peer only the model's own file and the test's fastest one."""
        for test in self.tests:
            for engine in self._workers:
                if number == 0 or engine.file == SAME_FILE or engine == self._fastest(test, engine.peer):
                    yield test, engine

    def _fastest(self, test: Test, peer: str) -> Engine | None:
        own = [engine for engine in self._workers if engine.peer == peer]
        speeds = {engine: middle(self.samples, (peer, engine.file), test.name) for engine in own}
        measured = {engine: speed for engine, speed in speeds.items() if speed is not None}
        return max(measured, key=lambda engine: measured[engine], default=None)

    def _measure(self, test: Test, engine: Engine, number: int, limit: float) -> None:
        worker, began = self._workers[engine], monotonic()
        try:
            for sample in range(-test.warmups, test.most_samples):
                prompts = self.workload.prompts(test, 1000 * number + sample + test.warmups)
                ask = {"verb": "generate", "prompts": prompts, "new_tokens": test.new_tokens}
                reply = worker.ask(ask)
                if sample >= 0:
                    speed = test.speed(reply, sum(len(prompt) for prompt in prompts))
                    self._add(engine, number, test.name, speed, limit=limit)
                    if monotonic() - began > SAMPLE_SECONDS:
                        break
        except Hole as hole:
            self._add(engine, number, test.name, None, str(hole))
        self._pace[engine.name] = (monotonic() - began) / self._usual(test)

    def _expected(self, test: Test, engine: Engine) -> float:
        paces = list(self._pace.values())
        pace = self._pace.get(engine.name) or (sum(paces) / len(paces) if paces else 1.0)
        return pace * self._usual(test)

    def _usual(self, test: Test) -> float:
        """Seconds of a test at speeds between the engines': only their proportions between tests matter."""
        lengths = test.lengths or tuple(len(prompt) for prompt in self.workload.sharegpt)
        decoding = test.new_tokens * (1 / 80 + len(lengths) / 600)
        once = sum(lengths) / 900 + (0.0 if test.new_tokens == 1 else decoding)
        return once * (test.warmups + max(1, min(test.most_samples, SAMPLE_SECONDS / once)))

    def _hole(self, engine: Engine, number: int, reason: str) -> None:
        _say(f"{engine.name}: {reason}")
        for test in [LOAD, *(test.name for test in self.tests), MEMORY, PERPLEXITY]:
            self._add(engine, number, test, None, why=reason)

    def _add(
        self, engine: Engine, number: int, test: str, value: float | None, why: str = "", limit: float = 0.0
    ) -> None:
        about = self.about
        version = self._workers[engine].version if engine in self._workers else ""
        self.samples.append(
            Sample(
                about.date, about.machine, about.threads, about.model, engine.peer, engine.file, version,
                number, test, UNITS.get(test, SPEED), value, limit, why,
            )
        )  # fmt: skip


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
