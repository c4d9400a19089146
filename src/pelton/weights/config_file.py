"""A Hugging Face folder's JSON settings (config.json and its siblings), typed and tracked."""

from __future__ import annotations

from pathlib import Path

from ..errors import ModelFileError
from .fields import Fields
from .mapped import map_file
from .strict_json import parse_object

# The largest config.json in use are some tens of kB; quantization maps reach a few hundred.
_MOST_BYTES = 4 << 20


class ConfigFile(Fields):
    """The getters of Fields over a JSON object, and `section` for the objects inside it."""

    def section(self, key: str) -> ConfigFile | None:
        """The object under `key`, or None where it is absent; its own `unread` is its reader's to ask."""
        value = self._value(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            self._wrong(key, value, "an object")
        return ConfigFile(self.subject, value, f"{self._prefix}{key}.")


def open_config(folder_or_file: Path | str) -> ConfigFile:
    """config.json of a model folder, or the JSON file itself. Raises ModelFileError."""
    path = Path(folder_or_file)
    if path.is_dir():
        path = path / "config.json"
    data = map_file(path)
    if data.size > _MOST_BYTES:
        raise ModelFileError(f"longer than {_MOST_BYTES} bytes", subject=path, field="size", value=data.size)
    return ConfigFile(path, parse_object(data.data, path))
