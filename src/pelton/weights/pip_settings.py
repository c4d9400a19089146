"""The user's pip configuration: which package indexes to ask, and how to reach them.

Read as pip reads it (https://pip.pypa.io/en/stable/topics/configuration/): configuration files
from the most general to the most specific, then PIP_* variables; the last one that sets an
option wins. It works without pip being installed, as in environments made by uv.
"""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError

PUBLIC_INDEX = "https://pypi.org/simple"
_SECTIONS = ("global", "download")
_TRUE = frozenset({"1", "true", "yes", "on", "y", "t"})


@dataclass(frozen=True)
class PackageIndex:
    """Where Python packages come from: indexes and find-links as URLs or paths, in pip's order."""

    index_urls: tuple[str, ...] = (PUBLIC_INDEX,)
    find_links: tuple[str, ...] = ()
    trusted_hosts: tuple[str, ...] = ()
    certificate: Path | None = None
    proxy: str | None = None
    timeout_seconds: float = 30.0

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> PackageIndex:
        """Raises ConfigError for a configuration file that does not parse, or a bad timeout."""
        options = _read_files(environ) | _read_variables(environ)
        first = options.get("index-url") or environ.get("UV_DEFAULT_INDEX") or environ.get("UV_INDEX_URL")
        indexes = (first or PUBLIC_INDEX, *options.get("extra-index-url", "").split())
        certificate = (
            options.get("cert") or environ.get("REQUESTS_CA_BUNDLE") or environ.get("CURL_CA_BUNDLE")
        )
        return cls(
            index_urls=() if options.get("no-index", "").lower() in _TRUE else indexes,
            find_links=tuple(options.get("find-links", "").split()),
            trusted_hosts=tuple(options.get("trusted-host", "").split()),
            certificate=Path(certificate) if certificate else None,
            proxy=options.get("proxy") or None,
            timeout_seconds=_timeout(options.get("timeout") or options.get("default-timeout")),
        )


def _timeout(text: str | None) -> float:
    if text is None:
        return PackageIndex.timeout_seconds
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86_400:
        raise ConfigError(
            "is not a number of seconds", subject="pip configuration", field="timeout", value=text
        )
    return seconds


def _read_variables(environ: Mapping[str, str]) -> dict[str, str]:
    return {
        name.removeprefix("PIP_").lower().replace("_", "-"): value
        for name, value in environ.items()
        if name.startswith("PIP_") and value
    }


def _read_files(environ: Mapping[str, str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for path in configuration_files(environ):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError) as error:
            raise ConfigError(f"is not a pip configuration: {error}", subject=path) from error
        except OSError:
            continue  # Not readable by this user: pip passes over it too.
        for section in _SECTIONS:
            if parser.has_section(section):
                options |= {name.replace("_", "-"): value for name, value in parser.items(section)}
    return options


def configuration_files(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """pip's configuration files, the one that wins last; they need not exist."""
    chosen = environ.get("PIP_CONFIG_FILE", "")
    if chosen == os.devnull:
        return ()
    home = Path(environ.get("HOME") or Path.home())
    site = Path(sys.prefix)
    if sys.platform == "win32":
        shared = [Path(environ.get("PROGRAMDATA", r"C:\ProgramData")) / "pip" / "pip.ini"]
        user = [home / "pip" / "pip.ini", Path(environ.get("APPDATA", home)) / "pip" / "pip.ini"]
        return (*shared, *user, site / "pip.ini", *([Path(chosen)] if chosen else []))
    shared = [Path(folder) / "pip" / "pip.conf" for folder in _shared_folders(environ)]
    user = [home / ".pip" / "pip.conf", _user_folder(environ, home) / "pip" / "pip.conf"]
    return (*shared, Path("/etc/pip.conf"), *user, site / "pip.conf", *([Path(chosen)] if chosen else []))


def _shared_folders(environ: Mapping[str, str]) -> list[str]:
    if sys.platform == "darwin":
        return ["/Library/Application Support"]
    return [folder for folder in (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":") if folder]


def _user_folder(environ: Mapping[str, str], home: Path) -> Path:
    macos = home / "Library" / "Application Support"
    if sys.platform == "darwin" and (macos / "pip").is_dir():
        return macos
    return Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
