"""`pelton serve` is told of one model, not of two."""

from __future__ import annotations

import pytest

from .calling import call


def test_two_models_are_one_too_many() -> None:
    result = call("serve", "synthetic:a", "--model", "synthetic:b")
    assert result.exit_code == 1
    assert "--model = 'synthetic:b'" in result.stderr
    assert "synthetic:a" in result.stderr


@pytest.mark.parametrize("flags", [("--model", "nowhere.gguf"), ()], ids=["the same", "none"])
def test_one_model_may_be_said_twice_or_instead_of_the_default(flags: tuple[str, ...]) -> None:
    result = call("serve", "nowhere.gguf", *flags, "--offline", env={"PELTON_MODEL": "another.gguf"})
    assert result.exit_code == 1
    assert "nowhere.gguf" in result.stderr
    assert "another.gguf" not in result.stderr
    assert "one model" not in result.stderr
