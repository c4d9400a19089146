"""The chat: one conversation, streamed, that can be stopped and begun anew."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from time import monotonic

from nicegui import ui

from .controls import control_row, show_text
from .talk import Controls, Progress, Visitor, talk

REFRESH_SECONDS = 0.05
"""A browser gains nothing from more than 20 updates a second, and each costs the server time."""


class Conversation:
    """One visitor's conversation; gone when the page is closed."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._controls = Controls()
        self._messages: list[tuple[str, str]] = []
        self._task: asyncio.Task[None] | None = None

    def build(self) -> None:
        with ui.column().classes("w-full max-w-3xl mx-auto gap-2"):
            control_row(self._controls, "chat")
            self._column = ui.column().classes("w-full gap-3 min-h-64").mark("conversation")
            with ui.row().classes("w-full items-end no-wrap"):
                self._input = ui.textarea(placeholder="Ask something").props("autogrow outlined dense")
                self._input.classes("grow").mark("question")
                self._input.on("keydown.enter.exact.prevent", self._send)
                self._button = ui.button(icon="send", on_click=self._send_or_stop).props("aria-label=send")
                clear = ui.button(icon="delete", on_click=self._clear).tooltip("Begin anew")
                clear.props('flat aria-label="begin anew"')

    async def _send_or_stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        else:
            self._send()

    def _send(self) -> None:
        question = (self._input.value or "").strip()
        if not question or self._task is not None:
            return
        self._input.value = ""
        self._messages.append(("user", question))
        with self._column:
            ui.chat_message(question, name="you", sent=True).classes("self-end")
        self._task = asyncio.create_task(self._answer())
        self._button.props("icon=stop aria-label=stop")

    async def _answer(self) -> None:
        with self._column, ui.column().classes("gap-0 w-full"):
            shown = show_text("answer")
            figures = ui.label("waiting").classes("text-xs opacity-60").mark("figures")
        progress, messages = Progress(), self._messages
        try:
            drawn = 0.0
            async with aclosing(talk(self._visitor, messages, self._controls)) as states:
                async for progress in states:
                    if monotonic() - drawn > REFRESH_SECONDS:
                        shown.text, figures.text = progress.text, progress.line
                        drawn = monotonic()
        finally:
            self._task = None
            if progress.text or progress.finish_reason:
                messages.append(("assistant", progress.text))
            else:
                messages.pop()  # or a question that could not be answered would spoil all that follow
            if not shown.is_deleted:  # the visitor may have begun anew, or left
                shown.text = progress.text
                figures.text = progress.line if progress.finish_reason or progress.error else "stopped"
            if not self._button.is_deleted:
                self._button.props("icon=send aria-label=send")

    def _clear(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._messages = []  # an answer that is ended now adds to the old one
        self._column.clear()

    def close(self) -> None:
        """The visitor left: end what still runs for them."""
        if self._task is not None:
            self._task.cancel()
