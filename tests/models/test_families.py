"""Every family, from a Hugging Face folder and from GGUF, against transformers' logits."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from pelton.exec.native import NativeExecutor
from pelton.models.load import load_model
from pelton.plan.passes import fuse

from .cases import CASES, Goldens, context_of, stored_rows, tokens_of, write_folder
from .gguf_files import GGUF_CASES, write_gguf
from .running import logits_of

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def goldens() -> Goldens:
    return Goldens()


@pytest.mark.parametrize("case", CASES)
def test_folder_equals_transformers(case: str, goldens: Goldens, tmp_path: Path) -> None:
    folder = write_folder(tmp_path, goldens.config(case), goldens.tensors(case))
    model = load_model(folder, context_length=context_of(case))
    found = logits_of(model, tokens_of(case))
    assert np.abs(found[stored_rows(case)] - goldens.logits(case)).max() <= TOLERANCE
    fused = logits_of(replace(model, plan=fuse(model.plan)), tokens_of(case))
    assert np.array_equal(fused, found)
    in_chunks = logits_of(model, tokens_of(case), chunks=(1, 7, len(found) - 8))
    assert np.abs(found - in_chunks).max() <= TOLERANCE


@pytest.mark.parametrize("case", CASES)
def test_native_equals_transformers(case: str, goldens: Goldens, tmp_path: Path) -> None:
    folder = write_folder(tmp_path, goldens.config(case), goldens.tensors(case))
    model = load_model(folder, context_length=context_of(case))
    native = partial(NativeExecutor, threads=1)
    found = logits_of(model, tokens_of(case), make_executor=native)
    assert np.abs(found[stored_rows(case)] - goldens.logits(case)).max() <= TOLERANCE


@pytest.mark.parametrize("case", GGUF_CASES)
def test_gguf_equals_transformers(case: str, goldens: Goldens, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf", goldens.config(case), goldens.tensors(case))
    model = load_model(path, context_length=context_of(case))
    found = logits_of(model, tokens_of(case))
    assert np.abs(found[stored_rows(case)] - goldens.logits(case)).max() <= TOLERANCE
    source = model.source
    assert source is not None
    assert not isinstance(source, Path)
    assert source.get_str("general.architecture") == GGUF_CASES[case]


def test_every_family_has_a_case(goldens: Goldens) -> None:
    from pelton.models import ARCHITECTURES

    folders = {goldens.config(case)["model_type"] for case in CASES}
    assert folders == {name for item in ARCHITECTURES for name in item.config_names}
    assert set(GGUF_CASES.values()) == {name for item in ARCHITECTURES for name in item.gguf_names}


def test_the_scalings_differ(goldens: Goldens) -> None:
    """Each RoPE scaling moves the logits by far more than the tolerance, so none passes as another."""
    names = [case for case in CASES if case.startswith("rope_") and case != "rope_dynamic"]
    for index, case in enumerate(names):
        for other in names[:index]:
            assert np.abs(goldens.logits(case) - goldens.logits(other)).max() > 20 * TOLERANCE


def test_tied_output_is_the_embedding(goldens: Goldens, tmp_path: Path) -> None:
    tied, untied = (
        load_model(write_folder(tmp_path / case, goldens.config(case), goldens.tensors(case)))
        for case in ("qwen3", "llama")
    )
    assert tied.weights["output"] is tied.weights["token_embd"]
    assert untied.weights["output"] is not untied.weights["token_embd"]
