"""Puts the page into the server's application."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import RedirectResponse, Response
from nicegui import Client, ui

from ..answers.generation import Service
from ..http.failures import error_response
from ..seeing.record import record_of
from .chat import Conversation
from .live import Live
from .race import Race
from .talk import PATH, Visitor
from .visitors import Visitors


def add_page(app: FastAPI, service: Service) -> None:
    """Serve the page at /ui/ and send `/` there. Once a process: NiceGUI's application is one of a kind."""
    visitors = Visitors()

    @app.get("/", include_in_schema=False)
    async def home() -> Response:
        return RedirectResponse(f"{PATH}/")

    def root() -> Response | None:
        client = ui.context.client
        if not visitors.let_in(client):
            client.delete()
            message = (
                f"{len(visitors)} people have the page open, which is all it takes; the API is not concerned"
            )
            return error_response(503, message, headers={"Retry-After": "10"})
        _build(Visitor(service, record_of(client.request.scope).tenant))
        return None

    ui.run_with(
        app,
        root=root,
        title=f"pelton: {service.settings.served_model_name}",
        mount_path=PATH,
        dark=None,
        show_welcome_message=False,
        reconnect_timeout=10.0,
    )


def _build(visitor: Visitor) -> None:
    service = visitor.service
    chat, race, live = Conversation(visitor), Race(visitor), Live(service)
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
