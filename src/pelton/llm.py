"""LLM: text in, text out, on the engine of this process. Named as vLLM's, so a script ports by its import."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from difflib import get_close_matches
from numbers import Integral
from types import TracebackType
from typing import cast

import numpy as np

from .config import SamplingParams
from .engine import Engine
from .errors import ConfigError, RequestError
from .loading import LoadedEngine, load_engine
from .outputs import EMBEDDING, Embedding, EmbeddingOutput, RequestOutput, StreamOutput
from .request import RequestState
from .requests import LIVE_PATIENCE, Delta, Message, Prompt, Requests
from .sched.registry import offline_scheduler
from .settings import EngineSettings
from .spec.draft import Drafter
from .text import Tokenizer
from .text.grammar_check import GrammarCheck
from .weights.catalogue import DEFAULT_MODEL
from .weights.store import ModelStore, Progress, default_store

_PATIENCE = 0.25
"""Seconds in the engine at a time while nobody sees pieces of an answer; Ctrl-C waits for so long."""
_ALIASES = {"max_model_len": "context_length", "kv_cache_dtype": "kv_dtype"}


def settings_from(options: Mapping[str, object]) -> EngineSettings:
    """EngineSettings from keyword options; ConfigError names one that does not exist."""
    known = {field.name for field in fields(EngineSettings)}
    chosen: dict[str, object] = {}
    for name, value in options.items():
        target = _ALIASES.get(name, name)
        if target not in known:
            near = get_close_matches(name, [*known, *_ALIASES], n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"is not a setting of the engine{hint}", field=name, value=value)
        chosen[target] = value
    return EngineSettings(**chosen)  # type: ignore[arg-type]  # each field is checked when made


class LLM:
    """A model loaded in this process.

    `model`: a catalogue name, `pypi:`, `hf:` or `synthetic:` reference, or a path. Further keywords are
    EngineSettings' fields (max_model_len means context_length). Raises PeltonError's subclasses.
    """

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        *,
        store: ModelStore | None = None,
        progress: Progress | None = None,
        drafter: Drafter | None = None,
        **options: object,
    ) -> None:
        self.settings = settings_from(options)
        self.loaded: LoadedEngine = load_engine(
            model, self.settings, store or default_store(), progress, drafter
        )
        self.requests = Requests(self.loaded, self.settings.seed)
        self.grammars = GrammarCheck(self.tokenizer, self.engine.executor.plan.vocab_size)
        self._streams: dict[RequestState, deque[StreamOutput]] = {}  # pieces that nobody has fetched yet

    @property
    def engine(self) -> Engine:
        return self.loaded.engine

    @property
    def tokenizer(self) -> Tokenizer | None:
        return self.loaded.tokenizer

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, with the model's own beginning mark if it uses one."""
        return self.requests.encode(text)

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = False,
    ) -> list[RequestOutput]:
        """Complete each prompt (a text, or token ids); outputs in the order of the prompts.

        All prompts run in one continuous batch. Raises RequestError before anything runs if one of
        them cannot be served; a request that fails later ends with finish_reason "error".
        """
        batch = _as_prompts(prompts)
        params = _as_params(sampling_params, len(batch))
        return self._run(batch, params, use_tqdm)

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = False,
    ) -> list[RequestOutput]:
        """Answer one conversation, or several, through the model's chat template."""
        chats = _as_chats(messages)
        prompts = [self.requests.render(chat) for chat in chats]
        return self._run(prompts, _as_params(sampling_params, len(prompts)), use_tqdm)

    def embed(
        self, prompts: Prompt | Sequence[Prompt], *, dimensions: int | None = None, use_tqdm: bool = False
    ) -> list[EmbeddingOutput]:
        """Each prompt as a vector of length 1: what the head reads at its last token, so the model should
        have been trained to say there what the whole means. `dimensions` keeps the first so many, for
        models trained for that. Raises RequestError before anything runs, or what a prompt fails with.
        """
        batch = _as_prompts(prompts)
        return [_embedded(done, dimensions) for done in self._run(batch, [EMBEDDING] * len(batch), use_tqdm)]

    def stream(
        self, prompt: Prompt | Sequence[Message], sampling_params: SamplingParams | None = None
    ) -> Iterator[StreamOutput]:
        """Pieces of the answer to a prompt, or to a conversation (a list of messages), as they come.

        Closing the iterator early ends the request. Several streams, and calls of `generate` beside them,
        may take turns: whoever asks next steps for all.
        """
        (params,) = _as_params(sampling_params, 1)
        self.grammars.check(params.structured_outputs)
        state = self.requests.add(self._rendered(prompt), params)
        pieces = self._streams[state] = deque()
        try:
            while pieces or not state.finished:
                if not pieces:
                    self._step(LIVE_PATIENCE)
                while pieces:
                    yield pieces.popleft()
        finally:
            del self._streams[state]
            self.requests.abort(state)

    def group_prefixes(self) -> None:
        """From now on prompts that wait together and begin alike run together, to the same texts (BatchLLM).

        Nothing changes where another scheduler was asked for, or while requests run.
        """
        if self.settings.scheduler == "token-budget" and not self.engine.has_work:
            self.engine.scheduler = offline_scheduler(
                self.engine.pool, self.engine.max_num_seqs, self.engine.max_num_batched_tokens
            )

    def close(self) -> None:
        """Stop the executor's threads and free the model; the LLM cannot be used afterwards."""
        self.grammars.close()
        self.loaded.close()

    def __enter__(self) -> LLM:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _rendered(self, prompt: Prompt | Sequence[Message]) -> Prompt:
        if isinstance(prompt, list | tuple) and len(prompt) and isinstance(prompt[0], Mapping):
            (chat,) = _as_chats(prompt)
            return self.requests.render(chat)
        return cast("Prompt", prompt)  # it is looked at where it is added

    def _step(self, patience: float) -> list[Delta]:
        """One engine step; streams get their pieces, whoever made it."""
        deltas = self.requests.step(patience)
        for delta in deltas:
            pieces = self._streams.get(delta.request)
            if pieces is not None:
                pieces.append(delta.output)
        return deltas

    def _run(
        self, prompts: Sequence[Prompt], params: Sequence[SamplingParams], use_tqdm: bool
    ) -> list[RequestOutput]:
        states: list[RequestState] = []
        before = self.engine.scheduler
        if len(prompts) > 1:  # everything is known beforehand
            self.group_prefixes()
        try:
            for prompt, chosen in zip(prompts, params, strict=True):
                self.grammars.check(chosen.structured_outputs)
                states.append(self.requests.add(prompt, chosen))
            with _progress_bar(len(states), use_tqdm) as advance:
                left = set(states)
                while left:
                    deltas = self._step(LIVE_PATIENCE if self._streams else _PATIENCE)
                    ended = {delta.request for delta in deltas if delta.request.finished} & left
                    left -= ended
                    advance(len(ended))
        finally:
            for state in states:
                self.requests.abort(state)
            self.engine.scheduler = before
        return [state.snapshot() for state in states]


def _embedded(done: RequestOutput, dimensions: int | None) -> EmbeddingOutput:
    (output,) = done.outputs
    if output.hidden_state is None:
        raise output.error or RequestError("has no hidden state", subject=done.request_id)
    vector = Embedding.of(output.hidden_state, dimensions)
    return EmbeddingOutput(done.request_id, vector, done.prompt_token_ids, done.num_cached_tokens)


def _as_prompts(prompts: object) -> list[Prompt]:
    """One prompt or many -> a list, whose entries are looked at where they are added; a list that begins
    with a whole number is one prompt of token ids."""
    if isinstance(prompts, str | bytes | Mapping) or _is_token(prompts):
        return [cast("Prompt", prompts)]
    if isinstance(prompts, np.ndarray):
        return [prompts] if prompts.ndim < 2 else list(prompts)
    if not isinstance(prompts, Sequence):
        raise RequestError("must be a prompt or a list of prompts", field="prompts", value=_kind(prompts))
    return [prompts] if prompts and _is_token(prompts[0]) else list(prompts)


def _is_token(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _as_chats(messages: object) -> list[Sequence[Message]]:
    """One conversation or several -> a list. Raises RequestError for what is neither."""
    if isinstance(messages, str | bytes) or not isinstance(messages, Sequence):
        raise RequestError("must be a list of messages", field="messages", value=_kind(messages))
    if not messages:
        raise RequestError("holds no message", field="messages")
    chats = [messages] if isinstance(messages[0], Mapping) else messages
    for chat in chats:
        if isinstance(chat, str | bytes) or not isinstance(chat, Sequence):
            raise RequestError("must be a list of messages", field="messages", value=_kind(chat))
        for message in chat:
            if not isinstance(message, Mapping):
                raise RequestError("must be a mapping", field="message", value=_kind(message))
    return list(chats)


def _as_params(params: object, count: int) -> list[SamplingParams]:
    chosen = SamplingParams() if params is None else params
    given = [chosen] * count if isinstance(chosen, SamplingParams) else chosen
    if isinstance(given, str | Mapping) or not isinstance(given, Sequence):
        raise RequestError("must be SamplingParams", field="sampling_params", value=_kind(given))
    for one in given:
        if not isinstance(one, SamplingParams):
            raise RequestError("must be SamplingParams", field="sampling_params", value=_kind(one))
    if len(given) != count:
        raise RequestError(f"{len(given)} given for {count} prompts", field="sampling_params")
    return list(given)


def _kind(value: object) -> str:
    return f"<{type(value).__name__}>"


@contextmanager
def _progress_bar(total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    if not shown:
        yield lambda finished: None
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    with Bar(
        *Bar.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn(), console=Console(stderr=True)
    ) as bar:
        task = bar.add_task("Processed prompts", total=total)
        yield lambda finished: bar.advance(task, finished)
