"""How the server is set up, checked when made."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ..errors import ConfigError
from ..tools.dialects import dialect_named
from .http.keys import TenantKey

_HOST = re.compile(r"\*|(\*\.)?[A-Za-z0-9._-]{1,253}|\[?[0-9A-Fa-f:.]{2,45}\]?")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Everything the HTTP side needs to know.

    api_key: asked of every route but /health, its tenant is ""; tenant_keys: keys of named tenants, as
    good; neither: none is asked. served_model_name: what /v1/models lists and requests may name.
    max_queue: sequences that may wait beyond those the engine runs at once. max_seqs_per_tenant: sequences
    of one tenant that may be under way; None: as many as there is room for. stall_seconds: a busy engine
    that finished no step for so long is not healthy. client_stall_seconds: a reader that takes nothing for
    so long is dropped. max_connections, header_seconds, body_seconds: as ConnectionLimits says.
    keep_alive_seconds: how long a connection may be idle. request_timeout: seconds that a request may take
    in all; None: as long as it likes. cors_origins: whose web pages may ask from a browser; "*": all.
    grace_seconds: how long running requests may go on after a signal to stop. allowed_hosts: values of the
    Host header that are answered, without ports, *.NAME for all below a name; None: the names of the loopback
    interface where it is bound to that (against DNS rebinding), else any. page: whether `/` shows the page.
    tool_call_parser: how the model writes calls of tools; None: as its chat template shows.
    """

    served_model_name: str
    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = field(default=None, repr=False)
    tenant_keys: tuple[TenantKey, ...] = ()
    max_queue: int = 512
    max_seqs_per_tenant: int | None = None
    max_body_bytes: int = 8 << 20
    stall_seconds: float = 60.0
    client_stall_seconds: float = 60.0
    max_connections: int = 4096
    header_seconds: float = 10.0
    body_seconds: float = 10.0
    keep_alive_seconds: int = 60
    request_timeout: float | None = None
    cors_origins: tuple[str, ...] = ()
    grace_seconds: float = 4.0
    allowed_hosts: tuple[str, ...] | None = None
    page: bool = False
    tool_call_parser: str | None = None

    def __post_init__(self) -> None:
        if not self.served_model_name or len(self.served_model_name) > 256:
            raise ConfigError("needs 1 to 256 characters", field="served_model_name")
        keys = [key.key for key in self.keys]
        if len(set(keys)) < len(keys):
            raise ConfigError("gives one key to two tenants", field="api_key_file")
        if self.tool_call_parser is not None:
            dialect_named(self.tool_call_parser)
        for host in self.allowed_hosts or ():
            if not _HOST.fullmatch(host):
                raise ConfigError(
                    "is no host such as example.com or *.example.com", field="allowed_hosts", value=host
                )
        self._check("port", self.port, 0, 65535)
        self._check("max_queue", self.max_queue, 0, 2**20)
        if self.max_seqs_per_tenant is not None:
            self._check("max_seqs_per_tenant", self.max_seqs_per_tenant, 1, 2**20)
        self._check("max_body_bytes", self.max_body_bytes, 1, 2**31)
        self._check("stall_seconds", self.stall_seconds, 0.1, 86400)
        self._check("client_stall_seconds", self.client_stall_seconds, 0.1, 86400)
        self._check("max_connections", self.max_connections, 1, 2**20)
        self._check("header_seconds", self.header_seconds, 0.1, 3600)
        self._check("body_seconds", self.body_seconds, 0.1, 3600)
        self._check("keep_alive_seconds", self.keep_alive_seconds, 1, 86400)
        if self.request_timeout is not None:
            self._check("request_timeout", self.request_timeout, 0.001, 86400)
        self._check("grace_seconds", self.grace_seconds, 0, 3600)

    def _check(self, name: str, value: float, low: float, high: float) -> None:
        if not low <= value <= high:
            raise ConfigError(f"must be from {low} to {high}", field=name, value=value)

    @property
    def keys(self) -> tuple[TenantKey, ...]:
        """Every key that opens the server; none: it is open."""
        return (*(() if self.api_key is None else (TenantKey("", self.api_key),)), *self.tenant_keys)

    @property
    def tenants(self) -> frozenset[str]:
        return frozenset(key.tenant for key in self.keys) or frozenset({""})

    @property
    def hosts(self) -> tuple[str, ...]:
        if self.allowed_hosts is not None:
            return self.allowed_hosts
        return (*LOOPBACK, "[::1]") if self.host in LOOPBACK else ("*",)
