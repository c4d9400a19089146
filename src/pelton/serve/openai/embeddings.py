"""POST /v1/embeddings: each prompt as a vector, through the same batch as everything else."""

from __future__ import annotations

import base64
from contextlib import aclosing
from typing import Literal

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic import BaseModel

from ...outputs import EMBEDDING, Embedding
from ..answers.generation import Answer, Caller, Service, caller_of
from ..http.events import while_connected
from ..http.replies import full_reply
from .completion import tokens_of
from .prompt_fields import EmbeddingRequest, prompts_of


class EmbeddingData(BaseModel):
    """`embedding` is base64 of little-endian float32 where that was asked for."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class EmbeddingReply(BaseModel):
    id: str
    object: Literal["list"] = "list"
    created: int
    data: list[EmbeddingData]
    model: str
    usage: EmbeddingUsage


def add_embeddings(app: FastAPI, service: Service) -> None:
    """The route of this API."""

    @app.post("/v1/embeddings", response_model=EmbeddingReply)
    async def embeddings(request: Request, body: EmbeddingRequest) -> Response:
        work = Embed(service, caller_of(request), body)
        return full_reply(await while_connected(request, work.whole()))


class Embed:
    """One request, checked when made; `whole` runs it."""

    def __init__(self, service: Service, caller: Caller, body: EmbeddingRequest) -> None:
        service.check_model(body.model)
        self._service = service
        self._body = body
        room = service.room(body.truncate_prompt_tokens)
        given = prompts_of(body.input, "input", room)
        self._answer = Answer(
            service,
            f"embd-{body.request_id or caller.request_id}",
            [tokens_of(service.prompts, prompt, "input", room) for prompt in given],
            EMBEDDING,
            "input",
            body.terms(caller.tenant),
            body.truncate_prompt_tokens,
            caller.record,
        )

    async def whole(self) -> EmbeddingReply:
        """Raises PeltonErrors."""
        found: dict[int, list[float]] = {}
        async with aclosing(self._answer.pieces()) as pieces:
            async for piece in pieces:
                if piece.hidden_state is not None:
                    found[piece.index] = Embedding.of(piece.hidden_state, self._body.dimensions).embedding
        prompt_tokens = self._answer.usage.prompt_tokens
        return EmbeddingReply(
            id=self._answer.id,
            created=self._answer.created,
            data=[EmbeddingData(index=index, embedding=self._shown(found[index])) for index in sorted(found)],
            model=self._service.settings.served_model_name,
            usage=EmbeddingUsage(prompt_tokens=prompt_tokens, total_tokens=prompt_tokens),
        )

    def _shown(self, vector: list[float]) -> list[float] | str:
        if self._body.encoding_format != "base64":
            return vector
        return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()
