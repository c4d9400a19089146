"""The work that every engine gets: prompts as token ids, the tests made of them, the text scored for quality.

Prompts differ between samples: the first token is drawn anew each time, so that no engine's prefix cache can
answer from an earlier sample. All engines get the same ids.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pydoc_data.topics import topics

import numpy as np

from pelton.traffic.sharegpt import conversations, installed_file

Tokens = list[int]
Encode = Callable[[str], Tokens]

PROMPT_TOKENS = range(4, 1025)
WINDOW = 500
KINDS = ("prompt", "decode", "total")


@dataclass(frozen=True)
class Test:
    """One named piece of work. `lengths` of its prompts in tokens, () for the ShareGPT prompts.

    kind says which tokens a second count: "prompt" tokens until the first new one, "decode": new tokens after
    every sequence's first, "total": new tokens over the whole time, prompts included. A round takes
    `most_samples`, but begins none after `SAMPLE_SECONDS`; `warmups` runs before them are not counted.
    """

    name: str
    kind: str
    lengths: tuple[int, ...]
    new_tokens: int
    most_samples: int = 1
    warmups: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.name}: no kind {self.kind}")

    def speed(self, reply: Mapping[str, float], prompt_tokens: int) -> float:
        """Tokens a second from a worker's times."""
        if self.kind == "prompt":
            return prompt_tokens / reply["first"]
        if self.kind == "decode":
            return (reply["tokens"] - reply["tokens_at_first"]) / (reply["seconds"] - reply["first"])
        return reply["tokens"] / reply["seconds"]


SAMPLE_SECONDS = 2.0
TESTS = (
    Test("pp512", "prompt", (512,), 1, most_samples=3, warmups=1),
    Test("tg128 @ d8", "decode", (8,), 129, most_samples=3),
    Test("tg128 @ d512", "decode", (512,), 129, most_samples=2),
    Test("tg128 @ d2048", "decode", (2048,), 129),
    Test("decode of 8", "decode", (16,) * 8, 65),
    Test("decode of 32", "decode", (16,) * 32, 65),
    Test("ShareGPT 48 x 96", "total", (), 96),
)


@dataclass(frozen=True)
class Workload:
    """Token ids behind the tests of one model. `windows`: of the quality test, each WINDOW long."""

    vocab_size: int
    sharegpt: tuple[tuple[int, ...], ...]
    windows: tuple[tuple[int, ...], ...]

    def prompts(self, test: Test, sample: int) -> list[Tokens]:
        """The prompts of a test's sample, the same for every engine."""
        random = np.random.Generator(np.random.Philox(sample))
        if test.lengths:
            prompts = [random.integers(0, self.vocab_size, length).tolist() for length in test.lengths]
        else:
            prompts = [list(prompt) for prompt in self.sharegpt]
        for prompt in prompts:
            prompt[0] = int(random.integers(0, self.vocab_size))
        return prompts


def shrunk(test: Test) -> Test:
    """The same test in small, to see that everything works: its speed means nothing."""
    lengths = tuple(min(length, 48) for length in test.lengths)
    return Test(test.name, test.kind, lengths, min(test.new_tokens, 5))


def make_workload(encode: Encode, vocab_size: int, num_prompts: int, num_windows: int) -> Workload:
    prompts = tuple(tuple(prompt) for prompt in sharegpt_prompts(encode, num_prompts))
    text = "\n\n".join(topics[name] for name in sorted(topics))[: num_windows * WINDOW * 12]
    ids = encode(text)
    windows = tuple(tuple(ids[at * WINDOW : (at + 1) * WINDOW]) for at in range(num_windows))
    return Workload(vocab_size, prompts, windows)


def sharegpt_prompts(encode: Encode, count: int) -> list[Tokens]:
    """What people said first, in the order of the file, where PROMPT_TOKENS allow its length."""
    answered = (turns[0] for turns in conversations(installed_file()) if len(turns) > 1)
    fitting = (tokens for tokens in map(encode, answered) if len(tokens) in PROMPT_TOKENS)
    chosen = list(islice(fitting, count))
    if len(chosen) < count:
        raise ValueError(f"the ShareGPT file has {len(chosen)} fitting prompts, {count} are needed")
    return chosen


def chosen_tests(names: Sequence[str]) -> tuple[Test, ...]:
    """Tests whose name begins with one of `names`; all for none. Raises ValueError for a name without any."""
    for name in names:
        if not any(test.name.startswith(name) for test in TESTS):
            raise ValueError(f"no test is named {name}; there are {', '.join(test.name for test in TESTS)}")
    return tuple(test for test in TESTS if not names or test.name.startswith(tuple(names)))
