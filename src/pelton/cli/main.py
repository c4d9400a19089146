"""`pelton`: its verbs, and how each way to fail ends."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from .. import __version__
from ..errors import PeltonError
from . import bench, chat, doctor, inspection, run, run_batch, serve, store, techniques
from .console import complain, tolerate_any_character
from .options import flat

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130
EXIT_CLOSED_PIPE = 141
"""What a shell reports of a program that SIGPIPE ended; `set -o pipefail` scripts know the number."""


class Verbs(TyperGroup):
    """Runs a verb and turns whatever it raises into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except PeltonError as error:
            _end(str(error), debug=ctx.params["debug"])
        except KeyboardInterrupt:
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except BrokenPipeError:
            _leave_quietly()
        except OSError as error:
            if error.errno == errno.EPIPE:
                _leave_quietly()
            where = f"{error.filename}: " if error.filename else ""
            _end(f"{where}{error.strerror or error}", debug=ctx.params["debug"])
        except ImportError as error:
            _end(f"a part of pelton cannot be loaded; install it again: {error}", debug=ctx.params["debug"])
        except MemoryError:
            _end("the machine has not enough memory for this", debug=ctx.params["debug"])
        except Exception as error:
            if type(error).__module__.partition(".")[0] in ("typer", "click"):  # usage errors and exits
                raise
            fault = f"a fault in pelton itself, {type(error).__name__}: {error}"
            _end(f"{fault} (`pelton --debug ...` shows where)", debug=ctx.params["debug"])
        return result


def _end(message: str, *, debug: bool) -> NoReturn:
    if debug:
        traceback.print_exc()
    _drop_unwritable_output()
    complain(message)
    raise typer.Exit(EXIT_ERROR)


def _drop_unwritable_output() -> None:
    """What still waits for a full disk would be tried again at exit, and fail again with a traceback."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _leave_quietly() -> NoReturn:
    """Nobody reads on: let what is left go nowhere, or Python would complain about it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise typer.Exit(EXIT_CLOSED_PIPE)


app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pelton {__version__}")
        raise typer.Exit


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", envvar="PELTON_DEBUG", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Run language models on this machine, exactly and fast."""


app.command("run")(flat(run.run))
app.command("chat")(flat(chat.chat))
app.command("serve")(flat(serve.serve))
app.command("run-batch")(flat(run_batch.run_batch))
app.command("pull")(flat(store.pull))
app.command("list")(flat(store.list_models))
app.command("ls", hidden=True)(flat(store.list_models))
app.command("rm")(flat(store.remove))
app.command("inspect")(flat(inspection.inspect))
app.command("doctor")(flat(doctor.doctor))
app.command("techniques")(flat(techniques.techniques))
app.add_typer(bench.app, name="bench")


def main() -> None:
    """Entry point of the `pelton` command."""
    tolerate_any_character()
    try:
        app(prog_name="pelton")
    except KeyboardInterrupt:  # while the verb's own modules were still loading
        sys.exit(EXIT_INTERRUPTED)
