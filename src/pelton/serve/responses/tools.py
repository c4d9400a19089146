"""Tools and forms of answers in the words of /v1/responses."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, Tag

from ..openai.fields import Fields
from ..openai.form_fields import JsonObjectFormat, JsonSchemaFormat, NamedSchema, ResponseFormat, TextFormat
from ..openai.tool_fields import ChosenFunction, FunctionFields, NamedChoice, Tool, ToolChoice
from ..openai.unions import by_type


class ResponseTool(Fields):
    """A function of the client's own; OpenAI's built-in tools are not there."""

    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    def tool(self) -> Tool:
        """The same for a chat."""
        function = FunctionFields(
            name=self.name, description=self.description, parameters=self.parameters, strict=self.strict
        )
        return Tool(type="function", function=function)


class NamedTool(Fields):
    type: Literal["function"]
    name: str


ResponseToolChoice = Literal["none", "auto", "required"] | NamedTool


def chat_choice(choice: ResponseToolChoice | None) -> ToolChoice | None:
    """The same for a chat."""
    if not isinstance(choice, NamedTool):
        return choice
    return NamedChoice(type="function", function=ChosenFunction(name=choice.name))


class TextSchema(Fields):
    type: Literal["json_schema"]
    name: str
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class TextSettings(Fields):
    format: (
        Annotated[
            Annotated[TextFormat, Tag("<text>")]
            | Annotated[JsonObjectFormat, Tag("<json_object>")]
            | Annotated[TextSchema, Tag("<json_schema>")],
            by_type(),
        ]
        | None
    ) = None

    def chat_format(self) -> ResponseFormat | None:
        """The same for a chat."""
        given = self.format
        if not isinstance(given, TextSchema):
            return given
        schema = NamedSchema(
            name=given.name, description=given.description, schema=given.schema_, strict=given.strict
        )
        return JsonSchemaFormat(type="json_schema", json_schema=schema)
