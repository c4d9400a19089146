"""The peer's side of latency.py: llama.cpp through llama-cpp-python, the same tests, one JSON document.

    PEER/bin/python benchmarks/llama_cpp_peer.py MODEL.gguf '["pp512", "tg128"]' -r 3 --threads 2

Runs in the peer's interpreter, which needs llama-cpp-python and nothing of pelton.
"""

from __future__ import annotations

import argparse
import json
import sys
from time import perf_counter
from typing import Any

import llama_cpp
import numpy as np

CHUNK = 512


def seconds(llm: Any, kind: str, tokens: list[int], context: list[int]) -> float:
    """One test: a prompt at once or token by token, after an untimed context."""
    llm.reset()
    if context:
        llm.eval(context)
    start = perf_counter()
    if kind == "pp":
        llm.eval(tokens)
    else:
        for token in tokens:
            llm.eval([token])
    return perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("tests", type=json.loads, help='such as \'["pp512", "tg128"]\'')
    parser.add_argument("--depth", type=int, default=0)
    parser.add_argument("--repetitions", "-r", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    most = max(int(test[2:]) for test in options.tests) + options.depth
    llm = llama_cpp.Llama(
        options.model,
        n_ctx=most + 8,
        n_batch=CHUNK,
        n_ubatch=CHUNK,
        n_threads=options.threads,
        n_threads_batch=options.threads,
        verbose=False,
    )
    random = np.random.default_rng(0)
    context = random.integers(0, llm.n_vocab(), options.depth).tolist()
    rows = []
    for test in options.tests:
        tokens = random.integers(0, llm.n_vocab(), int(test[2:])).tolist()
        seconds(llm, test[:2], tokens, context)
        times = [seconds(llm, test[:2], tokens, context) for _ in range(options.repetitions)]
        rows.append({"test": test, "samples_ts": [len(tokens) / time for time in times]})
    json.dump({"version": llama_cpp.__version__, "tests": rows}, sys.stdout)


if __name__ == "__main__":
    main()
