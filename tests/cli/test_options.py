"""Flags that verbs share."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest
import typer

from pelton.cli.options import EngineFlags, SamplingFlags, flat, parse_size
from pelton.config import SamplingParams
from pelton.errors import RequestError
from pelton.settings import EngineSettings

from .calling import call


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("4k", 4096), ("512M", 512 << 20), ("2G", 2 << 30), ("2GiB", 2 << 30), (" 3 mb ", 3 << 20)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1", "1.5G", "1e9", "9" * 16, "1P"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_size(text)


def test_every_engine_flag_is_a_setting_with_the_same_default() -> None:
    defaults = EngineSettings()
    given = EngineFlags().settings()
    assert {name: getattr(defaults, name) for name in given} == given
    EngineSettings(**given)


def test_sampling_flags_become_checked_parameters() -> None:
    flags = SamplingFlags(max_tokens=-1, temp=0.5, top_k=3, stop=["a", "b"], seed=4)
    expected = SamplingParams(
        max_tokens=None, temperature=0.5, top_k=3, top_p=flags.top_p, stop=("a", "b"), seed=4
    )
    assert flags.params() == expected
    with pytest.raises(RequestError, match="top_p"):
        SamplingFlags(top_p=2.0).params()


def test_a_seed_is_drawn_and_can_be_typed_again() -> None:
    seeds = {SamplingFlags().params().seed for _ in range(8)}
    assert len(seeds) > 1
    assert all(seed is not None and 0 <= seed < 10**6 for seed in seeds)


def test_flat_commands_take_a_groups_fields_one_by_one() -> None:
    seen: list[Any] = []

    def verb(name: str = "n", *, sampling: SamplingFlags) -> None:
        """Do it."""
        seen.append((name, sampling))

    command = flat(verb)
    parameters = inspect.signature(command).parameters
    fields = [field.name for field in dataclasses.fields(SamplingFlags)]
    assert list(parameters) == ["name", *fields]
    defaults = {field: parameters[field].default for field in fields}
    command(name="x", **{**defaults, "top_k": 5})
    assert seen == [("x", SamplingFlags(top_k=5))]


@pytest.mark.parametrize(
    "flags",
    [
        ("--temp", "2"), ("--temperature", "2"), ("--top-k", "1"), ("--top-p", "0.5"), ("--min-p", "0.1"),
        ("--typical", "0.9"), ("--repeat-penalty", "1.1"), ("--seed", "1"), ("-s", "1"), ("-n", "1"),
        ("--n-predict", "1"), ("--max-tokens", "1"), ("-c", "64"), ("--ctx-size", "64"),
        ("--max-model-len", "64"), ("-t", "1"), ("--threads", "1"), ("-m", "x"), ("--model", "x"),
        ("-np", "2"), ("-b", "64"), ("-r", "stop"),
        ("--kv-cache-dtype", "float32"), ("--kv-memory", "64M"), ("-sys", "s"), ("--raw",), ("--offline",),
    ],
)  # fmt: skip
def test_habitual_names_are_understood(flags: tuple[str, ...]) -> None:
    result = call("run", "prompt", *flags, "--max-num-seqs", "0", "--model", "/nonexistent.gguf")
    assert result.exit_code == 1, "understood, and refused for another reason"
    assert "max_num_seqs = 0" in result.stderr
