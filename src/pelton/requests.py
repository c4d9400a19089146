"""The requests an engine is working on: prompts in, pieces of text out. LLM and AsyncLLM share it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np

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
Prompt = str | Sequence[int] | Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Delta:
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

    def step(self) -> list[Delta]:
        """One engine step; what it added to each request."""
        deltas = []
        for event in self._engine.step():
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

    def _tokens_of(self, prompt: Prompt) -> tuple[str | None, list[int]]:
        if isinstance(prompt, str):
            return prompt, self.encode(prompt)
        if isinstance(prompt, Mapping):
            unknown = set(prompt) - {"prompt_token_ids"}
            if unknown or "prompt_token_ids" not in prompt:
                raise RequestError("holds prompt_token_ids and nothing else", field="prompt", value=prompt)
            prompt = prompt["prompt_token_ids"]
        vocab = self._engine.executor.plan.vocab_size
        for token in prompt:
            if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < vocab:
                raise RequestError(f"is not a token id below {vocab}", field="prompt_token_ids", value=token)
        return None, list(prompt)

    def _meaning(self, params: SamplingParams, grammar: Grammar | None) -> RequestTokens:
        tokenizer = self._loaded.tokenizer
        vocab = self._engine.executor.plan.vocab_size
        if grammar is None and params.structured_outputs is not None:
            grammar = self.compile(params.structured_outputs)
        if tokenizer is None:
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
