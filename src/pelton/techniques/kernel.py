"""How a product or an attention is computed. One row a technique; see row.py."""

from __future__ import annotations

from .row import Paper, Technique

KERNEL: tuple[Technique, ...] = (
    Technique(
        name="online-softmax-attention",
        family="kernel",
        title="Attention over chunks of keys with a running maximum and sum, never a matrix of scores",
        papers=(
            Paper("FlashAttention", 174),
            Paper("Self-attention Does Not Need O(n^2) Memory", 345),
            Paper("FuseMax", 66),
        ),
        exact=True,
        switch="always on in the native executor",
        test="tests/laws/test_rows.py::test_tiny_models_on_every_instruction_set",
        benchmark="online-softmax-attention",
        source="csrc/kernels/attention.h",
    ),
    Technique(
        name="split-attention",
        family="kernel",
        title="A long context's chunks are shared out over threads and merged in order: the same bits",
        papers=(Paper("FlashDecoding++", 100),),
        exact=True,
        switch="always on in the native executor, for few rows and long contexts",
        test="tests/exec/test_native.py::test_threads_and_splits_change_no_bit",
        benchmark="split-attention",
        source="csrc/runtime/attend_work.h",
    ),
    Technique(
        name="shared-prefix-attention",
        family="kernel",
        title="Sequences that begin with the same KV blocks read those together: each chunk once for all",
        papers=(Paper("RelayAttention", 325),),
        exact=True,
        switch="always on in the native executor, wherever block tables begin alike",
        test="tests/laws/test_shared_prefixes.py::test_forks_at_two_depths",
        benchmark="shared-prefix-attention",
        source="csrc/runtime/shared_prefix.h",
    ),
    Technique(
        name="int8-activations",
        family="kernel",
        title="Activations rounded to 8 bits per 32 so that dot products with block formats run in integers",
        papers=(),
        exact=False,
        switch="always on in the native executor for block formats; --executor reference is without",
        test="tests/native/test_linear.py::test_quantized_activations_are_near_and_the_same_on_every_level",
        benchmark="int8-activations",
        source="csrc/kernels/quantize_block.h",
        loss="int8-activations-loss",
    ),
    Technique(
        name="bfloat16-attention",
        family="kernel",
        title="Keys, values, queries and probabilities as pairs of bfloat16, multiplied two at a time",
        papers=(),
        exact=False,
        switch="--kv-dtype bfloat16; auto is that on avx512_bf16 for quantized and bfloat16 weights",
        test="tests/exec/test_native.py::test_bfloat16_keys_and_values_agree_with_the_reference",
        benchmark="bfloat16-attention",
        source="csrc/kernels/attention.h",
        loss="bfloat16-attention-loss",
    ),
)
