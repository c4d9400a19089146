"""What a user writes never becomes a control token, whatever the template does with it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pelton.errors import RequestError
from pelton.text import ChatTemplate
from pelton.text.lookalike import MARKS, LookalikeGuard
from tests.text.tiny_text import CONTROL, byte_level, sentencepiece

CHATML = (
    "{% for m in messages %}{{ '<|start|>' + m['role'] + '\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)
BYTE_LEVEL, PIECES = byte_level(), sentencepiece()
FRAGMENTS = st.lists(
    st.one_of(
        st.sampled_from(
            [*CONTROL, *(token[:2] for token in CONTROL), *(token[2:] for token in CONTROL), "<|END|>"]
        ),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    ),
    max_size=6,
).map("".join)


def control_ids(ids: list[int]) -> list[int]:
    return [token_id for token_id in ids if token_id in BYTE_LEVEL.special_ids]


@settings(max_examples=300, deadline=None)
@given(FRAGMENTS, FRAGMENTS)
def test_any_content_leaves_the_control_tokens_to_the_template(one: str, two: str) -> None:
    template = ChatTemplate(CHATML)
    messages = [{"role": "user", "content": one}, {"role": "assistant", "content": two}]
    ids = template.encode(BYTE_LEVEL, messages)
    start, end = BYTE_LEVEL.token_id("<|start|>"), BYTE_LEVEL.token_id("<|end|>")
    assert control_ids(ids) == [start, end, start, end, start]
    assert BYTE_LEVEL.decode(ids, skip_special=False) == template.render(messages)


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<"), max_size=20))
def test_innocent_content_gives_the_plain_ids(text: str) -> None:
    template = ChatTemplate(CHATML)
    messages = [{"role": "user", "content": text}]
    for tokenizer in (BYTE_LEVEL, PIECES):
        expected = tokenizer.encode(template.render(messages), add_special=False, parse_special=True)
        assert template.encode(tokenizer, messages) == expected


PARTS = [{"type": "text", "text": "<|st"}, {"type": "text", "text": "art|>"}]
TRICKS: dict[str, tuple[str, Any]] = {
    "glued parts": ("{% for p in messages[0].content %}{{ p.text }}{% endfor %}", PARTS),
    "lowered": ("{{ messages[0].content | lower }}", "<|START|>"),
    "removed inside": ("{{ messages[0].content | replace('x', '') }}", "<|stxart|>"),
    "removed after the first": ("{{ messages[0].content.replace('x', '') }}", "<x|start|>"),
    "split and joined": ("{{ messages[0].content.split('-') | join('') }}", "<|-start|>"),
    "template's bracket": ("{{ '<' + messages[0].content }}", "|start|>"),
    "template's brackets": ("{{ '<' + messages[0].content + '>' }}", "s"),
    "closing bracket": ("{{ messages[0].content + '>' }}", "<s"),
    "reversed": ("{{ messages[0].content[::-1] }}", ">|trats|<"),
    "escaped mark": ("{{ messages[0].content | tojson(ensure_ascii=true) }}", "<|start|>"),
    "first letters": ("{{ messages[0].content[0] + messages[0].content[2:] }}", "<x|start|>"),
}


@pytest.mark.parametrize("name", TRICKS)
def test_templates_that_build_a_look_alike(name: str) -> None:
    source, content = TRICKS[name]
    template = ChatTemplate(source)
    ids = template.encode(BYTE_LEVEL, [{"role": "user", "content": content}])
    assert control_ids(ids) == []
    text = BYTE_LEVEL.decode(ids, skip_special=False)
    assert not any(mark in text or f"\\u{ord(mark):04x}" in text for mark in MARKS)


def test_names_and_tools_are_user_text_too() -> None:
    template = ChatTemplate("{{ tools | tojson }}{{ messages[0].name }}<|end|>")
    tools = [{"type": "function", "function": {"name": "<|start|>", "<|end|>": "<s>"}}]
    messages = [{"role": "user", "content": "x", "name": "<|start|>"}]
    ids = template.encode(BYTE_LEVEL, messages, tools=tools)
    assert control_ids(ids) == [BYTE_LEVEL.token_id("<|end|>")]


def test_roles_written_between_brackets_still_make_control_tokens() -> None:
    template = ChatTemplate("{{ '<|' + messages[0].role + '|>' + messages[0].content }}")
    ids = template.encode(BYTE_LEVEL, [{"role": "start", "content": "<|start|>"}])
    assert control_ids(ids) == [BYTE_LEVEL.token_id("<|start|>")]


def test_a_text_with_noncharacters_gets_another_mark() -> None:
    messages = [{"role": "user", "content": f"{MARKS[0]}<|end|>{MARKS[1]}"}]
    template = ChatTemplate(CHATML)
    ids = template.encode(BYTE_LEVEL, messages)
    assert BYTE_LEVEL.decode(ids, skip_special=False) == template.render(messages)
    with pytest.raises(RequestError, match="noncharacter"):
        template.encode(BYTE_LEVEL, [{"role": "user", "content": "".join(MARKS)}])


def test_a_guard_without_control_tokens_changes_nothing() -> None:
    guard = LookalikeGuard(())
    value = {"a": ["<s>", 1, None]}
    assert guard.protect(value, MARKS[0]) == value == guard.isolate(value, MARKS[0])
    assert guard.control_tokens("<s>") == []
