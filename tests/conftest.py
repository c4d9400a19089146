"""The real model, fetched once through the model store like any user's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from pelton.models.load import LoadedModel, load_model
from pelton.weights.store import default_store

settings.register_profile("pelton", deadline=None)  # a busy machine is no failure
settings.load_profile("pelton")


@pytest.fixture(scope="session")
def real_model_path() -> Path:
    """The default model's GGUF file; PELTON_TEST_MODEL names another copy of it."""
    override = os.environ.get("PELTON_TEST_MODEL")
    if override:
        return Path(override)
    path = default_store().resolve("smollm2-135m").path
    assert path is not None
    return Path(path)


@pytest.fixture(scope="session")
def real_model(real_model_path: Path) -> LoadedModel:
    return load_model(real_model_path, context_length=2048)
