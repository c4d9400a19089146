"""The peers harness: its protocol with a real process, its reading of a cut file, its holes."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PEERS = Path(__file__).parents[2] / "benchmarks" / "peers"

ENGINE = """
import sys
sys.path.insert(0, sys.argv[3])
from protocol import CannotDo, Stopwatch, serve

class Echo:
    version = "7"
    def __init__(self, model, threads):
        print("engines print to stdout")
        if model == "broken":
            raise ValueError("no such model")
    def generate(self, prompts, new_tokens):
        watch = Stopwatch(len(prompts))
        if new_tokens == 13:
            raise CannotDo("unlucky | number")
        if new_tokens == 99:
            sys.exit("error: out of ideas")
        for place in list(range(len(prompts))) * new_tokens:
            watch.token(place)
        return watch.stop(len(prompts) * new_tokens)
    def score(self, windows):
        return 2.0

serve(Echo)
"""


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports a module of the harness, which is no package; forgotten afterwards."""
    monkeypatch.syspath_prepend(str(PEERS))
    monkeypatch.syspath_prepend(str(PEERS / "workers"))
    before = set(sys.modules)

    def module(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(PEERS)):
            del sys.modules[name]


def worker(load: Any, tmp_path: Path, model: str = "model") -> Any:
    script = tmp_path / "engine.py"
    script.write_text(ENGINE)
    command = [sys.executable, str(script), model, "2", str(PEERS / "workers")]
    return load("worker_process").WorkerProcess(command, {}, tmp_path / "log")


def test_a_worker_answers_and_survives_what_it_cannot_do(load: Any, tmp_path: Path) -> None:
    hole = load("worker_process").Hole
    with worker(load, tmp_path) as process:
        process.load()
        assert process.version == "7"
        reply = process.ask({"verb": "generate", "prompts": [[1], [2, 3]], "new_tokens": 4})
        assert (reply["tokens"], reply["tokens_at_first"]) == (8, 2)
        with pytest.raises(hole, match="unlucky / number"):
            process.ask({"verb": "generate", "prompts": [[1]], "new_tokens": 13})
        assert process.ask({"verb": "score", "windows": [[1, 2, 3]]}) == {"nll": 2.0, "tokens": 2.0}
        assert process.peak_memory() > 1 << 20


def test_an_idle_worker_is_stopped(load: Any, tmp_path: Path) -> None:
    with worker(load, tmp_path) as process:
        process.load()
        told = os.waitid(os.P_PID, process._process.pid, os.WSTOPPED | os.WNOWAIT)
        assert told is not None
        assert told.si_status == signal.SIGSTOP


def test_a_worker_that_dies_says_why(load: Any, tmp_path: Path) -> None:
    hole = load("worker_process").Hole
    with worker(load, tmp_path) as process:
        process.load()
        with pytest.raises(hole, match="code 1: error: out of ideas"):
            process.ask({"verb": "generate", "prompts": [[1]], "new_tokens": 99})
    with worker(load, tmp_path, "broken") as process, pytest.raises(hole, match="ValueError: no such model"):
        process.load()


def test_speeds_count_the_right_tokens(load: Any) -> None:
    work = load("work")
    reply = {"seconds": 3.0, "first": 1.0, "tokens_at_first": 10.0, "tokens": 30.0}
    speeds = {kind: work.Test("x", kind, (8,), 3).speed(reply, 50) for kind in work.KINDS}
    assert speeds == {"prompt": 50.0, "decode": 10.0, "total": 10.0}


def test_prompts_differ_between_samples_and_not_between_engines(load: Any) -> None:
    work = load("work")
    load_of = work.Workload(1000, ((5, 6, 7), (8, 9)), ())
    for test in work.TESTS:
        first, again, other = (load_of.prompts(test, sample) for sample in (0, 0, 1))
        assert first == again
        assert [prompt[0] for prompt in first] != [prompt[0] for prompt in other]
    assert [prompt[1:] for prompt in load_of.prompts(work.TESTS[-1], 3)] == [[6, 7], [9]]


def test_a_peer_that_cannot_be_had_is_a_hole_in_the_table(load: Any, tmp_path: Path) -> None:
    environments = load("environments")
    with pytest.raises(environments.CannotInstall, match="ERROR: no wheel / here"):
        environments.run(["sh", "-c", "echo 'ERROR: no wheel | here' >&2; exit 1"])
    samples = load("samples")
    same = ("today", "a machine", 2, "m")
    table = [
        samples.Sample(*same, "pelton", "same", "1", 0, "pp512", "tokens/s", 300.0, 900.0),
        samples.Sample(*same, "quick", "best", "2", 0, "pp512", "tokens/s", 120.0, 900.0),
        samples.Sample(*same, "absent", "best", "", 0, "pp512", "tokens/s", None, 0.0, "no wheel"),
    ]
    page = load("report").markdown(table, ["# heading"])
    assert "| quick 2 | best | 120 (2.50x) |" in page
    assert "| absent | best | -: no wheel |" in page
    assert "| physical limit |  | 900 |" in page
    samples.write_csv(table, tmp_path / "peers.csv")
    assert (tmp_path / "peers.csv").read_text().splitlines()[3].endswith("tokens/s,,0.0,no wheel")


def test_unknown_names_are_refused(load: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no peer is named nobody"):
        load("engines").chosen_engines(["nobody"])
    with pytest.raises(ValueError, match="no test is named tg999"):
        load("work").chosen_tests(["tg999"])
    with pytest.raises(ValueError, match="no environment is named nothing"):
        load("environments").Environments(tmp_path, {"nothing": tmp_path})
    chosen = load("engines").chosen_engines(["vllm"])
    assert [engine.peer for engine in chosen] == ["pelton", "pelton without drafts", "vLLM"]
