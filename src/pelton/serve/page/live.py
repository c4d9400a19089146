"""Live plots: tokens a second, time to first token, queue, what the batches hold, who has which KV block."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from nicegui import ui

from ...errors import PeltonError
from ..answers.generation import Service
from ..seeing.view import CACHED, FREE, PRIVATE, SHARED, EngineLoad, EngineView

SECONDS = 120
COLUMNS = 64
_MOST_CELLS = 64 * COLUMNS
_KINDS = {
    FREE: ("free", "#e2e8f0"),
    PRIVATE: ("private", "#2b6cb0"),
    SHARED: ("shared", "#d69e2e"),
    CACHED: ("cached", "#68d391"),
}
_QUIET: dict[str, Any] = {"animation": False, "grid": {"left": 50, "right": 15, "top": 40, "bottom": 25}}


@dataclass
class History:
    """The last two minutes, one value a second."""

    tokens: deque[float] = field(default_factory=lambda: deque([0.0] * SECONDS, maxlen=SECONDS))
    running: deque[int] = field(default_factory=lambda: deque([0] * SECONDS, maxlen=SECONDS))
    waiting: deque[int] = field(default_factory=lambda: deque([0] * SECONDS, maxlen=SECONDS))
    first_token: deque[float | None] = field(default_factory=lambda: deque([None] * SECONDS, maxlen=SECONDS))

    def add(self, tokens: float, load: EngineLoad, first_token: float | None) -> None:
        self.tokens.append(tokens)
        self.running.append(load.running)
        self.waiting.append(load.waiting)
        self.first_token.append(first_token)


class Live:
    """The plots of one open page; they are drawn anew each second while it is open."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._history = History()

    def build(self) -> None:
        with ui.row().classes("w-full gap-4"):
            self._speed = _chart("tokens a second", "plot-speed")
            self._first = _chart("time to first token, ms (median of 10 s)", "plot-ttft")
            self._queue = _chart("sequences running and waiting", "plot-queue")
            self._steps = _chart("rows of the last steps", "plot-steps")
        self._facts = ui.label("").classes("text-sm").mark("kv-facts")
        self._map = ui.echart(_map_options([])).classes("w-full").mark("plot-kv")
        ui.timer(1.0, self._draw)

    async def _draw(self) -> None:
        service = self._service
        try:
            load, view = service.client.load(), await service.client.view()
        except PeltonError as error:
            self._facts.text = str(error)
            return
        recent = service.metrics.recent
        waits = recent.wait_quantiles((0.5,), seconds=10.0)
        self._history.add(recent.tokens_per_second[-1], load, waits[0] * 1e3 if waits else None)
        self._draw_lines()
        self._draw_steps(view)
        self._draw_map(load, view)

    def _draw_lines(self) -> None:
        history = self._history
        _show(self._speed, _line("tokens/s", history.tokens, "#2b6cb0"))
        _show(self._first, _line("ms", history.first_token, "#805ad5"))
        _show(
            self._queue,
            _line("running", history.running, "#2f855a"),
            _line("waiting", history.waiting, "#c53030"),
        )

    def _draw_steps(self, view: EngineView) -> None:
        kinds = (("prompts", "#d69e2e"), ("next tokens", "#2b6cb0"), ("drafts", "#68d391"))
        series = [
            {
                "type": "bar", "stack": "rows", "name": name, "itemStyle": {"color": colour},
                "data": [step[place] for step in view.steps],
            }
            for place, (name, colour) in enumerate(kinds)
        ]  # fmt: skip
        self._steps.options["xAxis"]["data"] = list(range(len(view.steps)))
        _show(self._steps, *series)

    def _draw_map(self, load: EngineLoad, view: EngineView) -> None:
        used = load.kv_blocks - load.kv_free
        self._facts.text = (
            f"KV memory: {used} of {load.kv_blocks} blocks in use ({load.kv_usage:.0%}); "
            + ", ".join(f"{_count(view, kind)} {name}" for kind, (name, _) in _KINDS.items())
        )
        self._map.options["series"] = _cells(view)
        self._map.style(f"height: {70 + 16 * _rows(view)}px")
        self._map.update()


def _count(view: EngineView, kind: str) -> int:
    return sum(length for name, length in view.blocks if name == kind)


def _chart(title: str, marker: str) -> ui.echart:
    options = {
        **_QUIET,
        "title": {"left": 0, "top": 0, "text": title, "textStyle": {"fontSize": 13, "fontWeight": "normal"}},
        "xAxis": {"type": "category", "data": list(range(-SECONDS, 0)), "axisLabel": {"show": False}},
        "yAxis": {"type": "value", "min": 0},
        "tooltip": {"trigger": "axis"},
        "legend": {"top": 0, "right": 10, "icon": "rect", "itemWidth": 10, "itemHeight": 10},
        "series": [],
    }
    return ui.echart(options).classes("h-56 flex-1 min-w-96").mark(marker)


def _line(name: str, values: deque[Any], colour: str) -> dict[str, Any]:
    return {
        "type": "line", "name": name, "data": list(values), "showSymbol": False,
        "lineStyle": {"width": 2}, "itemStyle": {"color": colour}, "areaStyle": {"opacity": 0.1},
    }  # fmt: skip


def _show(chart: ui.echart, *series: dict[str, Any]) -> None:
    chart.options["series"] = list(series)
    chart.update()


def _map_options(series: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        **_QUIET,
        "title": {
            "left": 0,
            "top": 0,
            "text": "KV blocks",
            "textStyle": {"fontSize": 13, "fontWeight": "normal"},
        },
        "legend": {"top": 0, "right": 10},
        "xAxis": {"type": "category", "data": list(range(COLUMNS)), "show": False},
        "yAxis": {"type": "category", "inverse": True, "show": False},
        "tooltip": {},
        "series": series,
    }


def _rows(view: EngineView) -> int:
    blocks = sum(length for _, length in view.blocks)
    return -(-min(blocks, _MOST_CELLS) // COLUMNS)


def _cells(view: EngineView) -> list[dict[str, Any]]:
    """A square per block, or per as many as keep the map drawable; it shows the busiest kind among them."""
    kinds = [kind for kind, length in view.blocks for _ in range(length)]
    step = -(-len(kinds) // _MOST_CELLS) if kinds else 1
    order = list(_KINDS)
    shown = [max(kinds[at : at + step], key=_busyness) for at in range(0, len(kinds), step)]
    return [
        {
            "type": "scatter", "symbol": "rect", "symbolSize": 13, "animation": False,
            "name": _KINDS[kind][0],
            "itemStyle": {"color": _KINDS[kind][1]},
            "data": [[at % COLUMNS, at // COLUMNS] for at, name in enumerate(shown) if name == kind],
        }
        for kind in order
    ]  # fmt: skip


def _busyness(kind: str) -> int:
    return (FREE, CACHED, PRIVATE, SHARED).index(kind)
