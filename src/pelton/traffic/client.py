"""One streamed chat request to an OpenAI-compatible server, timed as its client sees it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import aiohttp

from ..errors import ConfigError

_LONGEST_LINE = 1 << 20


@dataclass(frozen=True)
class Target:
    """A server. `extra` are fields sent with every request; a server that does not know one may refuse it."""

    url: str
    model: str
    key: str | None = None
    extra: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError("must begin with http:// or https://", field="base-url", value=self.url)

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.key is None else {"Authorization": f"Bearer {self.key}"}


@dataclass
class Exchange:
    """What came of one request. Times in seconds: `start` on the run's clock, the others from `start`.

    arrivals: of the pieces that carried text. completion_tokens: as the server counts them, else the pieces.
    cached_tokens: prompt tokens the server says it did not compute; None where it does not say.
    """

    session: str
    start: float
    arrivals: list[float] = field(default_factory=list)
    end: float = 0.0
    text: str = ""
    prompt_tokens: int = 0
    cached_tokens: int | None = None
    completion_tokens: int = 0
    finish_reason: str | None = None
    status: int = 0
    error: str | None = None

    @property
    def succeeded(self) -> bool:
        return self.error is None

    @property
    def ttft(self) -> float:
        """Time to the first text."""
        return self.arrivals[0] if self.arrivals else self.end

    @property
    def tpot(self) -> float | None:
        """Time per output token after the first; None where there is at most one."""
        later = self.completion_tokens - 1
        return (self.end - self.ttft) / later if later > 0 and self.arrivals else None


async def ask(
    http: aiohttp.ClientSession,
    target: Target,
    messages: Sequence[Mapping[str, str]],
    max_tokens: int,
    session: str,
    clock_start: float,
) -> Exchange:
    """Send one request and read its stream to the end; failures are part of the result."""
    body = {
        "model": target.model,
        "messages": list(messages),
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        **target.extra,
    }
    began = perf_counter()
    exchange = Exchange(session, began - clock_start)
    try:
        url = f"{target.url}/v1/chat/completions"
        async with http.post(url, json=body, headers=target.headers) as response:
            exchange.status = response.status
            if response.status != 200:
                exchange.error = f"{response.status}: {(await response.text())[:300]}"
            else:
                await _read(response, exchange, began)
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        exchange.error = f"{type(error).__name__}: {error}"
    exchange.end = perf_counter() - began
    return exchange


async def _read(response: aiohttp.ClientResponse, exchange: Exchange, began: float) -> None:
    parts: list[str] = []
    done = False
    async for line in response.content:
        if len(line) > _LONGEST_LINE:
            raise ValueError("a line of the stream is too long")
        if not line.startswith(b"data:"):
            continue
        payload = line[5:].strip()
        if payload == b"[DONE]":
            done = True
            break
        moment = perf_counter() - began
        piece = _take(json.loads(payload), exchange)
        if piece:
            exchange.arrivals.append(moment)
            parts.append(piece)
    exchange.text = "".join(parts)
    exchange.completion_tokens = exchange.completion_tokens or len(exchange.arrivals)
    if exchange.error is None and not (done and exchange.finish_reason):
        exchange.error = "the stream ended without a finish reason and [DONE]"


def _take(chunk: Any, exchange: Exchange) -> str:
    """Note what a chunk says; the text that it adds."""
    if not isinstance(chunk, dict) or "error" in chunk:
        exchange.error = f"error in the stream: {str(chunk)[:300]}"
        return ""
    if usage := chunk.get("usage"):
        details = usage.get("prompt_tokens_details") or {}
        exchange.prompt_tokens = usage.get("prompt_tokens") or 0
        exchange.completion_tokens = usage.get("completion_tokens") or 0
        exchange.cached_tokens = details.get("cached_tokens")
    text = ""
    for choice in chunk.get("choices") or ():
        exchange.finish_reason = choice.get("finish_reason") or exchange.finish_reason
        text += (choice.get("delta") or {}).get("content") or ""
    return text
