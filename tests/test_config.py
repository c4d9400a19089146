from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pelton import config
from pelton.config import SamplingParams, TokenBias
from pelton.decode.philox import uniform
from pelton.errors import ContextOverflowError, RequestError

NAMES = [field.name for field in fields(SamplingParams)]
NOT_NUMBERS: list[object] = ["1", b"1", None, [], {}, True, 1j, object()]
REALS: dict[str, list[Any]] = {
    "temperature": [-0.1, -1e-9, 100.1, 1e300],
    "top_p": [0, 0.0, -0.0, -0.5, 1.0001, 2],
    "min_p": [-0.01, 1.01],
    "typical_p": [0.0, -1, 1.5],
    "repetition_penalty": [0, -1.0, 0.001, 101],
    "frequency_penalty": [-2.01, 2.01],
    "presence_penalty": [-3, 3],
}
INTEGERS: dict[str, list[Any]] = {
    "n": [0, -1, 129, 10**5000, 1.0, 1.5],
    "top_k": [-2, 2**31, 0.5, 10.0],
    "min_tokens": [-1, 2**31, 1.0],
    "max_tokens": [0, -1, 2**31, 16.0],
    "seed": [-(2**63) - 1, 2**63, 1.0],
    "logprobs": [-1, 21, 5.0],
    "prompt_logprobs": [-1, 21, 5.0],
}
OPTIONAL = {"max_tokens", "seed", "logprobs", "prompt_logprobs"}
FLAGS = ["ignore_eos", "include_stop_str_in_output", "skip_special_tokens", "detokenize", "hidden_state"]
TOKEN_LISTS: list[object] = [
    "12",
    b"12",
    5,
    [-1],
    [2**31],
    [1.0],
    ["1"],
    [True],
    [None],
    [[1]],
    {1: 1},
    iter([1]),
]
STRING_LISTS: list[object] = [
    5,
    b"x",
    [""],
    [1],
    [None],
    [["x"]],
    ["x" * 257],
    ["\ud800"],
    {"x": 1},
    iter("x"),
]


def _bad() -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, values in REALS.items():
        rows += [(name, value) for value in [*values, math.nan, math.inf, -math.inf, 10**400, *NOT_NUMBERS]]
    for name, numbers in INTEGERS.items():
        rows += [(name, value) for value in [*numbers, math.nan, math.inf, -(10**400)]]
        rows += [(name, value) for value in NOT_NUMBERS if not (value is None and name in OPTIONAL)]
    not_flags: list[Any] = [0, 1, "yes", None, []]
    rows += [(name, value) for name in FLAGS for value in not_flags]
    for name, most in [("stop_token_ids", 1024), ("banned_token_ids", 2**18), ("allowed_token_ids", 2**18)]:
        rows += [(name, value) for value in [*TOKEN_LISTS, range(most + 1), [0] * 1_000_000]]
    rows.append(("allowed_token_ids", []))
    not_structured: list[Any] = ["a+", {"regex": "a+"}, True, 5, []]
    rows += [("structured_outputs", value) for value in not_structured]
    rows += [(name, value) for name in ("stop", "bad_words") for value in [*STRING_LISTS, ["x"] * 1_000_000]]
    rows += [("stop", ""), ("stop", [str(i) for i in range(17)]), ("bad_words", [str(i) for i in range(129)])]
    biases: list[Any] = [
        [(1, 1.0)],
        "1",
        5,
        {-1: 1.0},
        {"1": 1.0},
        {True: 1.0},
        {1: "1"},
        {1: None},
        {1: True},
    ]
    biases += [{1: math.nan}, {1: math.inf}, {1: -math.inf}, {1: 100.5}, {1: -101}, {2**31: 1.0}]
    biases.append(dict.fromkeys(range(1025), 1.0))
    return rows + [("logit_bias", bias) for bias in biases]


BAD = _bad()


def test_the_table_is_long() -> None:
    assert len(BAD) >= 200
    assert {name for name, _ in BAD} == set(NAMES)


@pytest.mark.parametrize(("name", "value"), BAD, ids=[f"{name}-{i}" for i, (name, _) in enumerate(BAD)])
def test_a_bad_value_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(RequestError) as caught:
        SamplingParams(**{name: value})
    assert caught.value.field == name
    assert caught.value.value is not None
    assert name in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"min_tokens": 17}, "min_tokens"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens"),
        ({"n": 2, "temperature": 0.0}, "n"),
        ({"stop": "x", "detokenize": False}, "stop"),
        ({"allowed_token_ids": [1, 2], "banned_token_ids": [2, 1, 3]}, "allowed_token_ids"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(RequestError) as caught:
        SamplingParams(**settings)
    assert caught.value.field == field


def test_defaults_are_vllms() -> None:
    params = SamplingParams()
    assert (params.n, params.temperature, params.top_p, params.top_k, params.min_p) == (1, 1.0, 1.0, 0, 0.0)
    assert (params.max_tokens, params.min_tokens, params.seed, params.logprobs) == (16, 0, None, None)
    assert (params.repetition_penalty, params.frequency_penalty, params.presence_penalty) == (1.0, 0.0, 0.0)
    assert params.skip_special_tokens
    assert params.detokenize
    assert not params.ignore_eos


def test_lists_become_tuples_and_numpy_numbers_plain_ones() -> None:
    params = SamplingParams(
        n=np.int64(2),
        top_p=np.float32(0.5),
        temperature=1,
        stop="end",
        bad_words=["b", "a", "b"],
        stop_token_ids=[3, 1, 3],
        allowed_token_ids=frozenset({9, 4}),  # type: ignore[arg-type]
        logit_bias={7: 1, 2: -1},
    )
    assert type(params.n) is int
    assert type(params.top_p) is float
    assert type(params.temperature) is float
    assert params.stop == ("end",)
    assert params.bad_words == ("b", "a")
    assert params.stop_token_ids == (1, 3)
    assert params.allowed_token_ids == (4, 9)
    assert params.logit_bias == {2: -1.0, 7: 1.0}


def test_params_cannot_change_and_can_be_copied() -> None:
    bias = {1: 2.0}
    params = SamplingParams(logit_bias=bias, stop=["a"], seed=5)
    bias[2] = math.nan
    assert params.logit_bias == {1: 2.0}
    with pytest.raises(FrozenInstanceError):
        params.n = 2  # type: ignore[misc]
    for twin in (copy.deepcopy(params), pickle.loads(pickle.dumps(params)), replace(params)):
        assert twin == params
        assert hash(twin) == hash(params)
    assert replace(params, seed=6) != params
    with pytest.raises(RequestError):
        replace(params, top_p=0.0)


def test_token_bias_is_a_read_only_mapping() -> None:
    bias = TokenBias([(5, 1.0), (2, 0.5)])
    assert list(bias.items()) == [(2, 0.5), (5, 1.0)]
    assert repr(bias) == "{2: 0.5, 5: 1.0}"
    with pytest.raises(TypeError):
        bias[1] = 0.0  # type: ignore[index]


@pytest.mark.parametrize(
    ("temperature", "greedy"), [(0, True), (-0.0, True), (9e-6, True), (1e-5, False), (1, False)]
)
def test_tiny_temperatures_are_greedy(temperature: float, greedy: bool) -> None:
    assert SamplingParams(temperature=temperature).is_greedy is greedy


@pytest.mark.parametrize("name", ["stop_token_ids", "allowed_token_ids", "banned_token_ids", "logit_bias"])
def test_token_ids_beyond_the_vocabulary_are_refused(name: str) -> None:
    make: Callable[[int], Any] = (lambda i: {i: 1.0}) if name == "logit_bias" else (lambda i: [0, i])
    SamplingParams(**{name: make(99)}).validate_for(100, 10, 1)
    with pytest.raises(RequestError, match="not a token id") as caught:
        SamplingParams(**{name: make(100)}).validate_for(100, 10, 1)
    assert (caught.value.field, caught.value.value) == (name, 100)


def test_banning_every_token_is_refused() -> None:
    params = SamplingParams(banned_token_ids=range(4))
    params.validate_for(5, 10, 1)
    with pytest.raises(RequestError, match="no token"):
        params.validate_for(4, 10, 1)


def test_the_prompt_must_leave_room() -> None:
    params = SamplingParams(min_tokens=3)
    params.validate_for(10, 8, 5)
    with pytest.raises(ContextOverflowError, match=r"6 prompt tokens.*context of 8"):
        params.validate_for(10, 8, 6)
    with pytest.raises(ContextOverflowError):
        SamplingParams().validate_for(10, 8, 8)
    with pytest.raises(RequestError, match="empty"):
        SamplingParams().validate_for(10, 8, 0)


def test_token_limit_is_the_smaller_of_request_and_context() -> None:
    assert SamplingParams(max_tokens=4).token_limit(10, 3) == 4
    assert SamplingParams(max_tokens=4).token_limit(6, 3) == 3
    assert SamplingParams(max_tokens=None).token_limit(10, 3) == 7


TEXT = st.text(st.sampled_from("ab\0\n\u00e9\ud800"), max_size=8)
ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    TEXT,
    st.binary(max_size=4),
    st.lists(st.one_of(st.integers(), st.floats(), TEXT, st.none()), max_size=4),
    st.dictionaries(st.integers(), st.floats(), max_size=3),
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=4))
def test_any_input_gives_params_in_range_or_a_request_error(values: dict[str, Any]) -> None:
    refused: list[RequestError] = []
    try:
        params = SamplingParams(**values)
    except RequestError as error:
        refused.append(error)
    if refused:
        assert refused[0].field in NAMES
        return
    assert 1 <= params.n <= config.MAX_N
    assert 0 <= params.temperature <= config.MAX_TEMPERATURE
    assert 0 < params.top_p <= 1
    assert 0 < params.typical_p <= 1
    assert 0 <= params.min_p <= 1
    assert params.seed is None or -(2**63) <= params.seed < 2**63
    assert isinstance(params.stop, tuple)
    assert all(math.isfinite(bias) for bias in (params.logit_bias or {}).values())
    assert SamplingParams(**{name: getattr(params, name) for name in NAMES}) == params


def test_a_seed_is_any_integer_of_64_bits_and_minus_one_is_none() -> None:
    assert SamplingParams(seed=-1).seed is None
    seeds = [SamplingParams(seed=seed).seed for seed in (-(2**63), -2, 0, 2**63 - 1)]
    assert seeds == [-(2**63), -2, 0, 2**63 - 1]
    assert len({uniform(seed, 3) for seed in seeds if seed is not None}) == 4
    assert all(0 <= uniform(seed, 3) < 1 for seed in seeds if seed is not None)


def test_no_token_is_for_requests_that_want_something_else() -> None:
    assert SamplingParams(max_tokens=0, hidden_state=True).max_tokens == 0
    assert SamplingParams(max_tokens=0, prompt_logprobs=0).max_tokens == 0
    with pytest.raises(RequestError, match="max_tokens"):
        SamplingParams(max_tokens=0)
    with pytest.raises(RequestError, match="n = 2"):
        SamplingParams(max_tokens=0, hidden_state=True, n=2)
    with pytest.raises(RequestError, match="min_tokens"):
        SamplingParams(max_tokens=0, hidden_state=True, min_tokens=1)
