"""How the tests call pelton: in this process through typer's runner, or as the process a user starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from pelton.cli.main import app

SECONDS = 120
COMMAND = (sys.executable, "-c", "from pelton.cli.main import main; main()")


def call(*arguments: str, input: str | bytes | None = None, env: dict[str, str] | None = None) -> Result:
    """Run a verb in this process."""
    return CliRunner().invoke(app, list(arguments), input=input, env=env)


def call_json(*arguments: str, env: dict[str, str] | None = None) -> Any:
    """The document a verb prints with --json; fails the test unless it succeeds and prints nothing else."""
    result = call(*arguments, "--json", env=env)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def environment(home: Path, **more: str) -> dict[str, str]:
    """The environment of a user whose model store is `home`, without settings of this machine's user."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PELTON_")}
    return {**kept, "PELTON_HOME": str(home), "PELTON_OFFLINE": "1", **more}


def start(*arguments: str, env: dict[str, str], **options: Any) -> subprocess.Popen[bytes]:
    """Start pelton as its own process."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen([*COMMAND, *arguments], env=env, **pipes)


def finish(*arguments: str, env: dict[str, str], **options: Any) -> tuple[int, str, str]:
    """Run pelton as its own process to its end: exit code, stdout, stderr."""
    process = start(*arguments, env=env, **options)
    out, err = process.communicate(timeout=SECONDS)
    return process.returncode, (out or b"").decode(), (err or b"").decode()
