"""The length predictor: it learns what there is to learn and stays within its bounds."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pelton.sched.lengths import EDGES, LengthPredictor, hash_of
from pelton.sched.sequence import Sequence
from pelton.terms import RequestTerms

from .world import World


def request(tokens: list[int], program: str = "", most: int = 2000) -> Sequence:
    return World("token-budget").add(np.array(tokens, np.int32), 1, RequestTerms(program=program), most)


def test_it_learns_from_the_prompts_tokens() -> None:
    predictor, random = LengthPredictor(costly=True), np.random.default_rng(0)

    def example() -> tuple[Sequence, int]:
        is_long = bool(random.integers(2))
        words = random.integers(10, 50, 20).tolist()
        return request([*words, 3 if is_long else 4]), int(
            random.integers(300, 500) if is_long else random.integers(5, 30)
        )

    for _ in range(300):
        sequence, length = example()
        predictor.learn(sequence, predictor.features(sequence), length)
    wrong = 0
    for _ in range(100):
        sequence, length = example()
        wrong += (predictor.expected(predictor.features(sequence), 2000) > 128) != (length > 128)
    assert wrong <= 3


def test_it_learns_from_the_programs_last_answers() -> None:
    predictor = LengthPredictor(costly=False)
    for index in range(300):
        program, length = (("terse", 6), ("wordy", 700))[index % 2]
        sequence = request([1, 2, 3], program)
        predictor.learn(sequence, predictor.features(sequence), length)
    terse, wordy = (predictor.features(request([1, 2, 3], program)) for program in ("terse", "wordy"))
    assert predictor.expected(terse, 2000) < 60
    assert predictor.expected(wordy, 2000) > 400
    assert predictor.exceeds(terse, 128) < 0.2 < 0.8 < predictor.exceeds(wordy, 128)


@given(
    lengths=st.lists(st.integers(1, 20_000), max_size=8),
    most=st.integers(1, 5000),
    said=st.integers(0, 4000),
    share=st.floats(0, 1),
)
@settings(max_examples=60)
def test_predictions_stay_between_what_was_said_and_the_limit(
    lengths: list[int], most: int, said: int, share: float
) -> None:
    predictor, sequence = LengthPredictor(costly=True), request([5, 6, 7])
    features = predictor.features(sequence)
    for length in lengths:
        predictor.learn(sequence, features, length)
    top = max(most, said + 1)
    assert said <= predictor.expected(features, most, said) <= top
    assert said <= predictor.quantile(features, share, most, said) <= top


def test_quantiles_rise_with_the_share() -> None:
    predictor, features = LengthPredictor(costly=False), np.array([0])
    found = [predictor.quantile(features, share, 5000) for share in (0.1, 0.5, 0.9)]
    assert found == sorted(found)
    assert found[0] < EDGES[-1]


def test_hashes_are_the_same_in_every_process() -> None:
    assert hash_of("") == 2_166_136_261
    assert hash_of("a") == 0xE40C292C  # FNV-1a's published value
