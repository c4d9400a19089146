"""`pelton serve`: the engine behind the API that OpenAI's clients speak."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import progress_bar
from .options import EngineFlags
from .serve_flags import LimitFlags, SeeingFlags

if TYPE_CHECKING:
    from ..serve.served import ServedModel


def serve(
    context: typer.Context,
    reference: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="The model, as with --model; the default model if not given."),
    ] = None,
    *,
    engine: EngineFlags,
    limits: LimitFlags,
    seeing: SeeingFlags,
    host: Annotated[str, typer.Option("--host", help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port; 0 takes a free one.")] = 8000,
    served_model_name: Annotated[
        str | None, typer.Option("--served-model-name", "--alias", help="The name requests use.")
    ] = None,
    page: Annotated[bool, typer.Option("--page/--no-page", help="The web page at /.")] = True,
    tool_call_parser: Annotated[
        str | None,
        typer.Option(
            "--tool-call-parser",
            help="hermes, llama3_json, mistral or mistral_named, where the chat template does not show it.",
        ),
    ] = None,
) -> None:
    """Serve a model over HTTP until Ctrl-C or SIGTERM."""
    from ..errors import ConfigError

    if reference is not None:
        engine = replace(engine, model=_one_of(reference, engine.model, context))
    try:
        from ..serve.server import Server, make_service, run_server
        from ..serve.settings import ServerSettings
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"needs {error.name}, which `pip install 'pelton[serve]'` brings", field="pelton serve"
        ) from None

    settings = ServerSettings(
        served_model_name=served_model_name or name_of(engine.model),
        host=host,
        port=port,
        **limits.settings(),
        page=page and _can_show_page(),
        tool_call_parser=tool_call_parser,
    )
    model = _start(engine, settings.stall_seconds)
    service = make_service(model, settings)
    with seeing.watching(service):
        name = settings.served_model_name
        run_server(Server(service, lambda address: seeing.announce(f"serving {name} at {address}")))


def _one_of(reference: str, option: str, context: typer.Context) -> str:
    """The model given without a flag. Raises ConfigError where the flag says another; a default may."""
    from ..errors import ConfigError

    source = context.get_parameter_source("model")
    if source is not None and source.name == "COMMANDLINE" and option != reference:
        raise ConfigError(f"was given beside {reference!r}; give one model", field="--model", value=option)
    return reference


def _can_show_page() -> bool:
    from importlib.util import find_spec

    return find_spec("nicegui") is not None


def _start(engine: EngineFlags, stall_seconds: float) -> ServedModel:
    """The model, fetched first if need be, in a process of its own."""
    from ..llm import settings_from
    from ..serve.served import in_worker
    from .home import user_store

    with progress_bar(f"fetching {engine.model}") as progress:
        store = user_store(offline=engine.offline)
        resolved = store.resolve(engine.model, progress)
    settings = replace(settings_from(engine.settings()), tuning_folder=str(store.home / "tuning"))
    model = in_worker(resolved, settings, stall_seconds=stall_seconds)
    gc.freeze()  # the vocabulary's objects live as long as the process
    return model


def name_of(reference: str) -> str:
    """A reference as it is; of a file only its name, since its folder is no business of clients."""
    return Path(reference).stem if Path(reference).exists() else reference
