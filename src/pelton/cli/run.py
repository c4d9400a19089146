"""`pelton run`: one prompt, the answer streamed."""

from __future__ import annotations

import sys
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from .console import note, say, say_json
from .figures import seconds
from .options import EngineFlags, Json, SamplingFlags

if TYPE_CHECKING:
    from ..llm import LLM
    from .answer import Answer

MOST_PROMPT_BYTES = 16 << 20


def run(
    prompt: Annotated[
        str | None, typer.Argument(help="The prompt; - or nothing reads it from stdin.")
    ] = None,
    *,
    engine: EngineFlags,
    sampling: SamplingFlags,
    system: Annotated[str | None, typer.Option("--system", "-sys", help="A system message.")] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Continue the prompt as it is, without the chat template.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No figures on stderr.")] = False,
    json: Json = False,
) -> None:
    """Answer one prompt; text streams to stdout, figures go to stderr."""
    from .answer import stream_answer

    start = perf_counter()
    text = read_prompt(prompt)
    params = sampling.params()
    with engine.open() as llm:
        loaded_after = perf_counter() - start
        ids = prompt_ids(llm, text, system, raw)
        answer = stream_answer(llm, ids, params, _ignore if json else _write)
    if json:
        timings = {"load_seconds": loaded_after, **answer.timings()}
        say_json({"model": engine.model, "seed": params.seed, **answer.document(), "timings": timings})
    else:
        say("")
    if not quiet:
        note(figures(answer, loaded_after, None if params.is_greedy else params.seed))
    if answer.interrupted:
        raise typer.Exit(130)


def read_prompt(prompt: str | None) -> str:
    """The argument, or stdin for `-` or nothing. Raises RequestError for what is no text or too long."""
    from ..errors import RequestError

    if prompt is not None and prompt != "-":
        try:
            prompt.encode()
        except UnicodeEncodeError:
            raise RequestError("is not valid UTF-8", subject="prompt") from None
        return prompt
    if prompt is None and sys.stdin.isatty():
        raise typer.BadParameter("give a prompt, or - to read it from stdin", param_hint="PROMPT")
    body = sys.stdin.buffer.read(MOST_PROMPT_BYTES + 1)
    if len(body) > MOST_PROMPT_BYTES:
        raise RequestError(f"is longer than {MOST_PROMPT_BYTES} bytes", subject="prompt")
    try:
        return body.decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise RequestError(f"is not valid UTF-8 at byte {error.start}", subject="prompt") from None


def prompt_ids(llm: LLM, text: str, system: str | None, raw: bool) -> list[int]:
    """Token ids of a raw prompt, or of a conversation with the prompt as its only user message."""
    from ..errors import ConfigError

    if raw:
        if system is not None:
            raise ConfigError("goes through the chat template, --raw goes without", field="--system")
        return llm.encode(text)
    messages = [] if system is None else [{"role": "system", "content": system}]
    return llm.requests.render([*messages, {"role": "user", "content": text}])


def figures(answer: Answer, load_seconds: float, seed: int | None) -> str:
    """`96 tokens at 143.2 tok/s, first after 48 ms (24 prompt tokens at 500.0 tok/s), load 0.31 s, ...`."""
    if answer.first_token_seconds is None:
        return f"no token, load {seconds(load_seconds)}"
    prompt_rate = answer.prompt_tokens / answer.first_token_seconds
    rate = "" if answer.decode_rate is None else f" at {answer.decode_rate:.1f} tok/s"
    drawn = "" if seed is None else f", seed {seed}"
    plural = "" if answer.num_tokens == 1 else "s"
    return (
        f"{answer.num_tokens} token{plural}{rate}, first after {seconds(answer.first_token_seconds)}"
        f" ({answer.prompt_tokens} prompt tokens at {prompt_rate:.1f} tok/s), load {seconds(load_seconds)},"
        f" {answer.finish_reason}{drawn}"
    )


def _write(piece: str) -> None:
    say(piece, end="")


def _ignore(piece: str) -> None:
    pass
