"""How a verb can end: exit codes, one line on stderr, and nothing else."""

from __future__ import annotations

import ast
import errno
import subprocess
import sys
from pathlib import Path

import pytest

import pelton
from pelton.cli.main import Verbs
from pelton.errors import ModelFileError

from .calling import call, environment, finish, start

VERBS = ("run", "chat", "pull", "list", "rm", "inspect", "doctor", "techniques", "bench")
PACKAGE = Path(pelton.__file__).parent


def test_help_lists_every_verb() -> None:
    result = call("--help")
    assert result.exit_code == 0
    assert all(f"  {verb} " in result.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str) -> None:
    assert "Usage:" in call(verb, "-h").stdout


def test_every_verb_that_gives_a_result_has_json() -> None:
    calls = [(verb,) for verb in VERBS if verb != "bench"] + [("bench", "latency"), ("bench", "throughput")]
    assert all("--json" in call(*verb, "--help").stdout for verb in calls)


def test_version() -> None:
    assert call("--version").stdout == f"pelton {pelton.__version__}\n"


def test_help_loads_no_array_library(tmp_path: Path) -> None:
    heavy = ("numpy", "rich", "tokenizers", "gguf", "jinja2", "psutil", "pelton._native", "pelton.llm")
    probe = f"import sys, pelton.cli.main; print([name for name in {heavy} if name in sys.modules])"
    env = environment(tmp_path)
    done = subprocess.run([sys.executable, "-c", probe], env=env, capture_output=True, check=True)
    assert ast.literal_eval(done.stdout.decode()) == []


@pytest.mark.parametrize(
    "arguments",
    [("nonsense",), ("rm",), ("list", "--nonsense"), ("run", "x", "--temp", "hot"), ("bench", "x")],
)
def test_usage_errors_exit_with_2(arguments: tuple[str, ...]) -> None:
    result = call(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Usage:" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "x", "--temp", "-1"), "temperature = -1.0"),
        (("run", "x", "--model", "/nonexistent.gguf"), "/nonexistent.gguf"),
        (("inspect", "hf:nonsense"), "hf:nonsense"),
        (("rm", "nonsense"), "nonsense"),
        (("techniques", "nonsense"), "nonsense"),
        (("doctor", "--isa", "avx1024"), "avx1024"),
        (("doctor", "--threads", "0"), "threads = 0"),
        (("bench", "latency", "-p", "many"), "--n-prompt = 'many'"),
        (("bench", "latency", "-p", "0", "-n", "0"), "nothing to measure"),
    ],
)
def test_errors_are_one_line_on_stderr_and_exit_with_1(
    arguments: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    result = call(*arguments, env=environment(tmp_path))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("pelton: error: ")
    assert result.stderr.count("\n") == 1
    assert words in result.stderr


def failing(error: BaseException) -> Verbs:
    """A command line whose only verb raises."""
    import typer

    app = typer.Typer(cls=Verbs, pretty_exceptions_enable=False)

    @app.callback()
    def root(debug: bool = False) -> None:
        pass

    @app.command()
    def fail() -> None:
        raise error

    return typer.main.get_command(app)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ModelFileError("is cut", subject="a.gguf", field="magic", value=3), 1, "a.gguf: magic = 3: is cut"),
        (OSError(errno.ENOSPC, "No space left on device", "out.txt"), 1, "out.txt: No space left on device"),
        (MemoryError(), 1, "not enough memory"),
        (KeyError("x"), 1, "a fault in pelton itself, KeyError"),
        (RuntimeError("odd"), 1, "a fault in pelton itself, RuntimeError: odd"),
        (RecursionError("deep"), 1, "a fault in pelton itself"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_whatever_a_verb_raises_ends_in_a_line_and_a_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        failing(error)(["fail"])
    assert caught.value.code == code
    shown = capsys.readouterr().err
    assert line in shown
    assert "Traceback" not in shown


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        failing(ModelFileError("is cut"))(["--debug", "fail"])
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.rstrip().endswith("pelton: error: is cut")


def test_a_closed_pipe_ends_silently(tmp_path: Path) -> None:
    # 100 layers: more lines than a pipe holds, so the writer still writes when the reader leaves
    arguments = ("inspect", "synthetic:llama-135m?layers=100", "--plan")
    process = start(*arguments, env=environment(tmp_path))
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait(60), errors) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_error_without_traceback(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        code, _, errors = finish("list", "--catalogue", env=environment(tmp_path), stdout=full)
    assert code == 1
    assert errors == "pelton: error: No space left on device\n"


def test_any_character_can_be_printed_in_any_encoding(tmp_path: Path) -> None:
    env = environment(tmp_path, PYTHONIOENCODING="ascii")
    code, _, errors = finish("inspect", "modèle", env=env)
    assert code == 1
    assert "mod\\xe8le" in errors


@pytest.mark.parametrize("path", sorted((PACKAGE / "cli").rglob("*.py")), ids=lambda path: path.stem)
def test_results_go_through_the_console_module(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert not [c.lineno for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]
