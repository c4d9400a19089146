"""What a server serves: an engine behind its client, and the text layer that prompts need."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ..async_llm import AsyncLLM
from ..errors import TemplateError
from ..llm import LLM
from ..loading import load_text
from ..settings import EngineSettings
from ..text import ChatTemplate, Tokenizer
from ..text.grammar_check import GrammarCheck
from ..weights.store import ResolvedModel
from .worker.client import EngineClient, InProcessClient
from .worker.frames import Start
from .worker.process import WorkerCommand, worker_command
from .worker.supervisor import EngineProcess


@dataclass(frozen=True)
class ServedModel:
    """The client belongs to the server from now on, and `grammars`, the guard of its engine; `tokenizer` and
    `template` as in a LoadedEngine."""

    client: EngineClient
    tokenizer: Tokenizer | None
    template: ChatTemplate | TemplateError | None
    grammars: GrammarCheck


def in_process(llm: LLM) -> ServedModel:
    """An engine of this process, for who embeds a server beside it. Starts the engine's thread."""
    return ServedModel(InProcessClient(AsyncLLM(llm)), llm.tokenizer, llm.loaded.template, llm.grammars)


def in_worker(
    resolved: ResolvedModel,
    settings: EngineSettings,
    *,
    stall_seconds: float = 60.0,
    command: WorkerCommand = worker_command,
) -> ServedModel:
    """An engine in a process of its own; here are tokenizer and template alone. Raises as load_engine."""
    with ThreadPoolExecutor(1) as beside:
        text = beside.submit(load_text, resolved)
        client = EngineProcess(Start.of(resolved, settings), stall_seconds=stall_seconds, command=command)
        try:
            tokenizer, template = text.result()
        except BaseException:
            client.kill()
            raise
    return ServedModel(client, tokenizer, template, GrammarCheck(tokenizer, client.facts.vocab_size))
