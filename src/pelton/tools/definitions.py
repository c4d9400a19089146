"""The functions that a request offers to the model, checked and bounded."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import RequestError
from ..structured import ANY_OBJECT, StructuredOutputs

MAX_TOOLS = 256
LONGEST_NAME = 64
LONGEST_DESCRIPTION = 16 << 10
_NAME = frozenset(string.ascii_letters + string.digits + "_.-")


@dataclass(frozen=True)
class ToolDefinition:
    """One function. `parameters` is the JSON schema of its arguments, an object's, as text.

    `strict`: arguments match it also where the model calls by itself.
    """

    name: str
    description: str | None = None
    parameters: str = ANY_OBJECT
    strict: bool = False

    def __post_init__(self) -> None:
        if not 0 < len(self.name) <= LONGEST_NAME or not _NAME.issuperset(self.name):
            raise RequestError(
                f"a name has 1 to {LONGEST_NAME} of the characters a-z, A-Z, 0-9, _, . and -",
                field="name",
                value=self.name[:LONGEST_NAME],
            )
        if self.description is not None and len(self.description) > LONGEST_DESCRIPTION:
            raise RequestError(
                f"at most {LONGEST_DESCRIPTION} characters are taken",
                field="description",
                value=len(self.description),
            )

    @classmethod
    def of(
        cls,
        name: str,
        description: str | None,
        parameters: Mapping[str, object] | None,
        *,
        strict: bool = False,
    ) -> ToolDefinition:
        """Raises RequestError naming `name`, `description` or `parameters`."""
        if not parameters:
            return cls(name, description, strict=strict)
        schema = {"type": "object", **parameters}
        if schema["type"] != "object":
            raise RequestError("arguments are an object: type must be object", field="parameters")
        try:
            text = StructuredOutputs(json=schema).json
        except RequestError as error:
            raise RequestError(error.message, field="parameters") from None
        assert isinstance(text, str)
        return cls(name, description, text, strict)

    def for_template(self) -> dict[str, object]:
        """The form in which chat templates expect it: OpenAI's."""
        function: dict[str, object] = {"name": self.name}
        if self.description is not None:
            function["description"] = self.description
        function["parameters"] = json.loads(self.parameters)
        return {"type": "function", "function": function}


@dataclass(frozen=True)
class ToolUse:
    """The tools of a request and how they may be used.

    `must_call`: the answer is one or more calls and no text. `only`: the one tool that may be called.
    `parallel`: whether there may be several calls.
    """

    definitions: tuple[ToolDefinition, ...]
    must_call: bool = False
    only: str | None = None
    parallel: bool = True

    def __post_init__(self) -> None:
        if len(self.definitions) > MAX_TOOLS:
            raise RequestError(f"at most {MAX_TOOLS} are taken", field="tools", value=len(self.definitions))
        if not self.definitions:
            raise RequestError("is empty", field="tools")
        names = [definition.name for definition in self.definitions]
        twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
        if twice is not None:
            raise RequestError("is defined twice", field="tools", value=twice)
        if self.only is not None and self.only not in names:
            raise RequestError("is none of the tools", field="tool_choice", value=self.only[:LONGEST_NAME])

    @property
    def callable(self) -> Sequence[ToolDefinition]:
        """The tools that the answer may call."""
        if self.only is None:
            return self.definitions
        return [definition for definition in self.definitions if definition.name == self.only]

    @property
    def is_strict(self) -> bool:
        """Whether one of the tools wants its schema kept."""
        return any(definition.strict for definition in self.callable)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(definition.name for definition in self.callable)
