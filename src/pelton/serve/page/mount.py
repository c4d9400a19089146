"""Puts the page into the server's application."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import RedirectResponse, Response
from nicegui import Client, ui

from ..answers.generation import Service
from .chat import Conversation
from .live import Live
from .race import Race

PATH = "/ui"


def add_page(app: FastAPI, service: Service) -> None:
    """Serve the page at /ui/ and send `/` there. Once a process: NiceGUI's application is one of a kind."""

    @app.get("/", include_in_schema=False)
    async def home() -> Response:
        return RedirectResponse(f"{PATH}/")

    def root() -> None:
        _build(service)

    ui.run_with(
        app,
        root=root,
        title=f"pelton: {service.settings.served_model_name}",
        mount_path=PATH,
        dark=None,
        show_welcome_message=False,
        reconnect_timeout=10.0,
    )


def _build(service: Service) -> None:
    chat, race, live = Conversation(service), Race(service), Live(service)
    with ui.header().classes("items-center"):
        ui.label("pelton").classes("text-xl font-bold")
        ui.label(service.settings.served_model_name).classes("opacity-80").mark("model")
        with ui.tabs() as tabs:
            places = {name: ui.tab(name).mark(f"tab-{name}") for name in ("chat", "race", "live")}
    with ui.tab_panels(tabs, value=places["chat"]).classes("w-full"):
        for name, part in (("chat", chat), ("race", race), ("live", live)):
            with ui.tab_panel(places[name]):
                part.build()

    def leave(client: Client) -> None:
        chat.close()
        race.close()

    ui.context.client.on_delete(leave)
