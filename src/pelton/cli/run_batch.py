"""`pelton run-batch`: an OpenAI batch file, answered in one continuous batch without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import note, progress_bar
from .options import EngineFlags
from .serve import name_of

if TYPE_CHECKING:
    from ..serve.batch.lines import ReadLine
    from ..serve.batch.run import BatchTotals

EXIT_SOME_FAILED = 3
_WINDOW = 16
"""Lines under way for each sequence that the engine runs at once: among them prompts that begin alike are
found, and run together."""


def run_batch(
    given: Annotated[
        Path,
        typer.Option("--input-file", "-i", exists=True, dir_okay=False, help="Requests, one JSON line each."),
    ],
    output: Annotated[
        Path, typer.Option("--output-file", "-o", dir_okay=False, help="Answers, in the requests' order.")
    ],
    *,
    engine: EngineFlags,
    served_model_name: Annotated[
        str | None, typer.Option("--served-model-name", "--alias", help="The name requests use.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on after the answers that the output file has.")
    ] = False,
) -> None:
    """Answer an OpenAI batch file: chat, completions, embeddings, responses.

    Exit code 0 when every line was answered, 3 when some were not: their errors are in the output.
    """
    from ..errors import ConfigError

    try:
        from ..serve.batch.lines import lines_done, read_lines
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"needs {error.name}, which `pip install 'pelton[serve]'` brings", field="pelton run-batch"
        ) from None
    has_answers = output.exists() and output.stat().st_size > 0
    if has_answers and not resume:
        raise ConfigError("has answers already; give --resume or another file", subject=str(output))
    done = lines_done(output, given) if has_answers else 0
    with progress_bar(given.name) as progress, output.open("a", encoding="ascii") as file:
        size = given.stat().st_size

        def write(read: ReadLine, answer: str) -> None:
            file.write(answer + "\n")
            file.flush()
            progress(read.offset, size)

        lines = islice(read_lines(given), done, None)
        totals = asyncio.run(_answer_all(engine, served_model_name, lines, write))
    _tell(totals, done)
    if totals.failed:
        raise typer.Exit(EXIT_SOME_FAILED)


async def _answer_all(
    engine: EngineFlags,
    served_model_name: str | None,
    lines: Iterator[ReadLine],
    write: Callable[[ReadLine, str], None],
) -> BatchTotals:
    from ..serve.batch.run import BatchRun
    from ..serve.server import make_service
    from ..serve.settings import ServerSettings

    name = served_model_name or name_of(engine.model)
    llm = engine.open()
    llm.group_prefixes()
    service = make_service(llm, ServerSettings(served_model_name=name, max_queue=2**20))
    try:
        await service.client.open()
        run = BatchRun(service, at_once=_WINDOW * engine.max_num_seqs)
        await run.run(lines, write)
    finally:
        service.grammars.close()
        await service.client.close()
    return run.totals


def _tell(totals: BatchTotals, done: int) -> None:
    before = f" after {done} that were there" if done else ""
    note(f"{totals.answered} answered, {totals.failed} failed{before} in {totals.seconds:.1f} s")
    cached = f" ({totals.cached_tokens} of them cached)" if totals.cached_tokens else ""
    rate = totals.completion_tokens / totals.seconds if totals.seconds else 0.0
    note(
        f"{totals.prompt_tokens} prompt tokens{cached}, {totals.completion_tokens} generated,"
        f" {rate:.1f} generated a second"
    )
