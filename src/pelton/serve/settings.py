"""How the server is set up, checked when made."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import ConfigError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LONGEST_KEY = 4096


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Everything the HTTP side needs to know.

    api_key: asked of every route but /health; None: none is asked. served_model_name: what /v1/models
    lists and requests may name. max_queue: sequences that may wait beyond those the engine runs at once.
    stall_seconds: a busy engine that finished no step for so long is not healthy. client_stall_seconds: a
    reader that takes nothing for so long is dropped. grace_seconds: how long running requests may go on
    after a signal to stop. allowed_hosts: values of the Host header that are answered; None: the names of
    the loopback interface where it is bound to that (against DNS rebinding), else any.
    """

    served_model_name: str
    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = field(default=None, repr=False)
    max_queue: int = 512
    max_body_bytes: int = 8 << 20
    stall_seconds: float = 60.0
    client_stall_seconds: float = 60.0
    grace_seconds: float = 4.0
    allowed_hosts: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not self.served_model_name or len(self.served_model_name) > 256:
            raise ConfigError("needs 1 to 256 characters", field="served_model_name")
        if self.api_key is not None and not (
            0 < len(self.api_key) <= LONGEST_KEY and self.api_key.isascii() and self.api_key.isprintable()
        ):
            raise ConfigError(f"needs 1 to {LONGEST_KEY} printable ASCII characters", field="api_key")
        self._check("port", self.port, 0, 65535)
        self._check("max_queue", self.max_queue, 0, 2**20)
        self._check("max_body_bytes", self.max_body_bytes, 1, 2**31)
        self._check("stall_seconds", self.stall_seconds, 0.1, 86400)
        self._check("client_stall_seconds", self.client_stall_seconds, 0.1, 86400)
        self._check("grace_seconds", self.grace_seconds, 0, 3600)

    def _check(self, name: str, value: float, low: float, high: float) -> None:
        if not low <= value <= high:
            raise ConfigError(f"must be from {low} to {high}", field=name, value=value)

    @property
    def hosts(self) -> tuple[str, ...]:
        if self.allowed_hosts is not None:
            return self.allowed_hosts
        return (*LOOPBACK, "[::1]") if self.host in LOOPBACK else ("*",)
