"""The routes."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.middleware.cors import CORSMiddleware

from .. import __version__
from ..errors import RequestError
from .answers.generation import Service, caller_of
from .anthropic.messages import add_messages
from .http.body import JsonRoute
from .http.events import EventStream, while_connected
from .http.failures import error_response, install_handlers
from .http.guard import ApiKey, BodyLimit, FullQueue, Requests
from .http.openapi import PLAIN, STREAM, DescribedApp
from .http.origin import OwnHosts, OwnOrigins
from .http.replies import Health, Version, json_reply
from .openai.chat import Chat, render
from .openai.completion import TextCompletion
from .openai.embeddings import add_embeddings
from .openai.fields import ChatRequest, DetokenizeRequest, TemplateFields, TokenizeRequest
from .openai.prompt_fields import CompletionRequest
from .openai.replies import ChatCompletion, Completion, ErrorReply, Model, ModelList, Text, Tokens
from .responses.routes import add_responses
from .stats import add_stats

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorReply} for status in (400, 401, 403, 404, 413, 415, 422, 429, 500, 503, 504)
}

_TEXT_PATHS = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"})
"""Where a POST always needs room in the queue."""


def make_app(service: Service) -> FastAPI:
    """The ASGI application over a service."""
    # No pages that would fetch scripts from elsewhere; the document itself is at /openapi.json.
    app = DescribedApp(title="pelton", version=__version__, docs_url=None, redoc_url=None, responses=_ERRORS)
    app.router.route_class = JsonRoute
    app.has_keys, app.served = bool(service.settings.keys), service.settings.served_model_name
    install_handlers(app)
    _add_generation(app, service)
    add_embeddings(app, service)
    add_messages(app, service)
    add_responses(app, service)
    _add_tokens(app, service)
    _add_state(app, service)
    add_stats(app, service)
    if service.settings.page:
        from .page.mount import add_page  # NiceGUI takes a second to import

        add_page(app, service)
    _add_guards(app, service)
    return app


def _add_guards(app: FastAPI, service: Service) -> None:
    """What a request meets before a route does; the last one added is the first it meets."""
    settings = service.settings
    app.add_middleware(BodyLimit, most=settings.max_body_bytes)
    app.add_middleware(FullQueue, gate=service.gate, paths=_TEXT_PATHS)
    app.add_middleware(ApiKey, keys=settings.keys)
    app.add_middleware(OwnOrigins, hosts=settings.hosts, allowed=settings.cors_origins)
    app.add_middleware(OwnHosts, hosts=settings.hosts)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["X-Request-Id", "Request-Id", "Retry-After"],
        )
    app.add_middleware(Requests, seconds=settings.request_timeout, ended=service.end)


def _add_generation(app: FastAPI, service: Service) -> None:
    @app.post("/v1/chat/completions", response_model=ChatCompletion, responses={200: STREAM})
    async def chat_completions(request: Request, body: ChatRequest) -> Response:
        return await _answer(request, service, Chat(service, caller_of(request), body), body.stream)

    @app.post("/v1/completions", response_model=Completion, responses={200: STREAM})
    async def completions(request: Request, body: CompletionRequest) -> Response:
        return await _answer(request, service, TextCompletion(service, caller_of(request), body), body.stream)


async def _answer(
    request: Request, service: Service, work: Chat | TextCompletion, stream: bool | None
) -> Response:
    if not stream:
        return json_reply(await while_connected(request, work.whole()))
    frames = work.chunks()
    # The first frame decides the status: what fails before it is an HTTP error, not an event.
    first = await while_connected(request, anext(frames))
    return EventStream(first, frames)


def _add_tokens(app: FastAPI, service: Service) -> None:
    prompts = service.prompts

    @app.post("/tokenize", response_model=Tokens)
    async def tokenize(body: TokenizeRequest) -> Response:
        service.check_model(body.model)
        ids = await _tokenize(service, body)
        reply = Tokens(count=len(ids), max_model_len=service.client.facts.context_length, tokens=ids)
        if body.return_token_strs:
            reply.token_strs = [prompts.tokenizer.piece(token) or "" for token in ids]
        return json_reply(reply)

    @app.post("/detokenize", response_model=Text)
    async def detokenize(body: DetokenizeRequest) -> Response:
        service.check_model(body.model)
        vocab = service.client.facts.vocab_size
        beyond = next((token for token in body.tokens if not 0 <= token < vocab), None)
        if beyond is not None:
            shown = beyond if beyond.bit_length() <= 64 else None
            raise RequestError(f"holds what is not a token id below {vocab}", field="tokens", value=shown)
        return json_reply(Text(prompt=await prompts.decode(body.tokens)))


async def _tokenize(service: Service, body: TokenizeRequest) -> list[int]:
    if (body.prompt is None) == (body.messages is None):
        raise RequestError("give either this or messages", field="prompt")
    if body.prompt is not None:
        return await service.prompts.encode(body.prompt, add_special=body.add_special_tokens)
    template = TemplateFields(
        messages=body.messages or [],
        add_generation_prompt=body.add_generation_prompt,
        continue_final_message=body.continue_final_message,
        chat_template_kwargs=body.chat_template_kwargs,
        tools=body.tools,
    )
    return await render(service.prompts, template)


def _add_state(app: FastAPI, service: Service) -> None:
    settings, client = service.settings, service.client
    model = Model(
        id=settings.served_model_name, created=service.created, max_model_len=client.facts.context_length
    )

    @app.get("/v1/models")
    async def models() -> ModelList:
        return ModelList(data=[model])

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> Model:
        service.check_model(name)
        return model

    @app.get("/health", response_model=Health)
    async def health() -> Response:
        fault = client.fault(settings.stall_seconds)
        return error_response(503, fault) if fault else JSONResponse({"status": "ok"})

    @app.get("/ready", response_model=Health)
    async def ready() -> Response:
        fault = "the server is stopping" if service.gate.stopping else client.fault(settings.stall_seconds)
        return error_response(503, fault) if fault else JSONResponse({"status": "ok"})

    @app.get("/version")
    async def version() -> Version:
        return Version(version=__version__)

    @app.get("/metrics", response_class=Response, responses={200: PLAIN})
    async def metrics() -> Response:
        return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
