"""Embeddings: the reference executor's hidden state, whoever else is in the batch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pelton import LLM, SamplingParams
from pelton.batch import make_batch
from pelton.errors import ContextOverflowError, RequestError
from pelton.exec.reference import ReferenceExecutor
from pelton.kv import KVArena, KVLayout, blocks_for
from pelton.models.load import LoadedModel, load_model
from pelton.outputs import Embedding
from pelton.types import Span

from .serve.tiny_model import write_tiny

TEXTS = ["The capital of France is Paris.", "Water boils at 100 degrees Celsius.", "def f(x):", "Hello"]


@pytest.fixture(scope="module")
def llm(real_model_path: Path) -> Iterator[LLM]:
    with LLM(str(real_model_path), context_length=512, threads=1, kv_memory=64 << 20) as llm:
        yield llm


def vectors(llm: LLM, prompts: list[str] | list[list[int]]) -> list[list[float]]:
    return [done.outputs.embedding for done in llm.embed(prompts)]


def reference(model: LoadedModel, tokens: list[int]) -> NDArray[np.float32]:
    """The last row of what the head reads, by the NumPy definition, scaled to length 1."""
    executor = ReferenceExecutor(model.plan, model.weights)
    blocks = blocks_for(len(tokens))
    arena = KVArena(KVLayout(model.plan.kv, "float32"), blocks)
    table, last = np.arange(blocks, dtype=np.int32), np.array([len(tokens) - 1], dtype=np.int32)
    span = Span(0, 0, np.array(tokens, dtype=np.int32), table, last)
    forward = executor.begin(make_batch([span]), arena)
    step, value = model.plan.head
    forward.advance(step)
    row = forward.read(value)[0]
    return np.asarray(row / np.linalg.norm(row))


def test_embeddings_are_the_reference_executors(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf")
    model = load_model(path)
    with LLM(str(path), threads=1, kv_memory=8 << 20, kv_dtype="float32") as tiny:
        for text, found in zip(TEXTS, vectors(tiny, TEXTS), strict=True):
            assert np.linalg.norm(found) == pytest.approx(1.0, abs=1e-6)
            assert np.allclose(found, reference(model, tiny.encode(text)), atol=1e-5)


def test_an_embedding_does_not_depend_on_the_batch_its_chunks_or_the_cache(llm: LLM) -> None:
    long = llm.encode(" ".join(TEXTS * 20))[:400]
    alone = [vectors(llm, [text])[0] for text in TEXTS]
    assert vectors(llm, TEXTS) == alone
    (first,) = vectors(llm, [long])
    states = [llm.requests.add(text, SamplingParams(max_tokens=30, ignore_eos=True)) for text in TEXTS]
    assert vectors(llm, [long, long[:-1], long])[::2] == [first, first]
    while not all(state.finished for state in states):
        llm.requests.step()
    llm.engine.check()


def test_chunks_of_a_prompt_change_nothing(real_model_path: Path, llm: LLM) -> None:
    tokens = llm.encode(" ".join(TEXTS * 3))
    path = str(real_model_path)
    with LLM(path, context_length=512, threads=1, kv_memory=64 << 20, max_num_batched_tokens=7) as small:
        assert vectors(small, [tokens]) == vectors(llm, [tokens])


def test_a_hidden_state_beside_text_logprobs_and_siblings(llm: LLM) -> None:
    tokens = llm.encode(TEXTS[0])
    params = SamplingParams(n=3, max_tokens=4, seed=1, prompt_logprobs=1, hidden_state=True)
    (both,) = llm.generate([tokens], params)
    (expected,) = vectors(llm, [tokens])
    for output in both.outputs:
        assert output.hidden_state is not None
        assert Embedding.of(output.hidden_state).embedding == expected
    plain = llm.generate([tokens], SamplingParams(n=3, max_tokens=4, seed=1))[0]
    assert [output.text for output in plain.outputs] == [output.text for output in both.outputs]
    assert plain.outputs[0].hidden_state is None


def test_dimensions_are_the_first_scaled_anew(llm: LLM) -> None:
    (whole,) = llm.embed(TEXTS[0])
    (cut,) = llm.embed(TEXTS[0], dimensions=8)
    assert np.allclose(cut.outputs.embedding, Embedding.of(whole.outputs.embedding, 8).embedding, atol=1e-6)
    assert len(cut.outputs.embedding) == 8
    refused: list[Any] = [0, -1, 577, "3", 2.5, True]
    for dimensions in refused:
        with pytest.raises(RequestError, match="dimensions"):
            llm.embed(TEXTS[0], dimensions=dimensions)


def test_what_cannot_be_embedded_is_refused(llm: LLM) -> None:
    with pytest.raises(ContextOverflowError):
        llm.embed([[5] * 512])
    with pytest.raises(RequestError):
        llm.embed([[]])


@pytest.mark.peers
def test_embeddings_agree_with_transformers(llm: LLM, real_model_path: Path) -> None:
    import torch
    from transformers import AutoModel

    peer = AutoModel.from_pretrained(
        str(real_model_path.parent), gguf_file=real_model_path.name, dtype=torch.float32
    )
    for text, found in zip(TEXTS, vectors(llm, TEXTS), strict=True):
        with torch.no_grad():
            state = peer(torch.tensor([llm.encode(text)])).last_hidden_state[0, -1].numpy()
        assert float(np.dot(found, state / np.linalg.norm(state))) > 0.99
