"""Who has the page open: how many may, and who gives way when there are as many."""

from __future__ import annotations

from time import time

from nicegui import Client

MOST_VISITORS = 100
"""An open page takes about 0.4 MB here, and 20 ms of everybody's time to build."""
OPENING_SECONDS = 10.0
"""How long a browser may take to load the page before another is let in instead of it."""


class Visitors:
    """The pages that were given out and are not closed. Whoever opens none but only asks for its text, as a
    program does, has one too until NiceGUI forgets it after a minute."""

    def __init__(self, most: int = MOST_VISITORS, opening_seconds: float = OPENING_SECONDS) -> None:
        self._most = most
        self._opening_seconds = opening_seconds
        self._here: dict[Client, bool] = {}  # in the order they came: whether a browser has opened it

    def __len__(self) -> int:
        return len(self._here)

    def let_in(self, client: Client) -> bool:
        """Count another page, if need be instead of the oldest that no browser has opened in time.

        False where there is none such.
        """
        if len(self._here) >= self._most:
            oldest = next((other for other, is_open in self._here.items() if not is_open), None)
            if oldest is None or time() - oldest.created < self._opening_seconds:
                return False
            oldest.delete()
        self._here[client] = False
        client.on_connect(self._opened)
        client.on_delete(self._left)
        return True

    def _opened(self, client: Client) -> None:
        if client in self._here:
            self._here[client] = True

    def _left(self, client: Client) -> None:
        self._here.pop(client, None)
