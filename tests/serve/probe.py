"""Ask a server for /health all the time, from a process of its own, which nothing else in the test delays."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from select import select
from time import monotonic
from urllib.parse import urlsplit

from .serving import PATIENCE

PAUSE_SECONDS = 0.05


@contextmanager
def probing(url: str) -> Iterator[list[float]]:
    """Seconds that each answer took; filled when the context ends."""
    took: list[float] = []
    process = subprocess.Popen(
        [sys.executable, "-c", f"from {__name__} import probe; probe({url!r})"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield took
    finally:
        out, _ = process.communicate()
    assert process.returncode == 0
    took += json.loads(out)


def probe(url: str) -> None:
    """Until stdin closes; then print what was found."""
    where = urlsplit(url)
    assert where.hostname is not None
    took: list[float] = []
    while not select([sys.stdin], [], [], PAUSE_SECONDS)[0]:
        began = monotonic()
        connection = http.client.HTTPConnection(where.hostname, where.port, timeout=PATIENCE)
        connection.request("GET", "/health")
        assert connection.getresponse().status == 200
        took.append(monotonic() - began)
        connection.close()
    print(json.dumps(took))


def p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]
