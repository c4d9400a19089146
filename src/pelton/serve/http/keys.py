"""API keys, each with the tenant it belongs to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ...errors import ConfigError
from ...terms import LONGEST_LABEL

LONGEST_KEY = 4096
MOST_KEYS = 1000
_LARGEST_FILE = 1 << 20


@dataclass(frozen=True)
class TenantKey:
    """An API key and whose it is. Raises ConfigError, which never shows the key."""

    tenant: str
    key: str = field(repr=False)

    def __post_init__(self) -> None:
        if not (0 < len(self.key) <= LONGEST_KEY and self.key.isascii() and self.key.isprintable()):
            raise ConfigError(f"needs 1 to {LONGEST_KEY} printable ASCII characters", field="api_key")
        if len(self.tenant) > LONGEST_LABEL or not self.tenant.isprintable():
            raise ConfigError(
                f"needs printable tenants of at most {LONGEST_LABEL} characters", field="api_key_file"
            )


def read_keys(path: Path) -> tuple[TenantKey, ...]:
    """Keys of a file with lines `TENANT KEY`; empty lines and those that begin with # are left out.

    Raises ConfigError that names the file and the line, never the key.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", subject=str(path)) from None
    if len(text) > _LARGEST_FILE:
        raise ConfigError(f"is larger than {_LARGEST_FILE} bytes", subject=str(path))
    keys = []
    for number, line in enumerate(text.decode("utf-8", "replace").splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2:
            raise ConfigError("needs TENANT KEY", subject=str(path), field=f"line {number}")
        keys.append(TenantKey(words[0], words[1]))
    if not 0 < len(keys) <= MOST_KEYS:
        raise ConfigError(f"needs 1 to {MOST_KEYS} keys", subject=str(path), value=len(keys))
    return tuple(keys)
