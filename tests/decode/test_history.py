from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from pelton.decode.history import TokenHistory

TOKENS = st.integers(0, 12)


def check(history: TokenHistory, prompt: list[int], output: list[int]) -> None:
    assert list(history.output) == output
    assert history.num_outputs == len(output)
    assert history.position == len(prompt) + len(output)


def check_seen(history: TokenHistory, prompt: list[int], output: list[int]) -> None:
    ids, counts = history.seen()
    assert len(set(ids.tolist())) == len(ids)
    expected = dict.fromkeys(prompt, 0) | dict(Counter(output))
    assert dict(zip(ids.tolist(), counts.tolist(), strict=True)) == expected


class Histories(RuleBasedStateMachine):
    """Pushes, roll-backs and forks in any order against plain lists; `seen` is asked for now and then."""

    histories = Bundle("histories")

    def __init__(self) -> None:
        super().__init__()
        self.model: list[tuple[TokenHistory, list[int], list[int]]] = []

    def add(self, history: TokenHistory, prompt: list[int], output: list[int]) -> int:
        self.model.append((history, prompt, output))
        return len(self.model) - 1

    @initialize(target=histories, prompt=st.lists(TOKENS, max_size=6), output=st.lists(TOKENS, max_size=6))
    def start(self, prompt: list[int], output: list[int]) -> int:
        return self.add(TokenHistory(prompt, output), prompt, list(output))

    @rule(index=histories, tokens=st.lists(TOKENS, min_size=1, max_size=80))
    def push(self, index: int, tokens: list[int]) -> None:
        history, _, output = self.model[index]
        for token in tokens:
            history.push(token)
        output.extend(tokens)

    @rule(index=histories, share=st.floats(0, 1))
    def rollback(self, index: int, share: float) -> None:
        history, _, output = self.model[index]
        kept = int(len(output) * share)
        history.rollback(kept)
        del output[kept:]

    @rule(target=histories, index=histories)
    def fork(self, index: int) -> object:
        if len(self.model) > 4:
            return multiple()
        history, prompt, output = self.model[index]
        return self.add(history.fork(), prompt, list(output))

    @rule(index=histories)
    def look(self, index: int) -> None:
        check_seen(*self.model[index])

    @invariant()
    def all_agree(self) -> None:
        for row in self.model:
            check(*row)

    def teardown(self) -> None:
        for row in self.model:
            check_seen(*row)


TestHistories = Histories.TestCase
TestHistories.settings = settings(deadline=None, max_examples=60)


@settings(deadline=None)
@given(st.lists(st.integers(0, 2), max_size=8), st.lists(st.integers(0, 2), min_size=1, max_size=3))
def test_output_ends_with(output: list[int], ending: list[int]) -> None:
    history = TokenHistory([0, 1, 2], output)
    assert history.output_ends_with(tuple(ending)) == (output[-len(ending) :] == ending)


def test_the_prompt_is_no_part_of_an_ending() -> None:
    assert not TokenHistory([1, 2]).output_ends_with((2,))


def test_many_distinct_tokens_outgrow_the_first_arrays() -> None:
    history = TokenHistory([])
    history.seen()
    for token in range(1000):
        history.push(token)
    assert history.seen()[0].tolist() == list(range(1000))
