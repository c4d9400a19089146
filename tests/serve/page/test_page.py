"""The page in a real Chromium: what a visitor types, clicks and sees. The server runs as a user starts it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE_MS = 30_000
COMMAND = (sys.executable, "-c", "from pelton.cli.main import main; main()", "serve")
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Debian's chromium (the CI script installs it)"
)


@contextmanager
def served(model: Path, *more: str) -> Iterator[str]:
    """The address of a server of its own."""
    arguments = [*COMMAND, str(model), "--port", "0", "-np", "4", "-c", "2048", "--threads", "1", *more]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env={**os.environ}) as process:
        assert process.stderr is not None
        found = None
        for line in process.stderr:
            if found := re.search(r"http://\S+", line):
                break
        assert found is not None
        yield found[0]
        process.terminate()
        assert process.wait(20) == 0


@pytest.fixture(scope="module")
def address(real_model_path: Path) -> Iterator[str]:
    with served(real_model_path) as address:
        yield address


@pytest.fixture(scope="module")
def pages() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(PATIENCE_MS)
        yield page
        browser.close()


@pytest.fixture
def page(pages: Page, address: str) -> Page:
    """The page, freshly opened."""
    expect.set_options(timeout=PATIENCE_MS)
    pages.goto(address)
    expect(pages.get_by_placeholder("Ask something")).to_be_visible()
    return pages


def ask(page: Page, question: str, tokens: str) -> None:
    page.get_by_label("temperature").first.fill("0")
    page.get_by_label("max tokens").first.fill(tokens)
    page.get_by_placeholder("Ask something").fill(question)
    page.keyboard.press("Enter")


def test_nothing_comes_from_elsewhere(page: Page, address: str) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    expect(page.get_by_placeholder("Ask something")).to_be_visible()
    assert asked
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []


def test_a_question_is_answered_and_the_conversation_goes_on(page: Page) -> None:
    ask(page, "What is the capital of France? One sentence.", "12")
    figures = page.get_by_text(re.compile(r"tokens/s .* (stop|length)"))
    expect(figures).to_have_count(1)
    expect(page.get_by_text("Paris")).to_be_visible()
    ask(page, "And of Italy?", "12")
    expect(figures).to_have_count(2)


def test_markup_in_a_question_stays_text(page: Page) -> None:
    ask(page, "<img src=x onerror=document.title='taken'>", "1")
    expect(page.get_by_text("<img src=x")).to_be_visible()
    assert page.title().startswith("pelton")


def test_stop_ends_an_answer(page: Page) -> None:
    ask(page, "Write a long essay about the history of the bicycle.", "1500")
    expect(page.get_by_text(re.compile(r"\d+ tokens · "))).to_be_visible()
    page.get_by_role("button", name="stop").click()
    expect(page.get_by_text("stopped", exact=True)).to_be_visible()


def test_what_cannot_be_served_is_said(page: Page) -> None:
    ask(page, "word " * 2400, "4")
    expect(page.get_by_text("do not fit the context of 2048")).to_be_visible()
    ask(page, "What is the capital of France?", "4")  # is not spoiled by the question before
    expect(page.get_by_text(re.compile(r"tokens/s .* (stop|length)"))).to_be_visible()


def test_a_number_that_was_cleared_is_asked_for(page: Page) -> None:
    page.get_by_label("temperature").first.fill("")
    page.get_by_placeholder("Ask something").fill("Hello")
    page.keyboard.press("Enter")
    expect(page.get_by_text("temperature: needs a number")).to_be_visible()


def test_two_settings_race(page: Page) -> None:
    page.get_by_role("tab", name="race").click()
    for label, value in (("max tokens", "16"), ("temperature", "0")):
        boxes = page.get_by_label(label)
        expect(boxes).to_have_count(2)  # the chat's have gone
        boxes.nth(0).fill(value)
        boxes.nth(1).fill(value)
    page.get_by_role("button", name="race").click()
    expect(page.get_by_text("the same text")).to_be_visible()


def test_the_live_tab_shows_what_the_engine_did(page: Page, address: str) -> None:
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
    assert httpx.post(f"{address}/v1/chat/completions", json=body, timeout=30).status_code == 200
    page.get_by_role("tab", name="live").click()
    expect(page.get_by_text(re.compile(r"KV memory: \d+ of \d+ blocks"))).to_be_visible()
    expect(page.locator("canvas")).to_have_count(5)


def test_with_a_key_the_browser_is_asked_for_it(pages: Page, real_model_path: Path) -> None:
    with served(real_model_path, "--api-key", "secret") as address:
        assert (
            httpx.get(address, headers={"Accept": "text/html"})
            .headers["WWW-Authenticate"]
            .startswith("Basic")
        )
        assert httpx.get(f"{address}/ui/", auth=("me", "wrong")).status_code == 401
        assert pages.context.browser is not None
        context = pages.context.browser.new_context(http_credentials={"username": "me", "password": "secret"})
        page = context.new_page()
        page.goto(address)
        ask(page, "Hello", "4")
        expect(page.get_by_text(re.compile(r"tokens/s .* length"))).to_be_visible(timeout=PATIENCE_MS)
        context.close()
