"""pelton as a worker that guesses no tokens: what its passes alone are worth."""

from __future__ import annotations

from pelton_worker import Pelton
from protocol import serve


class PlainPelton(Pelton):
    drafts = "off"


if __name__ == "__main__":
    serve(PlainPelton)
