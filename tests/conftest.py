"""The real model, fetched once through the model store like any user's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from pelton.models.load import LoadedModel, load_model
from pelton.weights.store import default_store

# No deadline, as a busy machine is no failure; the same examples on every run, as a change is to blame for
# what fails. `pytest --hypothesis-profile=explore` tries others.
settings.register_profile("seeded", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile("seeded")


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
