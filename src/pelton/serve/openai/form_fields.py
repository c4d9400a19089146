"""What clients may say of an answer's form: vLLM's `structured_outputs`, OpenAI's `response_format`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Tag

from ...errors import RequestError
from ...structured import StructuredOutputs
from .unions import by_type


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class StructuredFields(_Fields):
    """vLLM's field; exactly one of the first five is given."""

    json_: str | dict[str, Any] | None = Field(default=None, alias="json")
    json_object: bool | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    disable_any_whitespace: bool | None = None

    def outputs(self) -> StructuredOutputs:
        """Raises RequestError naming the part that is wrong."""
        try:
            return StructuredOutputs(
                json=self.json_,
                json_object=bool(self.json_object),
                regex=self.regex,
                choice=self.choice or (),
                grammar=self.grammar,
                disable_any_whitespace=bool(self.disable_any_whitespace),
            )
        except RequestError as error:
            inner = "" if error.field is None else f".{error.field}"
            raise RequestError(error.message, field=f"structured_outputs{inner}", value=error.value) from None


class TextFormat(_Fields):
    type: Literal["text"]

    def outputs(self) -> None:
        """Nothing is asked of a text."""


class JsonObjectFormat(_Fields):
    type: Literal["json_object"]

    def outputs(self) -> StructuredOutputs:
        return StructuredOutputs(json_object=True)


class NamedSchema(_Fields):
    name: str
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class JsonSchemaFormat(_Fields):
    """The schema is held to, whether `strict` or not."""

    type: Literal["json_schema"]
    json_schema: NamedSchema

    def outputs(self) -> StructuredOutputs:
        """Raises RequestError naming the schema."""
        try:
            return StructuredOutputs(json=self.json_schema.schema_)
        except RequestError as error:
            raise RequestError(error.message, field="response_format.json_schema.schema") from None


ResponseFormat = Annotated[
    Annotated[TextFormat, Tag("<text>")]
    | Annotated[JsonObjectFormat, Tag("<json_object>")]
    | Annotated[JsonSchemaFormat, Tag("<json_schema>")],
    by_type(),
]
