"""The race: two settings on the same prompt at the same time, side by side."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from time import monotonic

from nicegui import ui

from .chat import REFRESH_SECONDS
from .controls import control_row, show_text
from .talk import Controls, Progress, Visitor, talk

_STARTING = "Explain recursion in one paragraph."


class Lane:
    """One of the two sides."""

    def __init__(self, name: str, controls: Controls) -> None:
        self._controls = controls
        with ui.card().classes("flex-1 min-w-80"):
            ui.label(name).classes("text-lg")
            control_row(controls, f"race-{name}")
            ui.separator()
            self._text = show_text(f"race-{name}-answer")
            self._figures = ui.label("").classes("text-xs opacity-60").mark(f"race-{name}-figures")

    async def run(self, visitor: Visitor, prompt: str) -> Progress:
        progress = Progress()
        self._text.text, self._figures.text = "", "waiting"
        drawn = 0.0
        async with aclosing(talk(visitor, [("user", prompt)], self._controls)) as states:
            async for progress in states:
                if monotonic() - drawn > REFRESH_SECONDS:
                    self._show(progress)
                    drawn = monotonic()
        self._show(progress)
        return progress

    def _show(self, progress: Progress) -> None:
        self._text.text, self._figures.text = progress.text, progress.line


class Race:
    """Both lanes start in the same step of the engine and share its batch."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._task: asyncio.Task[None] | None = None

    def build(self) -> None:
        with ui.column().classes("w-full gap-2"):
            with ui.row().classes("w-full items-center no-wrap"):
                self._prompt = ui.input("prompt", value=_STARTING).classes("grow").mark("race-prompt")
                ui.button("race", icon="flag", on_click=self._start).mark("race-start")
            self._verdict = ui.label("").classes("text-sm").mark("race-verdict")
            with ui.row().classes("w-full items-stretch"):
                self._lanes = [
                    Lane("A", Controls(temperature=0.0, seed=1)),
                    Lane("B", Controls(temperature=1.0, seed=1)),
                ]

    def _start(self) -> None:
        if self._task is None and (self._prompt.value or "").strip():
            self._verdict.text = ""
            self._task = asyncio.create_task(self._run(self._prompt.value))

    async def _run(self, prompt: str) -> None:
        try:
            results = await asyncio.gather(*(lane.run(self._visitor, prompt) for lane in self._lanes))
            self._verdict.text = _verdict(*results)
        finally:
            self._task = None

    def close(self) -> None:
        """The visitor left: end what still runs for them."""
        if self._task is not None:
            self._task.cancel()


def _verdict(a: Progress, b: Progress) -> str:
    if a.error or b.error:
        return "no race: one side failed"
    same = "the same text" if a.text == b.text else "different texts"
    first, (sooner, later) = "A" if a.elapsed <= b.elapsed else "B", sorted((a.elapsed, b.elapsed))
    return f"{first} ended first, after {sooner:.2f} s; the other took {later:.2f} s; {same}"
