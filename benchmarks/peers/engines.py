"""Which engines there are: each with the interpreter it needs, its worker and the file it reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WORKERS = Path(__file__).parent / "workers"
SAME_FILE = "same"


@dataclass(frozen=True)
class Engine:
    """One row of the table: a peer with one file, a name that Files knows, or SAME_FILE for the model.

    variables: of its environment, (name, value). preloads: libraries to load first, as patterns within its
    virtual environment. cache_variable: names a folder for what it compiles when it
    first starts; that first start is no part of a run.
    """

    peer: str
    file: str
    environment: str
    worker: str
    variables: tuple[tuple[str, str], ...] = ()
    preloads: tuple[str, ...] = ()
    cache_variable: str = ""

    @property
    def name(self) -> str:
        return f"{self.peer} ({self.file})"


# In one process: its scheduler and its model would else take turns on the same cores through a socket.
# Then it does not preload what it gives to its own processes, so that is done here.
VLLM_VARIABLES = (("VLLM_ENABLE_V1_MULTIPROCESSING", "0"),)
VLLM_PRELOADS = (
    "lib/python*/site-packages/vllm/libs/libtcmalloc*.so*",
    "lib/python*/site-packages/torch*/lib*/libgomp*.so*",
)
ENGINES = (
    Engine("pelton", SAME_FILE, "pelton", "pelton_worker.py"),
    Engine("pelton without drafts", SAME_FILE, "pelton", "pelton_plain_worker.py"),
    Engine("llama.cpp", SAME_FILE, "llama_cpp", "llama_cpp_worker.py"),
    Engine("llama.cpp", "Q4_0", "llama_cpp", "llama_cpp_worker.py"),
    Engine("llama.cpp", "Q8_0", "llama_cpp", "llama_cpp_worker.py"),
    Engine("llama.cpp", "BF16", "llama_cpp", "llama_cpp_worker.py"),
    Engine("OpenVINO", SAME_FILE, "openvino", "openvino_worker.py"),
    Engine("OpenVINO", "int8", "openvino", "openvino_worker.py"),
    Engine("vLLM", "bf16", "vllm", "vllm_worker.py", VLLM_VARIABLES, VLLM_PRELOADS, "VLLM_CACHE_ROOT"),
    Engine("transformers", "bf16", "transformers", "transformers_worker.py"),
)


def chosen_engines(only: Sequence[str]) -> tuple[Engine, ...]:
    """Engines whose peer is named in `only`, in any case; all for none. pelton is always there."""
    wanted = {name.lower() for name in only}
    known = {engine.peer.lower() for engine in ENGINES}
    if wanted - known:
        raise ValueError(f"no peer is named {', '.join(sorted(wanted - known))}; there are {sorted(known)}")
    return tuple(e for e in ENGINES if not wanted or e.peer.lower() in wanted or e.environment == "pelton")
