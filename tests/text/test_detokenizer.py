"""Streaming text equals decoding at once, for any tokens and any cut."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pelton.text import Detokenizer
from tests.text.tiny_text import byte_level, sentencepiece

TINY = {"byte level": byte_level(), "sentencepiece": sentencepiece(), "no prefix": sentencepiece(False)}
ANY_TINY = st.sampled_from(sorted(TINY))
IDS = st.lists(st.integers(0, 430), max_size=40)


@settings(max_examples=500)
@given(ANY_TINY, IDS, st.booleans())
def test_pieces_add_up_to_the_whole(name: str, ids: list[int], skip: bool) -> None:
    tokenizer = TINY[name]
    stream = Detokenizer(tokenizer, skip_special=skip)
    pieces = [stream.push(token_id) for token_id in ids]
    assert "".join(pieces) + stream.finish() == tokenizer.decode(ids, skip_special=skip)


@settings(max_examples=300)
@given(ANY_TINY, st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_no_character_is_split_and_none_comes_late(name: str, text: str) -> None:
    """After each token the text so far is all the complete characters there are."""
    tokenizer = TINY[name]
    ids = tokenizer.encode(text, add_special=False)
    stream = Detokenizer(tokenizer)
    said = ""
    for count, token_id in enumerate(ids, start=1):
        said += stream.push(token_id)
        assert "\ufffd" not in said or "\ufffd" in text
        data = b"".join(tokenizer.token_bytes(done) for done in ids[:count])
        stripped = data[1:] if tokenizer.strip_leading_space and data.startswith(b" ") else data
        complete = stripped.decode("utf-8", "ignore")
        assert said == complete
    assert stream.finish() == ""


@settings(max_examples=200)
@given(ANY_TINY, IDS, IDS, IDS)
def test_a_fork_continues_alone(name: str, before: list[int], one: list[int], other: list[int]) -> None:
    tokenizer = TINY[name]
    stream = Detokenizer(tokenizer)
    start = "".join(map(stream.push, before))
    fork = stream.fork()
    left = start + "".join(map(stream.push, one)) + stream.finish()
    right = start + "".join(map(fork.push, other)) + fork.finish()
    assert left == tokenizer.decode(before + one)
    assert right == tokenizer.decode(before + other)


def test_an_unfinished_character_becomes_one_replacement() -> None:
    tokenizer = TINY["byte level"]
    halves = tokenizer.encode("😀", add_special=False)
    stream = Detokenizer(tokenizer)
    assert [stream.push(token_id) for token_id in halves[:3]] == ["", "", ""]
    assert stream.finish() == "\ufffd" == tokenizer.decode(halves[:3])


def test_a_hidden_token_inside_a_character_changes_nothing() -> None:
    tokenizer = TINY["byte level"]
    first, *rest = tokenizer.encode("é", add_special=False)
    stream = Detokenizer(tokenizer)
    assert stream.push(first) + stream.push(0) + "".join(map(stream.push, rest)) == "é"
