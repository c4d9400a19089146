"""Flags of `pelton serve` beyond the engine's: what a client may do, and what is told of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError
from .console import note

if TYPE_CHECKING:
    from ..serve.answers.generation import Service


class LogFormat(str, Enum):
    TEXT = "text"
    JSON = "json"


class LogLevel(str, Enum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class LimitFlags:
    """Who may ask, how much, for how long: fields of ServerSettings."""

    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key", envvar="PELTON_API_KEY", help="Asked of every route but /health.", show_envvar=True
        ),
    ] = None
    api_key_file: Annotated[
        Path | None,
        typer.Option("--api-key-file", help="Lines `TENANT KEY`: a key for each of several tenants."),
    ] = None
    max_queue: Annotated[
        int, typer.Option("--max-queue", help="Sequences that may wait; more get a 429.")
    ] = 512
    max_seqs_per_tenant: Annotated[
        int | None, typer.Option("--max-seqs-per-tenant", help="Sequences of one tenant at once.")
    ] = None
    max_connections: Annotated[
        int, typer.Option("--max-connections", help="Open at once; then the longest idle gives way.")
    ] = 4096
    request_timeout: Annotated[
        float | None, typer.Option("--request-timeout", help="Seconds a request may take in all.")
    ] = None
    client_stall_timeout: Annotated[
        float, typer.Option("--client-stall-timeout", help="Seconds a client may take nothing.")
    ] = 60.0
    allowed_host: Annotated[
        list[str] | None,
        typer.Option("--allowed-host", help="A Host header to answer, such as a proxy's; may be repeated."),
    ] = None
    cors_origin: Annotated[
        list[str] | None,
        typer.Option("--cors-origin", help="A web origin that browsers may ask from; may be repeated."),
    ] = None

    def settings(self) -> dict[str, Any]:
        """Keyword arguments for ServerSettings. Raises ConfigError for the key file."""
        from ..serve.http.keys import read_keys

        return {
            "api_key": self.api_key,
            "tenant_keys": () if self.api_key_file is None else read_keys(self.api_key_file),
            "max_queue": self.max_queue,
            "max_seqs_per_tenant": self.max_seqs_per_tenant,
            "max_connections": self.max_connections,
            "request_timeout": self.request_timeout,
            "client_stall_seconds": self.client_stall_timeout,
            "allowed_hosts": tuple(self.allowed_host) if self.allowed_host else None,
            "cors_origins": tuple(self.cors_origin or ()),
        }


@dataclass(frozen=True)
class SeeingFlags:
    """What the server tells of its work besides /metrics."""

    log_format: Annotated[LogFormat, typer.Option("--log-format", help="Lines on stderr.")] = LogFormat.TEXT
    log_level: Annotated[LogLevel, typer.Option("--log-level")] = LogLevel.INFO
    access_log: Annotated[
        bool, typer.Option("--access-log/--no-access-log", help="A line for each request.")
    ] = True
    otlp_endpoint: Annotated[
        str | None,
        typer.Option(
            "--otlp-endpoint",
            "--otlp-traces-endpoint",
            help="Where OpenTelemetry traces go, such as http://127.0.0.1:4318/v1/traces.",
        ),
    ] = None

    def announce(self, text: str) -> None:
        """Say something to whoever started the server; as a log line where those are for machines."""
        import logging

        if self.log_format is LogFormat.JSON:
            logging.getLogger("pelton.serve").warning("%s", text)
        else:
            note(text)

    @contextmanager
    def watching(self, service: Service) -> Iterator[None]:
        """Write the log and send traces for as long as the block runs."""
        import sys

        from ..serve.seeing.logs import logging_to

        level = self.log_level.value.upper()
        with logging_to(sys.stderr, self.log_format.value, level=level, access=self.access_log):
            if self.otlp_endpoint is None:
                yield
                return
            try:
                from ..serve.seeing.tracing import send_traces
            except ModuleNotFoundError as error:
                raise ConfigError(
                    f"needs {error.name}, which `pip install 'pelton[otel]'` brings", field="--otlp-endpoint"
                ) from None
            tracing = send_traces(self.otlp_endpoint, service.settings.served_model_name)
            service.on_end.append(tracing)
            try:
                yield
            finally:
                tracing.close()
