"""Chat templates: the same text as Hugging Face's renderer, and the same ids with the real tokenizer."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from pelton.errors import RequestError, TemplateError
from pelton.text import ChatTemplate, Tokenizer, tokenizer_of
from pelton.weights.gguf import open_gguf

FOLDER = Path(__file__).parent / "golden"
CASES = json.loads((FOLDER / "cases.json").read_text())
GOLDEN = json.loads((FOLDER / "chats.json").read_text())
USER = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="session")
def real(real_model_path: Path) -> tuple[Tokenizer, ChatTemplate]:
    tokenizer, template = tokenizer_of(open_gguf(real_model_path).metadata, subject=real_model_path.name)
    assert tokenizer is not None
    assert isinstance(template, ChatTemplate)
    return tokenizer, template


@pytest.mark.parametrize("index", range(len(CASES["templates"])))
def test_templates_render_as_hugging_face_renders_them(index: int) -> None:
    case = CASES["templates"][index]
    options: dict[str, Any] = dict(case["options"])
    tools, prompt = options.pop("tools", None), options.pop("add_generation_prompt", False)
    template = ChatTemplate(case["template"])
    text = template.render(case["messages"], add_generation_prompt=prompt, tools=tools, options=options)
    assert text == GOLDEN["templates"][index]


def test_the_real_template_gives_hugging_faces_text_and_ids(real: tuple[Tokenizer, ChatTemplate]) -> None:
    tokenizer, template = real
    rows = iter(GOLDEN["chats"])
    for chat in CASES["chats"]:
        for prompt in (True, False):
            row = next(rows)
            assert template.render(chat, add_generation_prompt=prompt) == row["text"]
            assert template.encode(tokenizer, chat, add_generation_prompt=prompt) == row["ids"]


def test_a_final_message_is_continued_as_hugging_face_does(real: tuple[Tokenizer, ChatTemplate]) -> None:
    tokenizer, template = real
    chats = [chat for chat in CASES["chats"] if chat[-1]["content"].strip()]
    for chat, text in zip(chats, GOLDEN["continued"], strict=True):
        assert template.render(chat, add_generation_prompt=False, continue_final_message=True) == text
        ids = template.encode(tokenizer, chat, add_generation_prompt=False, continue_final_message=True)
        assert ids == tokenizer.encode(text, add_special=False, parse_special=True)


def test_options_are_the_templates_own_names() -> None:
    template = ChatTemplate("{{ messages[0].content }}{{ '!' if loud }}{{ bos_token }}", bos_token="<s>")
    assert template.options == {"loud"}
    assert template.render(USER, options={"loud": True}) == "hi!<s>"
    with pytest.raises(RequestError, match=r"options = 'lowd'.*it has: loud"):
        template.render(USER, options={"lowd": True})


def test_parts_are_joined_for_templates_that_expect_text() -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
    assert ChatTemplate("{{ messages[0]['content'] + '!' }}").render(parts) == "a\nb!"
    takes = "{% if messages[0].content is not string %}{{ messages[0].content | length }}{% endif %}"
    assert ChatTemplate(takes).render(parts) == "2"


def test_the_clock_is_the_callers() -> None:
    template = ChatTemplate("{{ strftime_now('%d %b %Y') }}", now=lambda: datetime(2024, 7, 26))
    assert template.render(USER) == "26 Jul 2024"


def test_a_template_may_refuse_a_chat() -> None:
    template = ChatTemplate("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(TemplateError, match="roles must alternate"):
        template.render(USER)


def test_a_missing_template_names_the_way_out() -> None:
    with pytest.raises(TemplateError, match="chat_template"):
        ChatTemplate(None)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% for %}", "line 1"),
        ("{{ 'a' | no_such_filter }}", "no_such_filter"),
        ("{% include 'x' %}", "include"),
        ("{% extends 'x' %}", "extends"),
        ("x" * (300 << 10), "length = 307200"),
    ],
)
def test_templates_that_cannot_be(source: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        ChatTemplate(source, subject="m.gguf")


def test_continuing_and_answering_exclude_each_other() -> None:
    template = ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}")
    with pytest.raises(RequestError, match="continue_final_message"):
        template.render(USER, add_generation_prompt=True, continue_final_message=True)
    with pytest.raises(TemplateError, match="leaves out"):
        ChatTemplate("x").render(USER, add_generation_prompt=False, continue_final_message=True)


def test_two_threads_do_not_share_a_budget() -> None:
    from concurrent.futures import ThreadPoolExecutor

    template = ChatTemplate("{% for m in messages %}{{ m.content * 3 }}{% endfor %}")
    chats = [[{"role": "user", "content": str(n) * 1000}] for n in range(40)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(template.render, chats)) == [str(n) * 3000 for n in range(40)]
