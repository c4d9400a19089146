"""Each peer's best file, made once from the one GGUF model and kept under the home folder."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engines import SAME_FILE
from environments import MAKERS, Environments, run


@dataclass(frozen=True)
class Files:
    """Files of one model under `home`/files. What `path` returns exists and is whole."""

    home: Path
    model: Path
    environments: Environments

    def path(self, name: str) -> Path:
        """The file of that name, made if need be. Raises CannotInstall."""
        if name == SAME_FILE:
            return self.model
        target = self._folder() / TARGETS.get(name, f"{name}.gguf")
        if not target.exists():
            print(f"making {target}", file=sys.stderr, flush=True)
            part = target.with_name(f"part-{target.name}")
            shutil.rmtree(part, ignore_errors=True)
            part.unlink(missing_ok=True) if part.is_file() else None
            MAKERS_OF.get(name, _requantize)(self, name, part)
            part.rename(target)
        return target

    def run_maker(self, environment: str, script: str, *arguments: str) -> None:
        run([str(self.environments.python(environment)), str(MAKERS / script), *arguments])

    def _folder(self) -> Path:
        """One for each content of the model file, told by its size and its first MiB."""
        with self.model.open("rb") as file:
            start = hashlib.sha256(file.read(1 << 20)).hexdigest()[:12]
        folder = self.home / "files" / f"{self.model.stem}-{self.model.stat().st_size}-{start}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def _requantize(files: Files, name: str, target: Path) -> None:
    files.run_maker("llama_cpp", "requantize.py", str(files.model), name, str(target))


def _hugging_face(files: Files, name: str, target: Path) -> None:
    files.run_maker("transformers", "hugging_face_folder.py", str(files.model), str(target))


def _openvino_int8(files: Files, name: str, target: Path) -> None:
    files.run_maker("openvino", "openvino_int8.py", str(files.path("F16")), str(target))


TARGETS = {"bf16": "hugging_face", "int8": "openvino_int8"}
MAKERS_OF: dict[str, Callable[[Files, str, Path], None]] = {"bf16": _hugging_face, "int8": _openvino_int8}
