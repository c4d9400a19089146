"""Cases of techniques.py that lie in the native executor: products, attention, the output head."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import psutil
from measured import ROUNDS, Measured, greedy, random_prompt, timed

from pelton import LLM, SamplingParams
from pelton.batch import make_batch
from pelton.cost.passes import PassTest, PassTimer
from pelton.exec.native import NativeExecutor
from pelton.kv import BlockTable
from pelton.plan.ops import Attend
from pelton.types import BLOCK_SIZE, I32, Span

F32 = np.typing.NDArray[np.float32]


TEXT = (
    "The water of a mountain stream falls through a nozzle and strikes the buckets of a wheel, which"
    " turn nearly all of its energy into work. An engine should do the same with the machine it runs on:"
    " what is read once is used for every sequence that needs it, and what was computed is kept as long"
    " as somebody may ask for it."
)


def online_softmax(model: str) -> Measured:
    """Bytes a 4,096-token prompt takes beyond its keys and values, against one layer's matrix of scores."""
    with LLM(model, drafts="off", prefix_cache=False, context_length=4096) as llm:
        layout = llm.engine.kv.layout
        timer = PassTimer(llm.engine, 512)
        timer.seconds(PassTest("pp", 1))
        process = psutil.Process()
        before = process.memory_info().rss
        timer.seconds(PassTest("pp", 4096))
        taken = process.memory_info().rss - before - 4096 // BLOCK_SIZE * layout.block_bytes
        heads = next(s.op.num_heads for s in llm.engine.executor.plan.steps if isinstance(s.op, Attend))
        matrix = 4.0 * 4096 * 4096 * heads
        timer.close()
    return Measured(
        "memory of a 4,096-token prompt beyond keys and values",
        taken / 1e6,
        "MB",
        f"{matrix / 1e6:.0f} MB for one layer's matrix of scores",
    )


def attention_seconds(model: str, threads: int) -> float:
    """Time of all attention in eight decode steps of one sequence after 4,000 positions."""
    with LLM(model, drafts="off", prefix_cache=False, context_length=4096, threads=threads) as llm:
        timer, executor = PassTimer(llm.engine, 512), llm.engine.executor
        assert isinstance(executor, NativeExecutor)
        timer.seconds(PassTest("tg", 8, 4000))
        executor.trace(True)
        timer.seconds(PassTest("tg", 8, 4000))
        rows = [row for row in executor.traced() if "attend" in row.name]
        timer.close()
    return sum(max(row.work) for row in rows) / 1e9


def split_attention(model: str) -> Measured:
    ratios = [attention_seconds(model, 1) / attention_seconds(model, 2) for _ in range(ROUNDS)]
    return Measured(
        "attention of one sequence at 4,000 positions with 2 threads",
        median(ratios),
        "times as fast",
        "1 thread",
    )


MULTI_HEAD = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 10,
    "num_attention_heads": 9,
    "num_key_value_heads": 9,
    "vocab_size": 4096,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
"""A small llama whose heads have keys and values of their own, as Llama 2's have."""


def shared_prefix(model: str) -> Measured:
    """Decode steps of 16 continuations of one 1,024-token prompt, with and without sharing in turns."""
    with TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(MULTI_HEAD))
        multi_head = shared_prefix_gain(f"synthetic:{folder}?format=Q4_1")
    return Measured(
        "decode speed of 16 sequences that share 1,024 tokens, multi-head attention",
        multi_head,
        "times",
        f"each reads them for itself; {shared_prefix_gain(model):.2f} times for the default model,"
        " whose heads share keys and values",
    )


def shared_prefix_gain(model: str) -> float:
    with LLM(model, drafts="off", context_length=2048, max_num_seqs=16) as llm:
        executor, engine = llm.engine.executor, llm.engine
        assert isinstance(executor, NativeExecutor)
        params = SamplingParams(n=16, seed=0, top_k=1, max_tokens=200, ignore_eos=True)
        state = llm.requests.add(random_prompt(llm, 1024), params)
        while engine.stats.generated < 2 * 16:
            llm.requests.step()
        seconds: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(60):
            for sharing, taken in seconds.items():
                executor.share_prefixes(sharing)
                start = perf_counter()
                llm.requests.step()
                taken.append(perf_counter() - start)
        llm.requests.abort(state)
    return median(seconds[False]) / median(seconds[True])


def prefill_rate(model: str) -> float:
    with LLM(model, drafts="off", prefix_cache=False, context_length=512) as llm:
        timer = PassTimer(llm.engine, 512)
        timer.seconds(PassTest("pp", 256))
        return 256 / min(timer.seconds(PassTest("pp", 256)) for _ in range(ROUNDS))


def int8_activations(model: str) -> Measured:
    """One shape in a block format and in F32, whose products run in float32; prompts, so arithmetic rules."""
    ratios = []
    for _ in range(ROUNDS):
        blocks = prefill_rate("synthetic:llama-135m?format=Q8_0")
        floats = prefill_rate("synthetic:llama-135m?format=F32")
        ratios.append(blocks / floats)
    return Measured(
        "prompt speed",
        median(ratios),
        "times",
        "float32 products (F32 weights)",
    )


def next_token_logits(model: str, executor: str, tokens: I32, kv_dtype: str = "auto") -> F32:
    """Logits [tokens, V] of every position."""
    with LLM(
        model, drafts="off", prefix_cache=False, executor=executor, context_length=256, kv_dtype=kv_dtype
    ) as llm:
        engine = llm.engine
        table = BlockTable(engine.pool, engine.kv.copy_block)
        table.prepare(0, len(tokens))
        outputs = np.arange(len(tokens), dtype=np.int32)
        forward = engine.executor.begin(make_batch([Span(0, 0, tokens, table.array, outputs)]), engine.kv)
        forward.advance()
        return np.array(forward.logits(), dtype=np.float32)


def tokens_of_text(model: str) -> I32:
    with LLM(model, drafts="off", prefix_cache=False, context_length=256) as llm:
        return np.array(llm.encode(TEXT), dtype=np.int32)


def divergence(exact: F32, other: F32) -> float:
    """Mean KL divergence of next-token distributions, from logits [tokens, V], in nats."""
    exact64, other64 = exact.astype(np.float64), other.astype(np.float64)
    p, q = (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True) for logits in (exact64, other64))
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())


def bfloat16_attention(model: str) -> Measured:
    seconds: dict[str, list[float]] = {"float16": [], "bfloat16": []}
    with (
        LLM(model, drafts="off", prefix_cache=False, context_length=2048, kv_dtype="float16") as fine,
        LLM(model, drafts="off", prefix_cache=False, context_length=2048, kv_dtype="bfloat16") as coarse,
    ):
        for round_number in range(2 * ROUNDS):
            for dtype, llm in (("float16", fine), ("bfloat16", coarse)):
                prompt = random_prompt(llm, 1900, round_number)
                seconds[dtype].append(timed(llm, prompt, greedy(1))[0])
    ratio = median(seconds["float16"]) / median(seconds["bfloat16"])
    return Measured("speed of a prompt of 1,900 tokens", ratio, "times", "float16 keys and values")


def int8_attention(model: str) -> Measured:
    """One greedy sequence after 2,000 positions, whose keys and values in bfloat16 are half the weights."""
    seconds: dict[str, list[float]] = {"bfloat16": [], "int8": []}
    with (
        LLM(model, drafts="off", context_length=2304, kv_dtype="bfloat16") as fine,
        LLM(model, drafts="off", context_length=2304, kv_dtype="int8") as coarse,
    ):
        for round_number in range(2 * ROUNDS):
            for dtype, llm in (("bfloat16", fine), ("int8", coarse)):
                prompt = random_prompt(llm, 2000, round_number)
                timed(llm, prompt, greedy(1))  # which the prefix cache keeps
                seconds[dtype].append(timed(llm, prompt, greedy(128))[0])
    ratio = median(seconds["bfloat16"]) / median(seconds["int8"])
    return Measured("decode speed after 2,000 positions", ratio, "times", "bfloat16 keys and values")


def loss(model: str, exact: tuple[str, str], other: tuple[str, str], baseline: str) -> Measured:
    """What one (executor, kv_dtype) loses against another on TEXT."""
    tokens = tokens_of_text(model)
    p, q = (next_token_logits(model, executor, tokens, dtype) for executor, dtype in (exact, other))
    return Measured(f"mean KL divergence over {len(tokens)} positions", divergence(p, q), "nats", baseline)


def bfloat16_loss(model: str) -> Measured:
    """Of the definition: beside the rounding of activations to int8 the difference would drown."""
    fine, coarse = ("reference", "float16"), ("reference", "bfloat16")
    return loss(model, fine, coarse, "float16 keys and values")


def int8_attention_loss(model: str) -> Measured:
    return loss(model, ("reference", "float16"), ("reference", "int8"), "float16 keys and values")


def int8_loss(model: str) -> Measured:
    return loss(model, ("reference", "float16"), ("native", "float16"), "float32 activations")


def fixed_order(model: str) -> Measured:
    """How much of a row's logits differs in any bit between the row alone and among 31 others."""
    with LLM(model, drafts="off", prefix_cache=False, context_length=64) as llm:
        engine, random = llm.engine, np.random.default_rng(0)

        def rows(count: int) -> F32:
            spans = []
            for index in range(count):
                table = BlockTable(engine.pool, engine.kv.copy_block)
                table.prepare(0, 1)
                token = np.array([prompts[index]], dtype=np.int32)
                spans.append(Span(index, 0, token, table.array, np.zeros(1, dtype=np.int32)))
            forward = engine.executor.begin(make_batch(spans), engine.kv)
            forward.advance()
            return np.array(forward.logits(), dtype=np.float32)

        prompts = random.integers(0, engine.executor.plan.vocab_size, 32)
        differing = float((rows(1)[0] != rows(32)[0]).mean())
    a, b = (random.standard_normal(shape, dtype=np.float32) for shape in ((32, 576), (576, 4096)))
    numpy_differs = float(((a[:1] @ b)[0] != (a @ b)[0]).mean())
    return Measured(
        "values that differ between a row alone and among 32",
        differing,
        "of all",
        f"NumPy's matrix product: {numpy_differs:.2g}",
    )


def screened_head(model: str) -> Measured:
    """One greedy sequence after the head's copy is made, with and without it in turns."""
    with LLM(model, drafts="off", prefix_cache=False, context_length=1024) as llm:
        executor = llm.engine.executor
        assert isinstance(executor, NativeExecutor)
        timed(llm, random_prompt(llm, 8), greedy(300))
        seconds: dict[bool, list[float]] = {True: [], False: []}
        for round_number in range(8):
            texts = []
            for screening, taken in seconds.items():
                executor.screen_head(screening)
                took, text = timed(llm, random_prompt(llm, 8, round_number), greedy(128))
                taken.append(took)
                texts.append(text)
            assert texts[0] == texts[1], "the copy changed the text"
    return Measured(
        "decode speed of one greedy sequence",
        median(seconds[False]) / median(seconds[True]),
        "times",
        "the whole head is read for each token; the same text",
    )


KERNEL_CASES: Mapping[str, Callable[[str], Measured]] = {
    "online-softmax-attention": online_softmax,
    "split-attention": split_attention,
    "shared-prefix-attention": shared_prefix,
    "int8-activations": int8_activations,
    "int8-activations-loss": int8_loss,
    "bfloat16-attention": bfloat16_attention,
    "bfloat16-attention-loss": bfloat16_loss,
    "int8-attention": int8_attention,
    "int8-attention-loss": int8_attention_loss,
    "screened-head": screened_head,
    "fixed-order-reductions": fixed_order,
}
