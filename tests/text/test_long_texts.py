"""Long texts are encoded without Python's lock: to the same ids, while other threads go on."""

from __future__ import annotations

import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from pelton.text import tokenizer as module
from tests.text.tiny_text import CONTROL, byte_level, sentencepiece

TINY = {"byte level": byte_level(), "sentencepiece": sentencepiece()}
PARTS = st.lists(
    st.one_of(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), st.sampled_from(CONTROL)),
    min_size=1,
    max_size=20,
)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(TINY)), PARTS, st.booleans())
def test_a_long_text_has_the_ids_of_the_ordinary_way(name: str, parts: list[str], parse: bool) -> None:
    text = "".join(parts)
    text *= 1 + module._LONG // max(len(text), 1)
    tokenizer = TINY[name]
    backend = tokenizer._parsed if parse else tokenizer._plain
    ids: list[int] = backend.encode(text, add_special_tokens=False).ids
    assert module._ids(backend, text + " ") == backend.encode(text + " ", add_special_tokens=False).ids
    if tokenizer._never_from_text.isdisjoint(ids):
        assert tokenizer.encode(text, add_special=False, parse_special=parse) == ids


def test_other_threads_run_while_a_long_text_is_encoded() -> None:
    """With the lock held, a thread that counts gets no turn between the beginning and the end."""
    text, counted, done = "hello world " * 100_000, [0], threading.Event()

    def count() -> None:
        while not done.is_set():
            counted[0] += 1

    thread = threading.Thread(target=count)
    thread.start()
    try:
        before = counted[0]
        module._ids(TINY["byte level"]._plain, text)
        during = counted[0] - before
    finally:
        done.set()
        thread.join()
    assert during > 1000
