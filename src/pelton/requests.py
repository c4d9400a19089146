"""The requests an engine is working on: prompts in, pieces of text out. LLM and AsyncLLM share it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from numbers import Integral
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .config import SamplingParams
from .decode.grammar import Grammar, GrammarCompiler
from .decode.processor import RequestTokens
from .errors import RequestError, TemplateError
from .loading import LoadedEngine
from .outputs import StreamOutput
from .request import RequestState
from .structured import StructuredOutputs
from .terms import ORDINARY, RequestTerms
from .text.grammar_tokens import grammar_vocabulary

Message = Mapping[str, object]
Prompt = str | Sequence[int] | NDArray[np.integer[Any]] | Mapping[str, object]
"""A text; token ids; or either as vLLM wraps them, {"prompt": text} or {"prompt_token_ids": ids}."""


LIVE_PATIENCE = 0.02
"""Seconds for which tokens may be held back where somebody reads them as they come."""


class Delta(NamedTuple):
    """A piece of one request's output."""

    request: RequestState
    output: StreamOutput


class Requests:
    """Not thread-safe: whoever steps the engine owns it."""

    def __init__(self, loaded: LoadedEngine, seed: int | None) -> None:
        self._loaded = loaded
        self._engine = loaded.engine
        self._states: dict[int, RequestState] = {}
        self._seeds = np.random.Generator(np.random.Philox(secrets.randbits(63) if seed is None else seed))
        self._count = 0
        self._compiler: GrammarCompiler | None = None
        self._compiling = Lock()

    def encode(self, text: str, *, add_special: bool = True) -> list[int]:
        """Token ids of a text; special tokens spelled out in it stay text."""
        if self._loaded.tokenizer is None:
            raise RequestError("this model has no tokenizer; give token ids", subject="prompt")
        return self._loaded.tokenizer.encode(text, add_special=add_special)

    def render(self, messages: Sequence[Message], *, continue_final_message: bool = False) -> list[int]:
        """Token ids of a conversation through the chat template, ready for the assistant's answer."""
        template, tokenizer = self._loaded.template, self._loaded.tokenizer
        if isinstance(template, TemplateError):
            raise template
        if template is None or tokenizer is None:
            raise TemplateError("this model has no chat template; use generate with a plain prompt")
        return template.encode(
            tokenizer,
            messages,
            add_generation_prompt=not continue_final_message,
            continue_final_message=continue_final_message,
        )

    def add(
        self,
        prompt: Prompt,
        params: SamplingParams,
        request_id: str | None = None,
        terms: RequestTerms = ORDINARY,
        grammar: Grammar | None = None,
    ) -> RequestState:
        """Queue a request. Raises RequestError if the prompt or the parameters cannot be served.

        `grammar` is that of its `structured_outputs` where it was compiled before; else that happens here.
        """
        text, ids = self._tokens_of(prompt)
        seed = int(self._seeds.integers(2**63)) if params.seed is None else params.seed
        tokens = np.array(ids, dtype=np.int32)
        sequences = self._engine.add(tokens, params, self._meaning(params, grammar), seed, terms)
        self._count += 1
        name = request_id or f"request-{self._count}"
        state = RequestState(name, text, ids, params, sequences, self._loaded.tokenizer)
        self._states.update(dict.fromkeys(sequences, state))
        return state

    def step(self, patience: float = 0.0) -> list[Delta]:
        """One engine step; what it added to each request. `patience`: see Engine.step."""
        deltas = []
        for event in self._engine.step(patience):
            state = self._states.get(event.sequence)
            if state is None:
                continue
            output = state.take(event)
            if output is None:
                continue
            if output.finished:
                del self._states[event.sequence]
                self._engine.abort(event.sequence)  # a stop string ends what the engine would go on with
            deltas.append(Delta(state, output))
        return deltas

    def abort(self, state: RequestState) -> None:
        """Drop whatever of a request still runs."""
        for sequence in list(state.sequence_ids):
            self._states.pop(sequence, None)
            self._engine.abort(sequence)

    def _tokens_of(self, prompt: object) -> tuple[str | None, list[int]]:
        """The text, if the prompt is one, and its token ids. `prompt` is whatever a caller gave."""
        if isinstance(prompt, Mapping):
            prompt = _unwrapped(prompt)
        if isinstance(prompt, str):
            return prompt, self.encode(prompt)
        if isinstance(prompt, np.ndarray) and prompt.ndim == 1:
            prompt = prompt.tolist()
        if isinstance(prompt, bytes) or not isinstance(prompt, Sequence):
            raise RequestError(
                "must be a text, a list of token ids, or a mapping with prompt or prompt_token_ids",
                field="prompt",
                value=f"<{type(prompt).__name__}>",
            )
        vocab = self._engine.executor.plan.vocab_size
        return None, [_token_id(token, vocab) for token in prompt]

    def _meaning(self, params: SamplingParams, grammar: Grammar | None) -> RequestTokens:
        tokenizer = self._loaded.tokenizer
        vocab = self._engine.executor.plan.vocab_size
        if grammar is None and params.structured_outputs is not None:
            grammar = self.compile(params.structured_outputs)
        if tokenizer is None:
            for field in ("stop", "bad_words"):
                if getattr(params, field):
                    raise RequestError("needs a tokenizer; this model has none", field=field)
            return RequestTokens(vocab)
        spellings = {
            tuple(tokenizer.encode(spelling, add_special=False))
            for word in params.bad_words
            for spelling in (word, f" {word}")
        }
        ends, bad_words = tuple(sorted(tokenizer.end_ids)), tuple(sorted(spellings - {()}))
        return RequestTokens(vocab, ends, bad_words, grammar)

    def compile(self, wanted: StructuredOutputs) -> Grammar:
        """A grammar over this model's tokens; any thread may call this. Raises RequestError, ConfigError."""
        tokenizer = self._loaded.tokenizer
        if tokenizer is None:
            raise RequestError("needs a tokenizer; this model has none", field="structured_outputs")
        with self._compiling:
            if self._compiler is None:
                vocab = self._engine.executor.plan.vocab_size
                self._compiler = GrammarCompiler(grammar_vocabulary(tokenizer, vocab))
        return self._compiler.compile(wanted)


def _unwrapped(prompt: Mapping[object, object]) -> object:
    given = [key for key in ("prompt", "prompt_token_ids") if key in prompt]
    if len(given) != 1 or len(prompt) != 1:
        raise RequestError("as a mapping holds prompt or prompt_token_ids, and nothing else", field="prompt")
    return prompt[given[0]]


def _token_id(token: object, vocab: int) -> int:
    if isinstance(token, bool) or not isinstance(token, Integral) or not 0 <= int(token) < vocab:
        shown = token if isinstance(token, int | float) else f"<{type(token).__name__}>"
        raise RequestError(f"is not a token id below {vocab}", field="prompt_token_ids", value=shown)
    return int(token)
