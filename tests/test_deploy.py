"""The files in deploy/: that the tools they are for accept them, and that they hold what they promise."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[1] / "deploy"
ROOT = DEPLOY.parent
PROGRAM = "/opt/pelton/bin/pelton"
ANALYZE = shutil.which("systemd-analyze")


def unit_settings() -> dict[str, str]:
    lines = (DEPLOY / "pelton.service").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if re.match(r"[A-Za-z]+=", line))


def test_the_unit_is_hardened() -> None:
    unit = unit_settings()
    for name in ("DynamicUser", "NoNewPrivileges", "PrivateTmp", "PrivateDevices", "ProtectHome"):
        assert unit[name] == "yes"
    assert unit["ProtectSystem"] == "strict"
    assert unit["CapabilityBoundingSet"] == ""
    assert unit["ExecStart"].startswith(f"{PROGRAM} serve --host 127.0.0.1 ")
    assert int(unit["TimeoutStopSec"]) > 10  # the server's own bound


def systemd(folder: Path, *verb: str) -> subprocess.CompletedProcess[str]:
    """Ask systemd about the unit, with a program that is here."""
    assert ANALYZE is not None
    unit = folder / "pelton.service"
    unit.write_text((DEPLOY / "pelton.service").read_text().replace(PROGRAM, "/bin/true"))
    return subprocess.run(
        [ANALYZE, *verb, str(unit)], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.skipif(ANALYZE is None, reason="no systemd-analyze")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    told = systemd(tmp_path, "verify")
    assert (told.returncode, told.stderr) == (0, "")


@pytest.mark.skipif(ANALYZE is None, reason="no systemd-analyze")
def test_systemd_finds_the_unit_little_exposed(tmp_path: Path) -> None:
    told = systemd(tmp_path, "security", "--offline=true", "--threshold=20")  # 20 is an exposure of 2.0
    assert told.returncode == 0, told.stdout


def test_the_image_runs_as_nobody_special_and_is_looked_after() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    stages = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert len(stages) == 2
    assert not any("/" in name for name in stages)
    last = text[text.rindex("FROM ") :]
    assert re.search(r"^USER pelton$", last, re.MULTILINE)
    assert last.index("USER pelton") < last.index("ENTRYPOINT")
    assert "HEALTHCHECK" in last
    assert "/health" in last
    for source in re.findall(r"^COPY ([^-].*) \S+$", text, re.MULTILINE):
        for name in source.split():
            assert (ROOT / name).exists(), name


def test_the_flags_in_the_files_exist() -> None:
    from typer.testing import CliRunner

    from pelton.cli.main import app

    known = CliRunner().invoke(app, ["serve", "--help"], terminal_width=200).output
    image = (DEPLOY / "Dockerfile").read_text()
    used = re.findall(r"--[a-z-]+", unit_settings()["ExecStart"] + image[image.index("ENTRYPOINT") :])
    assert "--log-format" in used
    for flag in used:
        assert flag in known
