"""The inputs and outputs that the page's parts share."""

from __future__ import annotations

from nicegui import ui

from .talk import Controls


def control_row(controls: Controls, name: str) -> None:
    """Inputs bound to a set of controls, marked NAME-temperature and so on."""
    with ui.row().classes("items-center gap-4"):
        _number("temperature", controls, "temperature", name, low=0, high=2, step=0.1)
        _number("top p", controls, "top_p", name, low=0.05, high=1, step=0.05)
        _number("max tokens", controls, "max_tokens", name, low=1, high=8192, step=64, digits="%d")
        _number("seed", controls, "seed", name, low=0, high=2**31, step=1, digits="%d")


def _number(
    label: str,
    controls: Controls,
    field: str,
    name: str,
    *,
    low: float,
    high: float,
    step: float,
    digits: str = "%.2f",
) -> None:
    box = ui.number(label, min=low, max=high, step=step, format=digits).bind_value(controls, field)
    box.props("dense outlined").classes("w-28").mark(f"{name}-{field}")


def show_text(marker: str) -> ui.label:
    """A place for the model's text: shown as it is, line ends kept, never as markup."""
    return ui.label("").classes("whitespace-pre-wrap break-words").mark(marker)
