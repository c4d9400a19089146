"""llama.cpp as a worker, through llama-cpp-python's view of its C interface.

No Python between the model and its greedy sampler but the loop over steps. As in llama-server, a step takes
the next token of every running sequence and fills up with waiting prompts. A context is made for each
run, with a stream of its own for each sequence, and is not timed; other settings are llama.cpp's defaults.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import llama_cpp as lib
import numpy as np
from protocol import Generated, Stopwatch, serve

SLOTS = 32
ROWS = 512


@dataclass
class Running:
    """A prompt in a slot: how much of it is computed, and what was generated last."""

    place: int
    prompt: Sequence[int]
    computed: int = 0
    generated: int = 0
    last: int = 0


class LlamaCpp:
    version = lib.__version__

    def __init__(self, model: str, threads: int) -> None:
        lib.llama_backend_init()
        self._model = lib.llama_model_load_from_file(model.encode(), lib.llama_model_default_params())
        if not self._model:
            raise RuntimeError(f"could not load {model}")
        self._threads = threads
        self._vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self._model))

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Generated:
        slots = min(len(prompts), SLOTS)
        longest = max(len(prompt) for prompt in prompts) + new_tokens
        waiting = deque(Running(place, prompt) for place, prompt in enumerate(prompts))
        busy: list[Running | None] = [None] * slots
        with self._context(slots, longest) as context, _greedy() as sampler, _rows() as batch:
            watch = Stopwatch(len(prompts))
            while waiting or any(busy):
                for slot in range(slots):
                    if busy[slot] is None and waiting:
                        lib.llama_memory_seq_rm(lib.llama_get_memory(context), slot, -1, -1)
                        busy[slot] = waiting.popleft()
                for slot, row in _step(context, batch, busy):
                    sequence = busy[slot]
                    assert sequence is not None
                    sequence.last = lib.llama_sampler_sample(sampler, context, row)
                    sequence.generated += 1
                    watch.token(sequence.place)
                    if sequence.generated == new_tokens:
                        busy[slot] = None
            return watch.stop(len(prompts) * new_tokens)

    def score(self, windows: Sequence[Sequence[int]]) -> float:
        total = 0.0
        with self._context(1, max(len(window) for window in windows)) as context, _rows() as batch:
            for window in windows:
                lib.llama_memory_clear(lib.llama_get_memory(context), True)
                for start in range(0, len(window) - 1, ROWS):
                    part = window[start : min(start + ROWS, len(window) - 1)]
                    batch.n_tokens = 0
                    for offset, token in enumerate(part):
                        _put(batch, token, start + offset, 0, True)
                    _decode(context, batch)
                    got = lib.llama_get_logits(context)
                    logits = np.ctypeslib.as_array(got, (len(part), self._vocab)).astype(np.float64)
                    top = logits.max(axis=1)
                    sums = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
                    chosen = logits[np.arange(len(part)), window[start + 1 : start + 1 + len(part)]]
                    total += float((sums - chosen).sum())
        return total

    @contextmanager
    def _context(self, slots: int, longest: int) -> Iterator[ctypes.c_void_p]:
        params = lib.llama_context_default_params()
        params.n_seq_max = slots
        params.n_ctx = slots * (-(-longest // 256) * 256)
        params.n_batch = params.n_ubatch = ROWS
        params.n_threads = params.n_threads_batch = self._threads
        params.kv_unified = False
        context = lib.llama_init_from_model(self._model, params)
        if not context:
            raise RuntimeError(f"could not make a context of {slots} x {longest} tokens")
        try:
            yield context
        finally:
            lib.llama_free(context)


def _step(
    context: ctypes.c_void_p, batch: lib.llama_batch, busy: Sequence[Running | None]
) -> list[tuple[int, int]]:
    """One decode call; (slot, row) of each sequence that has a next token to be sampled."""
    batch.n_tokens = 0
    outputs = []
    for slot, sequence in enumerate(busy):
        if sequence is not None and sequence.generated:
            position = len(sequence.prompt) + sequence.generated - 1
            outputs.append((slot, _put(batch, sequence.last, position, slot, True)))
    for slot, sequence in enumerate(busy):
        if sequence is None or sequence.generated:
            continue
        while sequence.computed < len(sequence.prompt) and batch.n_tokens < ROWS:
            is_last = sequence.computed == len(sequence.prompt) - 1
            row = _put(batch, sequence.prompt[sequence.computed], sequence.computed, slot, is_last)
            sequence.computed += 1
            if is_last:
                outputs.append((slot, row))
    _decode(context, batch)
    return outputs


def _put(batch: lib.llama_batch, token: int, position: int, slot: int, wants_logits: bool) -> int:
    row = int(batch.n_tokens)
    batch.token[row] = token
    batch.pos[row] = position
    batch.n_seq_id[row] = 1
    batch.seq_id[row][0] = slot
    batch.logits[row] = wants_logits
    batch.n_tokens = row + 1
    return row


def _decode(context: ctypes.c_void_p, batch: lib.llama_batch) -> None:
    code = lib.llama_decode(context, batch)
    if code:
        raise RuntimeError(f"llama_decode returned {code}")


@contextmanager
def _rows() -> Iterator[lib.llama_batch]:
    batch = lib.llama_batch_init(ROWS, 0, 1)
    try:
        yield batch
    finally:
        lib.llama_batch_free(batch)


@contextmanager
def _greedy() -> Iterator[ctypes.c_void_p]:
    sampler = lib.llama_sampler_init_greedy()
    try:
        yield sampler
    finally:
        lib.llama_sampler_free(sampler)


if __name__ == "__main__":
    serve(LlamaCpp)
