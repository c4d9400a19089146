"""Finds a wheel's address and sha256 on a package index (PEP 503 HTML, PEP 691 JSON).

Pages are untrusted: bounded in size, read for links only, and a link may not lead from the
network to a local file nor from https to http.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit
from urllib.request import url2pathname

from ..errors import StoreError
from .download import UnreachableError, read_page, shown_url
from .pip_settings import PackageIndex
from .sources import normalized_project
from .transport import Transport

# The public index' largest project pages are some tens of megabytes.
MAX_PAGE_BYTES = 64 << 20
_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class WheelLink:
    """Where a wheel can be downloaded; `sha256` is the index' own claim, None where it makes none."""

    url: str
    filename: str
    sha256: str | None


def find_wheel(
    project: str, version: str, sha256: str | None, index: PackageIndex, transport: Transport
) -> WheelLink:
    """The first wheel of `project` at `version`, pure-Python ones first within a page.

    With `sha256`, a link that claims another checksum is passed over. Raises UnreachableError
    that names every place asked and what came of it.
    """
    trials = []
    for place in _places(project, index):
        try:
            if not _is_allowed(place, place, index, pinned=sha256 is not None):
                raise UnreachableError("is plain http and not a trusted host", subject=shown_url(place))
            links = list(_links(place, transport))
        except StoreError as error:
            trials.append(str(error))
            continue
        fits = [
            link
            for link in links
            if _is_wheel_of(link.filename, project, version)
            and (sha256 is None or link.sha256 in (None, sha256))
            and _is_allowed(link.url, place, index, pinned=sha256 is not None)
        ]
        if fits:
            return min(fits, key=lambda link: not link.filename.endswith("-none-any.whl"))
        trials.append(f"{shown_url(place)}: {len(links)} files, no such wheel")
    asked = "; ".join(trials) or "no index is configured"
    raise UnreachableError(f"no wheel found: {asked}", subject=f"{project}=={version}")


def _places(project: str, index: PackageIndex) -> Iterator[str]:
    for place in index.find_links:
        yield (
            place if urlsplit(place).scheme in ("http", "https", "file") else Path(place).absolute().as_uri()
        )
    for url in index.index_urls:
        page = f"{url.rstrip('/')}/{normalized_project(project)}/"
        yield page + "index.html" if urlsplit(url).scheme == "file" else page


def _links(place: str, transport: Transport) -> Iterator[WheelLink]:
    if urlsplit(place).scheme == "file":
        folder = Path(url2pathname(urlsplit(place).path))
        if folder.is_dir():
            for path in sorted(folder.glob("*.whl")):
                yield WheelLink(path.as_uri(), path.name, None)
            return
    body, final = read_page(place, transport, limit=MAX_PAGE_BYTES, headers={"Accept": _ACCEPT})
    base = _with_user(final, place)
    # By content, not by Content-Type: mirrors are known to label one as the other.
    if body.lstrip()[:1] == b"{":
        yield from _json_links(body, base)
    else:
        page = _LinkPage()
        page.feed(body.decode("utf-8", "replace"))
        yield from (_link(urljoin(base, target)) for target in page.targets)


def _with_user(final: str, asked: str) -> str:
    """`final` with the user and password of `asked`, if it is the same server."""
    user, at, host = urlsplit(asked).netloc.rpartition("@")
    parts = urlsplit(final)
    same = at and parts.netloc == host and parts.scheme == urlsplit(asked).scheme
    return parts._replace(netloc=f"{user}@{host}").geturl() if same else final


def _link(url: str) -> WheelLink:
    address, fragment = urldefrag(url)
    claim = fragment.removeprefix("sha256=")
    name = unquote(urlsplit(address).path.rpartition("/")[2])
    return WheelLink(address, name, claim if _SHA256.fullmatch(claim) else None)


def _json_links(body: bytes, base: str) -> Iterator[WheelLink]:
    try:
        files = json.loads(body)["files"]
        for file in files:
            claim = str(file["hashes"].get("sha256", ""))
            address = urldefrag(urljoin(base, str(file["url"])))[0]
            yield WheelLink(address, str(file["filename"]), claim if _SHA256.fullmatch(claim) else None)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UnreachableError("is not an index page", subject=shown_url(base)) from error


class _LinkPage(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.targets += [value for name, value in attrs if name == "href" and value]


def _is_wheel_of(filename: str, project: str, version: str) -> bool:
    fields = filename.removesuffix(".whl").split("-")
    return (
        filename.endswith(".whl")
        and len(fields) in (5, 6)
        and normalized_project(fields[0]) == normalized_project(project)
        and fields[1].replace("_", "-") == version.replace("_", "-")
    )


def _is_allowed(url: str, page: str, index: PackageIndex, *, pinned: bool) -> bool:
    """Whether a link may be followed: plain http needs a pinned checksum, loopback or a trusted host."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        return True
    if parts.scheme == "file":
        return urlsplit(page).scheme == "file"
    return parts.scheme == "http" and (pinned or _is_trusted(parts.hostname or "", parts.port, index))


def _is_trusted(host: str, port: int | None, index: PackageIndex) -> bool:
    if host in index.trusted_hosts or f"{host}:{port}" in index.trusted_hosts or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
