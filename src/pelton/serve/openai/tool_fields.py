"""How clients offer tools, in OpenAI's form."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ...errors import RequestError
from ...tools.definitions import ToolDefinition, ToolUse


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class FunctionFields(_Fields):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(_Fields):
    type: Literal["function"]
    function: FunctionFields


class ChosenFunction(_Fields):
    name: str


class NamedChoice(_Fields):
    type: Literal["function"]
    function: ChosenFunction


ToolChoice = Literal["none", "auto", "required"] | NamedChoice


def tool_use(tools: list[Tool] | None, choice: ToolChoice | None, parallel: bool | None) -> ToolUse | None:
    """None where the model shall not call. Raises RequestError naming the tool that is wrong."""
    if not tools:
        if choice not in (None, "none", "auto"):
            raise RequestError("needs tools", field="tool_choice")
        return None
    definitions = tuple(_definition(tool, f"tools[{index}]") for index, tool in enumerate(tools))
    named = choice.function.name if isinstance(choice, NamedChoice) else None
    use = ToolUse(
        definitions,
        must_call=choice == "required" or named is not None,
        only=named,
        parallel=parallel is not False and named is None,
    )
    return None if choice == "none" else use


def _definition(tool: Tool, field: str) -> ToolDefinition:
    function = tool.function
    try:
        return ToolDefinition.of(
            function.name, function.description, function.parameters, strict=function.strict is True
        )
    except RequestError as error:
        raise RequestError(
            error.message, field=f"{field}.function.{error.field}", value=error.value
        ) from None
