from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pelton.errors import ConfigError
from pelton.weights.pip_settings import PUBLIC_INDEX, PackageIndex, configuration_files

NO_FILES = {"PIP_CONFIG_FILE": os.devnull}


def test_nothing_configured_means_the_public_index() -> None:
    assert PackageIndex.from_environment(NO_FILES) == PackageIndex(index_urls=(PUBLIC_INDEX,))


def test_variables() -> None:
    index = PackageIndex.from_environment(
        {
            **NO_FILES,
            "PIP_INDEX_URL": "https://a.invalid/simple",
            "PIP_EXTRA_INDEX_URL": "https://b.invalid/s  https://c.invalid/s",
            "PIP_FIND_LINKS": "/one /two",
            "PIP_TRUSTED_HOST": "d.invalid",
            "PIP_CERT": "/ca.pem",
            "PIP_PROXY": "http://proxy.invalid:8080",
            "PIP_DEFAULT_TIMEOUT": "7",
        }
    )
    assert index == PackageIndex(
        index_urls=("https://a.invalid/simple", "https://b.invalid/s", "https://c.invalid/s"),
        find_links=("/one", "/two"),
        trusted_hosts=("d.invalid",),
        certificate=Path("/ca.pem"),
        proxy="http://proxy.invalid:8080",
        timeout_seconds=7.0,
    )
    assert PackageIndex.from_environment({**NO_FILES, "PIP_NO_INDEX": "1"}).index_urls == ()


def test_other_tools_variables_are_heard_where_pip_says_nothing() -> None:
    uv = {**NO_FILES, "UV_INDEX_URL": "https://uv.invalid/simple", "REQUESTS_CA_BUNDLE": "/ca.pem"}
    assert PackageIndex.from_environment(uv).index_urls == ("https://uv.invalid/simple",)
    assert PackageIndex.from_environment(uv).certificate == Path("/ca.pem")
    both = {**uv, "PIP_INDEX_URL": "https://pip.invalid/simple"}
    assert PackageIndex.from_environment(both).index_urls == ("https://pip.invalid/simple",)


def test_files_and_their_order(tmp_path: Path) -> None:
    user, chosen = tmp_path / "config" / "pip" / "pip.conf", tmp_path / "chosen.conf"
    user.parent.mkdir(parents=True)
    user.write_text("[global]\nindex-url = https://user.invalid/s\ntimeout = 3\n[install]\nproxy = no\n")
    chosen.write_text(
        "[global]\nextra_index_url =\n  https://x.invalid/s\n  https://y.invalid/s\n[download]\ntimeout=4\n"
    )
    environ = {
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(user.parent.parent),
        "XDG_CONFIG_DIRS": str(tmp_path / "none"),
        "PIP_CONFIG_FILE": str(chosen),
    }
    index = PackageIndex.from_environment(environ)
    assert index.index_urls == ("https://user.invalid/s", "https://x.invalid/s", "https://y.invalid/s")
    assert index.timeout_seconds == 4
    assert PackageIndex.from_environment({**environ, "PIP_TIMEOUT": "5"}).timeout_seconds == 5


def test_the_files_are_those_pip_names(tmp_path: Path) -> None:
    pytest.importorskip("pip")
    environ = {**os.environ, "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "pip", "config", "debug"]
    said = subprocess.run(
        command, env=environ, capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout
    named = [line.strip().partition(", exists:")[0] for line in said.splitlines() if ", exists:" in line]
    ours = {str(path) for path in configuration_files(environ)}
    assert set(named) <= ours, "pip reads a file that we do not"


@pytest.mark.parametrize("text", ["[global", "a = b", "\xff\xfe"])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "pip.conf").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"pip\.conf"):
        PackageIndex.from_environment({"PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), "HOME": str(tmp_path)})


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf"])
def test_a_bad_timeout_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="timeout"):
        PackageIndex.from_environment({**NO_FILES, "PIP_TIMEOUT": text})
