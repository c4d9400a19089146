"""What a request asks for, checked once where it enters: `SamplingParams`, named as vLLM names it.

Nothing is clamped or repaired. A value outside its range raises RequestError with the field and
the value, so no later code meets a NaN temperature or a list of a million stop strings.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import islice
from numbers import Integral, Real

from .errors import ContextOverflowError, RequestError
from .structured import StructuredOutputs

SUBJECT = "sampling parameters"
GREEDY_TEMPERATURE = 1e-5
"""Below this the most likely token is taken; dividing float32 logits by less could overflow."""

MAX_N = 128
MAX_TEMPERATURE = 100.0
MAX_INTEGER = 2**31 - 1
MAX_SEED = 2**63 - 1
DRAWN_SEED = -1
"""What vLLM takes for no seed."""
MAX_LOGPROBS = 20
MAX_LOGIT_BIAS = 1024
MAX_STOP_TOKEN_IDS = 1024
MAX_TOKEN_IDS = 2**18
"""Longest list of allowed or banned tokens; the largest vocabulary in use has 262,144 entries."""
MAX_STOP_STRINGS = 16
MAX_BAD_WORDS = 128
MAX_STRING_LENGTH = 256

_INTEGERS = (
    ("n", 1, MAX_N),
    ("top_k", -1, MAX_INTEGER),
    ("min_tokens", 0, MAX_INTEGER),
)
_OPTIONAL_INTEGERS = (
    ("max_tokens", 0, MAX_INTEGER),
    ("seed", -MAX_SEED - 1, MAX_SEED),
    ("logprobs", 0, MAX_LOGPROBS),
    ("prompt_logprobs", 0, MAX_LOGPROBS),
)
_REALS = (  # name, low, high, whether low itself is refused
    ("temperature", 0.0, MAX_TEMPERATURE, False),
    ("top_p", 0.0, 1.0, True),
    ("min_p", 0.0, 1.0, False),
    ("typical_p", 0.0, 1.0, True),
    ("repetition_penalty", 0.01, 100.0, False),
    ("frequency_penalty", -2.0, 2.0, False),
    ("presence_penalty", -2.0, 2.0, False),
)
LIMITS: Mapping[str, tuple[float, float, bool]] = {
    **{name: (low, high, False) for name, low, high in (*_INTEGERS, *_OPTIONAL_INTEGERS)},
    **{name: (low, high, is_open) for name, low, high, is_open in _REALS},
    "max_tokens": (1, MAX_INTEGER, False),
}
"""Lowest and highest value of each number below, and whether the lowest itself is refused. (0 `max_tokens`
are for requests that ask for something besides tokens.)"""
_FLAGS = ("ignore_eos", "include_stop_str_in_output", "skip_special_tokens", "detokenize", "hidden_state")
_TOKEN_LISTS = ("stop_token_ids", "allowed_token_ids", "banned_token_ids", "logit_bias")


class TokenBias(Mapping[int, float]):
    """A logit bias that cannot change after it was checked; hashable, compares equal to a dict."""

    __slots__ = ("_pairs",)

    def __init__(self, pairs: Iterable[tuple[int, float]]) -> None:
        self._pairs = dict(sorted(pairs))

    def __getitem__(self, token: int) -> float:
        return self._pairs[token]

    def __iter__(self) -> Iterator[int]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __hash__(self) -> int:
        return hash(tuple(self._pairs.items()))

    def __repr__(self) -> str:
        return repr(self._pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How a request's tokens are chosen and when it ends; names and defaults are vLLM's.

    Lists may be given as any sequence or set (one string for `stop`, None for nothing) and are
    stored as tuples. Raises RequestError naming field and value.

    - `temperature` below 1e-5 is greedy: the most likely token, the lowest id among equals; `top_p`,
      `top_k`, `min_p` and `typical_p` then have no effect. `top_k` 0 or -1 keeps all tokens.
    - `repetition_penalty` looks at prompt and output; the other two penalties at the output alone.
    - `max_tokens` None runs to the context limit; 0 chooses no token at all, for requests that want only
      `hidden_state` or `prompt_logprobs`. `min_tokens` holds back end and stop tokens.
    - `seed`: any integer of 64 bits; None or -1 lets the engine draw one. Sequence i of `n` uses random
      stream i of the seed.
    - `logprobs` k reports the k most likely tokens of the model's own distribution, and the chosen one. At
      most 20; -1, vLLM's whole vocabulary, is refused, as vLLM does until its max_logprobs is raised.
    - `structured_outputs` is the form that each text must have; end tokens come only where it is complete.
    - `hidden_state` reports what the model's head reads at the prompt's last token: see `LLM.embed`.
    - `typical_p` and `banned_token_ids` are not vLLM's; they mean what Hugging Face's do.
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] | None = None
    allowed_token_ids: Sequence[int] | None = None
    banned_token_ids: Sequence[int] = ()
    bad_words: Sequence[str] = ()
    min_tokens: int = 0
    max_tokens: int | None = 16
    stop: Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True
    seed: int | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    detokenize: bool = True
    structured_outputs: StructuredOutputs | None = None
    hidden_state: bool = False

    def __post_init__(self) -> None:
        for name, low, high in _INTEGERS:
            self._put(name, _integer(name, getattr(self, name), low, high))
        for name, low, high in _OPTIONAL_INTEGERS:
            value = getattr(self, name)
            self._put(name, None if value is None else _integer(name, value, low, high))
        if self.seed == DRAWN_SEED:
            self._put("seed", None)
        for name, lowest, highest, is_open in _REALS:
            self._put(name, _real(name, getattr(self, name), lowest, highest, is_open))
        for name in _FLAGS:
            self._put(name, _flag(name, getattr(self, name)))
        self._put("stop", _strings("stop", self.stop, MAX_STOP_STRINGS))
        self._put("bad_words", _strings("bad_words", self.bad_words, MAX_BAD_WORDS))
        self._put("stop_token_ids", _token_ids("stop_token_ids", self.stop_token_ids, MAX_STOP_TOKEN_IDS))
        self._put("banned_token_ids", _token_ids("banned_token_ids", self.banned_token_ids, MAX_TOKEN_IDS))
        if self.allowed_token_ids is not None:
            allowed = _token_ids("allowed_token_ids", self.allowed_token_ids, MAX_TOKEN_IDS)
            self._put("allowed_token_ids", allowed)
        if self.logit_bias is not None:
            self._put("logit_bias", _token_bias(self.logit_bias))
        self._check_conflicts()

    def _put(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_conflicts(self) -> None:
        if not isinstance(self.structured_outputs, StructuredOutputs | None):
            raise _error("structured_outputs", self.structured_outputs, "must be a StructuredOutputs")
        if self.max_tokens == 0:
            self._check_prompt_alone()
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise _error("min_tokens", self.min_tokens, f"is above max_tokens {self.max_tokens}")
        if self.is_greedy and self.n > 1:
            raise _error("n", self.n, "greedy sequences would all be equal; raise temperature or use n = 1")
        if self.stop and not self.detokenize:
            raise _error("stop", self.stop, "stop strings need text; detokenize is False")
        if self.allowed_token_ids is not None and not set(self.allowed_token_ids) - set(
            self.banned_token_ids
        ):
            raise _error("allowed_token_ids", self.allowed_token_ids, "leaves no token to choose from")

    def _check_prompt_alone(self) -> None:
        if not self.hidden_state and self.prompt_logprobs is None:
            message = f"must be from 1 to {MAX_INTEGER}, or 0 with hidden_state or prompt_logprobs"
            raise _error("max_tokens", self.max_tokens, message)
        if self.n > 1:
            raise _error("n", self.n, "sequences without tokens would all be equal")

    @property
    def is_greedy(self) -> bool:
        return self.temperature < GREEDY_TEMPERATURE

    def validate_for(self, vocab_size: int, context_length: int, prompt_length: int) -> None:
        """Check what needs the model: token ids below `vocab_size`, room in `context_length` positions.

        Raises RequestError for a token id, ContextOverflowError where the prompt with `min_tokens`
        (at least one token) does not fit. A `max_tokens` beyond the context is not an error: the text
        ends there, see `token_limit`.
        """
        for name in _TOKEN_LISTS:
            beyond = max(getattr(self, name) or (0,))
            if beyond >= vocab_size:
                raise _error(name, beyond, f"is not a token id of this model, which has {vocab_size}")
        if len(self.banned_token_ids) >= vocab_size:
            raise _error("banned_token_ids", self.banned_token_ids, "leaves no token to choose from")
        if prompt_length < 1:
            raise RequestError("is empty; at least one token is needed", subject="prompt")
        needed = max(1, self.min_tokens)
        if prompt_length + needed > context_length:
            raise ContextOverflowError(
                f"{prompt_length} prompt tokens and at least {needed} to generate do not fit"
                f" the context of {context_length}",
                subject="prompt",
            )

    def token_limit(self, context_length: int, prompt_length: int) -> int:
        """Most tokens this request may generate: `max_tokens`, or what the context leaves if less."""
        room = context_length - prompt_length
        return room if self.max_tokens is None else min(self.max_tokens, room)


def _error(name: str, value: object, message: str) -> RequestError:
    return RequestError(message, subject=SUBJECT, field=name, value=_shown(value))


def _shown(value: object) -> object:
    """A value short enough for a message: printing a hostile one must not cost time or raise."""
    if isinstance(value, str):
        return value[:64]
    if isinstance(value, bool | float):
        return value
    if isinstance(value, Integral):
        number = int(value)
        return number if number.bit_length() <= 128 else f"<integer of {number.bit_length()} bits>"
    if isinstance(value, Sequence | AbstractSet | Mapping):
        return f"<{type(value).__name__} of {len(value)}>"
    return f"<{type(value).__name__}>"


def _integer(name: str, value: object, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise _error(name, value, "must be an integer")
    number = int(value)
    if not low <= number <= high:
        raise _error(name, number, f"must be from {low} to {high}")
    return number


def _real(name: str, value: object, low: float, high: float, low_is_open: bool = False) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise _error(name, value, "must be a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    # written so that NaN fails it
    if not low <= number <= high or (low_is_open and number == low):
        above = "above" if low_is_open else "from"
        raise _error(name, value, f"must be {above} {low:g}{',' if low_is_open else ''} to {high:g}")
    return number


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _error(name, value, "must be True or False")
    return value


def _items(name: str, value: object, most: int) -> list[object]:
    """The entries of a sequence or set, refused by length before any is looked at."""
    if value is None:
        return []
    if isinstance(value, str | bytes | bytearray) or not isinstance(value, Sequence | AbstractSet):
        raise _error(name, value, "must be a list")
    if len(value) > most:
        raise _error(name, value, f"has {len(value)} entries; at most {most} are taken")
    return list(islice(iter(value), most))


def _token_ids(name: str, value: object, most: int) -> tuple[int, ...]:
    ids = {_integer(name, item, 0, MAX_INTEGER) for item in _items(name, value, most)}
    return tuple(sorted(ids))


def _strings(name: str, value: object, most: int) -> tuple[str, ...]:
    items = [value] if isinstance(value, str) else _items(name, value, most)
    return tuple(dict.fromkeys(_string(name, item) for item in items))


def _string(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise _error(name, value, "must be a string")
    if not 1 <= len(value) <= MAX_STRING_LENGTH:
        raise _error(name, value, f"has {len(value)} characters; 1 to {MAX_STRING_LENGTH} are taken")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _error(name, value, "holds a lone surrogate, which is no text") from None
    return value


def _token_bias(value: object) -> TokenBias:
    if not isinstance(value, Mapping):
        raise _error("logit_bias", value, "must map token ids to numbers")
    if len(value) > MAX_LOGIT_BIAS:
        raise _error("logit_bias", value, f"has {len(value)} entries; at most {MAX_LOGIT_BIAS} are taken")
    pairs = islice(value.items(), MAX_LOGIT_BIAS)
    return TokenBias(
        (_integer("logit_bias", token, 0, MAX_INTEGER), _real("logit_bias", bias, -100.0, 100.0))
        for token, bias in pairs
    )
