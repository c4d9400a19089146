"""What HTTP costs: the same prompts through `pelton serve` and through the engine of this process, in turns.

    python benchmarks/http_loss.py [--model smollm2-135m] [--rounds 5] [--out FOLDER]

48 ShareGPT prompts x 96 tokens, all at once, greedy. Each round runs both, so that both meet the same
machine; the client runs on the same processors as the server. Appends nothing: writes http_loss.csv.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from statistics import median
from time import perf_counter

from pelton import LLM, SamplingParams
from pelton.traffic.arrivals import Arrivals
from pelton.traffic.client import Target
from pelton.traffic.run import drive, served_model
from pelton.traffic.workload import Session, WorkloadShape, make_workload

COMMAND = (sys.executable, "-c", "from pelton.cli.main import main; main()", "serve")
TOKENS = 96
SEQUENCES = "48"


@contextmanager
def served(model: str) -> Iterator[str]:
    """The address of a `pelton serve` of its own; ended with SIGTERM."""
    arguments = (model, "--port", "0", "-np", SEQUENCES, "-c", "2048", "--no-prefix-cache")
    process = subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.search(r"http://\S+", line):
                yield found[0]
                break
        else:
            raise SystemExit("the server did not start")
    finally:
        process.terminate()
        process.wait(20)


def in_process(llm: LLM, sessions: list[Session]) -> float:
    """Generated tokens a second through LLM.chat."""
    chats = [[{"role": "user", "content": session.turns[0].text}] for session in sessions]
    start = perf_counter()
    outputs = llm.chat(chats, SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True))
    return sum(len(output.outputs[0].token_ids) for output in outputs) / (perf_counter() - start)


def through_http(target: Target, sessions: list[Session]) -> float:
    """Generated tokens a second through the server's stream."""
    exchanges, elapsed = asyncio.run(drive(target, sessions, Arrivals()))
    failure = next((exchange.error for exchange in exchanges if exchange.error), None)
    if failure:
        raise SystemExit(failure)
    return sum(exchange.completion_tokens for exchange in exchanges) / elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("docs/measurements"))
    options = parser.parse_args()
    sessions = make_workload("sharegpt", WorkloadShape(sessions=48, output_tokens=TOKENS))
    settings = {"max_num_seqs": int(SEQUENCES), "context_length": 2048, "prefix_cache": False}
    rows = []
    with served(options.model) as url, LLM(options.model, **settings) as llm:
        target = Target(url, asyncio.run(served_model(url, None)), extra={"ignore_eos": True})
        in_process(llm, sessions[:8]), through_http(target, sessions[:8])
        for number in range(options.rounds):
            pair = (in_process(llm, sessions), through_http(target, sessions))
            rows.append((date.today().isoformat(), number, *pair, 1 - pair[1] / pair[0]))
            print(f"round {number}: in process {pair[0]:.0f}, HTTP {pair[1]:.0f} tokens/s", flush=True)
    with (options.out / "http_loss.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("date", "round", "in_process_tokens_per_second", "http_tokens_per_second", "loss"))
        writer.writerows(rows)
    print(f"median loss: {median(row[-1] for row in rows):.1%} ({os.cpu_count()} processors)")


if __name__ == "__main__":
    main()
