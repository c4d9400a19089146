"""Tools in a chat: what the request asks of the engine, and calls instead of text in the answer."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...config import SamplingParams
from ...errors import RequestError
from ...structured import ANY_OBJECT, StructuredOutputs
from ...text import Tokenizer
from ...tools.call_grammar import call_grammar, free_grammar
from ...tools.calls import CallDelta, Delta, TextDelta, ToolParser
from ...tools.definitions import ToolUse
from ...tools.dialects import Dialect
from ...tools.form import FormParser
from .replies import CalledFunction, CallPiece, ChatToolCall, FunctionPiece


@dataclass(frozen=True)
class Tooling:
    """A request's tools in the model's dialect.

    `params` are the engine's. They hold the model to a grammar where it must call, must write JSON unless it
    calls (`is_formed`: the whole answer is calls or that), or where a tool is strict; and marks of calls that
    are control tokens are not left out of its text.
    """

    use: ToolUse
    dialect: Dialect
    params: SamplingParams
    is_formed: bool

    @classmethod
    def of(cls, use: ToolUse, dialect: Dialect, tokenizer: Tokenizer, params: SamplingParams) -> Tooling:
        """Raises RequestError where the schemas are too large together, or another form is asked for."""
        ids = {marker: tokenizer.token_id(marker) for marker in dialect.markers}
        control = {marker: id for marker, id in ids.items() if id is not None and id in tokenizer.special_ids}
        if control:
            params = replace(params, skip_special_tokens=False)
        is_formed = use.must_call or params.structured_outputs is not None
        wanted = params.structured_outputs
        schema = (
            None if wanted is None else _schema(wanted)
        )  # of no use where it must call, but no other form is
        instead = None if use.must_call else schema
        try:
            if is_formed:
                params = replace(params, structured_outputs=call_grammar(use, dialect.form, control, instead))
            elif use.is_strict and dialect.trigger is not None:
                grammar = free_grammar(use, dialect.form, dialect.trigger, control)
                params = replace(params, structured_outputs=grammar)
        except RequestError as error:
            raise RequestError(error.message, field="tools") from None
        return cls(use, dialect, params, is_formed)

    def reader(self) -> CallReader:
        """For the text of one choice."""
        parser = FormParser(self.dialect.form) if self.is_formed else self.dialect.parser(self.use.names)
        return CallReader(parser, self.dialect, most=None if self.use.parallel else 1)


def _schema(wanted: StructuredOutputs) -> str:
    if wanted.kind not in ("json", "json_object"):
        raise RequestError(
            "only JSON goes together with tools; set tool_choice to none", field="structured_outputs"
        )
    return wanted.json if isinstance(wanted.json, str) else ANY_OBJECT


class CallReader:
    """Splits one choice's text, as it comes, into plain text and pieces of calls.

    `most`: further calls are left out.
    """

    def __init__(self, parser: ToolParser, dialect: Dialect, most: int | None) -> None:
        self._parser = parser
        self._dialect = dialect
        self._most = most
        self.has_calls = False

    def take(self, text: str, *, is_last: bool) -> tuple[str, list[CallPiece]]:
        """More text -> what of it is plain, and what it adds to calls."""
        deltas = self._parser.feed(text)
        if is_last:
            deltas += self._parser.finish()
        plain = "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))
        return plain, [self._piece(delta) for delta in deltas if self._is_wanted(delta)]

    def _is_wanted(self, delta: Delta) -> bool:
        return isinstance(delta, CallDelta) and (self._most is None or delta.index < self._most)

    def _piece(self, delta: Delta) -> CallPiece:
        assert isinstance(delta, CallDelta)
        self.has_calls = True
        if delta.name is None:
            return CallPiece(index=delta.index, function=FunctionPiece(arguments=delta.arguments))
        function = FunctionPiece(name=delta.name, arguments=delta.arguments)
        return CallPiece(index=delta.index, id=self._dialect.new_id(), type="function", function=function)


def whole_calls(pieces: list[CallPiece]) -> list[ChatToolCall]:
    """What the pieces of a choice's calls add up to."""
    calls: list[ChatToolCall] = []
    for piece in pieces:
        if piece.id is not None and piece.function.name is not None:
            function = CalledFunction(name=piece.function.name, arguments=piece.function.arguments)
            calls.append(ChatToolCall(id=piece.id, type="function", function=function))
        else:
            calls[piece.index].function.arguments += piece.function.arguments
    return calls
