"""How far the native executor is from the reference, and llama.cpp from it, on the same file and text.

    python benchmarks/quality.py MODEL.gguf [--positions 2000] [--peer-python PATH] [--out docs/measurements]

Text: the language reference topics that ship with Python (pydoc_data), read from the start. Prints one
line of JSON per side: mean KL divergence of next-token distributions from the reference's in nats, top-1
agreement, perplexity. The peer is llama-cpp-python in another interpreter, given the same token ids.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import tempfile
from datetime import date
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
from numpy.typing import NDArray

from pelton._native import cpu_features
from pelton.batch import make_batch
from pelton.exec.native import NativeExecutor
from pelton.exec.protocol import Executor
from pelton.exec.reference import ReferenceExecutor
from pelton.kv import KVArena, KVLayout
from pelton.models.load import LoadedModel, load_model
from pelton.text import tokenizer_of
from pelton.types import I32, Span

WINDOW = 500
KV_SIDES = ("int8", "bfloat16", "float16")
F64 = NDArray[np.float64]

PEER = """
import sys, numpy as np
from llama_cpp import Llama
path, ids, out = sys.argv[1:4]
tokens = np.load(ids)
llm = Llama(path, n_ctx=tokens.shape[1], n_batch=512, logits_all=True, n_threads=2, verbose=False)
rows = []
for window in tokens:
    llm.reset()
    llm.eval(window.tolist())
    rows.append(np.array(llm.scores[: len(window)], dtype=np.float32))
np.save(out, np.stack(rows))
"""


def windows_of(model: LoadedModel, positions: int) -> I32:
    """Token ids of the text, [windows, WINDOW]."""
    tokenizer, _ = tokenizer_of(model.source, subject="model")
    assert tokenizer is not None
    text = "\n\n".join(topics[name] for name in sorted(topics))[: positions * 12]
    count = -(-positions // WINDOW)
    return np.array(tokenizer.encode(text)[: count * WINDOW], dtype=np.int32).reshape(count, WINDOW)


def log_probs(executor: Executor, window: I32, dtype: str) -> F64:
    """Natural log of next-token probabilities at each position, [WINDOW, V]."""
    blocks = -(-len(window) // 32)
    arena = KVArena(KVLayout(executor.plan.kv, dtype), blocks)
    table = np.arange(blocks, dtype=np.int32)
    span = Span(0, 0, window, table, np.arange(len(window), dtype=np.int32))
    forward = executor.begin(make_batch([span]), arena)
    forward.advance()
    return log_softmax(forward.logits())


def log_softmax(logits: NDArray[np.float32]) -> F64:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


class Tally:
    """Running sums over windows of one side against the reference."""

    def __init__(self) -> None:
        self.kl, self.agree, self.nll, self.reference_nll, self.rows, self.scored = 0.0, 0, 0.0, 0.0, 0, 0

    def add(self, reference: F64, side: F64, window: I32) -> None:
        self.kl += float((np.exp(reference) * (reference - side)).sum())
        self.agree += int((reference.argmax(axis=1) == side.argmax(axis=1)).sum())
        index = np.arange(len(window) - 1)
        self.nll -= float(side[index, window[1:]].sum())
        self.reference_nll -= float(reference[index, window[1:]].sum())
        self.rows += len(window)
        self.scored += len(index)

    def row(self, name: str) -> dict[str, object]:
        return {
            "side": name,
            "positions": self.rows,
            "mean_kl": self.kl / self.rows,
            "top1_agreement": self.agree / self.rows,
            "perplexity": float(np.exp(self.nll / self.scored)),
            "reference_perplexity": float(np.exp(self.reference_nll / self.scored)),
        }


def peer_logits(python: str, path: str, windows: I32, folder: Path) -> NDArray[np.float32]:
    """Logits of llama.cpp for each window, [windows, WINDOW, V]."""
    np.save(folder / "ids.npy", windows)
    command = [python, "-c", PEER, path, str(folder / "ids.npy"), str(folder / "out.npy")]
    subprocess.run(command, check=True)
    loaded: NDArray[np.float32] = np.load(folder / "out.npy", mmap_mode="r")
    return loaded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model")
    parser.add_argument("--positions", type=int, default=2000)
    parser.add_argument("--peer-python")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    model = load_model(options.model, context_length=2048)
    windows = windows_of(model, options.positions)
    reference = ReferenceExecutor(model.plan, model.weights)
    native = NativeExecutor(model.plan, model.weights, threads=2)
    sides = {f"pelton native, {dtype} KV": Tally() for dtype in KV_SIDES}
    with tempfile.TemporaryDirectory() as folder:
        peer = None
        if options.peer_python:
            sides["llama.cpp, f16 KV"] = Tally()
            peer = peer_logits(options.peer_python, options.model, windows, Path(folder))
        for index, window in enumerate(windows):
            truth = log_probs(reference, window, "float32")
            for dtype in KV_SIDES:
                found = log_probs(native, window, dtype)
                sides[f"pelton native, {dtype} KV"].add(truth, found, window)
            if peer is not None:
                sides["llama.cpp, f16 KV"].add(truth, log_softmax(np.array(peer[index])), window)
    report = {
        "date": date.today().isoformat(),
        "machine": f"{cpu_features().brand}, {platform.machine()}",
        "command": f"python benchmarks/quality.py MODEL --positions {options.positions}",
        "sides": [tally.row(name) for name, tally in sides.items()],
    }
    print(json.dumps(report, indent=1))
    if options.out:
        (options.out / "quality.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
