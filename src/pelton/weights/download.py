"""Downloads one URL to one file: resumes after a cut, checks the sha256, watches the disk."""

from __future__ import annotations

import base64
import http.client
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

from ..errors import StoreError
from .disk import CHUNK_BYTES, disk_errors, file_sha256, require_space, write_all
from .transport import Progress, Transport

_Result = TypeVar("_Result")
_SCHEMES = frozenset({"https", "http", "file"})
_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_PASSING = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError)
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-\d{1,19}/(\d{1,19})")
# A connection that moves less than this between two cuts is counted as one that fails.
_WORTHWHILE_BYTES = 1 << 20


class UnreachableError(StoreError):
    """The server could not be reached, refused, or has no such page; another way may work."""


class _WrongRangeError(Exception):
    """The server answered a resumed request with another part of the file."""


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise UnreachableError(
                "redirects from https to an unprotected address", subject=shown_url(newurl)
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(transport: Transport, url: str, headers: Mapping[str, str]) -> AbstractContextManager[Any]:
    """The response to a GET. User and password in the URL become a header for that host only."""
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES:
        raise UnreachableError("has an address that is not http, https or file", subject=shown_url(url))
    user, at, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(urlunsplit(parts._replace(netloc=host)))
    request.add_header("User-Agent", "pelton")
    request.add_header("Accept-Encoding", "identity")
    for name, value in headers.items():
        if name.lower() == "authorization":
            request.add_unredirected_header(name, value)
        else:
            request.add_header(name, value)
    if at:
        request.add_unredirected_header("Authorization", _basic_authorization(user))
    response: AbstractContextManager[Any] = _opener(transport).open(
        request, timeout=transport.timeout_seconds
    )
    return response


def _opener(transport: Transport) -> urllib.request.OpenerDirector:
    try:
        context = ssl.create_default_context(cafile=transport.certificate)
    except OSError as error:
        raise StoreError("is not a readable certificate file", subject=transport.certificate) from error
    proxies = {"http": transport.proxy, "https": transport.proxy} if transport.proxy else None
    return urllib.request.build_opener(
        urllib.request.ProxyHandler(proxies), urllib.request.HTTPSHandler(context=context), _NoDowngrade()
    )


def _basic_authorization(user_and_password: str) -> str:
    return "Basic " + base64.b64encode(unquote(user_and_password).encode()).decode()


def shown_url(url: str) -> str:
    """The URL without user, password and query, fit for messages and logs."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def read_page(url: str, transport: Transport, *, limit: int, headers: Mapping[str, str]) -> tuple[bytes, str]:
    """A small resource's bytes and its final URL. Raises StoreError past `limit` bytes."""

    def attempt() -> tuple[bytes, str]:
        with _open(transport, url, headers) as response:
            body: bytes = response.read(limit + 1)
            return body, response.geturl()

    # A page is small and often one of several that would do: one more try, then the next.
    brief = replace(transport, attempts=min(2, transport.attempts))
    body, final = _retrying(attempt, url, brief, progressed=lambda: 0)
    if len(body) > limit:
        raise StoreError(f"is larger than {limit} bytes", subject=shown_url(url))
    return body, final


def download(
    url: str,
    part: Path,
    transport: Transport,
    *,
    sha256: str | None,
    size: int | None = None,
    headers: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> str:
    """Downloads `url` to `part` and returns its sha256; a complete `part` is taken as it is.

    Resumes from what `part` holds only if `sha256` is given: the checksum alone can tell that
    the two halves belong together. Raises UnreachableError (`part` is kept for later), or
    StoreError for a wrong size or checksum or a full disk (`part` is removed).
    """
    resumable = sha256 is not None
    if not resumable:
        part.unlink(missing_ok=True)
    resumed = _size(part) > 0

    def attempt() -> None:
        start = _size(part) if resumable else 0
        if size is None or start != size:
            _transfer(url, part, transport, start, size, headers or {}, progress)

    _retrying(attempt, url, transport, progressed=lambda: _size(part) if resumable else 0)
    digest = file_sha256(part)
    if sha256 is None or digest == sha256:
        return digest
    part.unlink()
    if resumed:  # What lay there before may be at fault: once more, from nothing.
        return download(url, part, transport, sha256=sha256, size=size, headers=headers, progress=progress)
    raise StoreError(f"the download's sha256 is {digest}, not {sha256}; removed", subject=shown_url(url))


def _retrying(
    attempt: Callable[[], _Result], url: str, transport: Transport, *, progressed: Callable[[], int]
) -> _Result:
    failures, reached = 0, progressed()
    while True:
        try:
            return attempt()
        except _WrongRangeError as error:
            reason: Exception = error
        except urllib.error.HTTPError as error:
            error.close()
            if error.code not in _PASSING_STATUS:
                raise UnreachableError(
                    f"the server answers {error.code} {error.reason}", subject=shown_url(url)
                ) from error
            reason = error
        except _PASSING as error:
            reason = error
            if _is_final(error):
                raise _unreachable(url, error) from error
        if progressed() >= reached + _WORTHWHILE_BYTES:
            failures, reached = 0, progressed()
        failures += 1
        if failures >= transport.attempts:
            raise _unreachable(url, reason) from reason
        time.sleep(transport.pause_seconds * 2 ** (failures - 1))


def _is_final(error: Exception) -> bool:
    """Whether trying again cannot help: no such host or file, or an untrusted certificate."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    return isinstance(cause, (ssl.SSLCertVerificationError, socket.gaierror, FileNotFoundError, str))


def _unreachable(url: str, error: Exception) -> UnreachableError:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    return UnreachableError(f"cannot be downloaded: {cause or type(cause).__name__}", subject=shown_url(url))


def _transfer(
    url: str,
    part: Path,
    transport: Transport,
    start: int,
    size: int | None,
    headers: Mapping[str, str],
    progress: Progress | None,
) -> None:
    """One request, from byte `start` on if the server can; raises if the body ends too early."""
    wanted = dict(headers) | ({"Range": f"bytes={start}-"} if start else {})
    with _open_range(transport, url, wanted, part) as response:
        start, total = _range(response, start, part)
        if size is not None and total is not None and total != size:
            part.unlink(missing_ok=True)
            raise StoreError(f"the server offers {total} bytes, {size} are expected", subject=shown_url(url))
        total = size if total is None else total
        require_space(part.parent, (total or start) - start)
        done = _copy(response, part, start, total, progress)
    if total is not None and done < total:
        raise ConnectionError(f"the connection ended after {done} of {total} bytes")


def _open_range(
    transport: Transport, url: str, headers: Mapping[str, str], part: Path
) -> AbstractContextManager[Any]:
    try:
        return _open(transport, url, headers)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink(missing_ok=True)
            raise _WrongRangeError("the server has no such part of the file") from error
        raise


def _range(response: Any, start: int, part: Path) -> tuple[int, int | None]:
    """Where the body begins and how long the whole file is; 0 where the server knows no ranges."""
    if start and response.status == http.HTTPStatus.PARTIAL_CONTENT:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != start:
            part.unlink(missing_ok=True)
            raise _WrongRangeError("the server sent another part of the file")
        return start, int(match[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if re.fullmatch(r"\d{1,19}", length) else None


def _copy(response: Any, part: Path, start: int, total: int | None, progress: Progress | None) -> int:
    done = start
    with disk_errors(part):
        out = part.open("ab" if start else "wb", buffering=0)
    with out:
        if progress:
            progress(done, total)
        while chunk := response.read(CHUNK_BYTES):
            if total is not None and done + len(chunk) > total:
                chunk = chunk[: total - done]
            with disk_errors(part, remove=True):
                write_all(out, chunk)
            done += len(chunk)
            if progress:
                progress(done, total)
            if done == total:
                break
    return done


def _size(path: Path) -> int:
    with disk_errors(path):
        return path.stat().st_size if path.exists() else 0
