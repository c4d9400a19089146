"""The tiny model, written once a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from .tiny_model import write_tiny


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf")
