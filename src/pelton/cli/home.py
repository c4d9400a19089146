"""The user's model store, and where measured machine figures lie beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from .console import note

if TYPE_CHECKING:
    from ..weights.store import ModelStore


def user_store(*, offline: bool) -> ModelStore:
    """The store the environment names; its remarks go to stderr. `offline` adds to the environment's wish."""
    from ..weights.store import ModelStore

    return ModelStore.from_environment(os.environ, offline=offline or None, notify=note)


def machines_folder() -> Path:
    return user_store(offline=True).home / "machines"
