"""A model's chat template: messages in, the prompt's text out.

Templates come with model files and are untrusted; they run in a bounded sandbox (see
sandbox.py) with the settings, filters and functions that Hugging Face's
`apply_chat_template` gives them, and render the same text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from threading import Lock

from jinja2 import Template, meta
from jinja2.exceptions import TemplateError as JinjaError
from jinja2.exceptions import TemplateSyntaxError

from pelton.errors import PeltonError, RequestError, TemplateError
from pelton.text.budget import Budget
from pelton.text.lookalike import all_strings
from pelton.text.messages import plain_messages, plain_value
from pelton.text.sandbox import BoundedEnvironment
from pelton.text.tokenizer import Tokenizer

MAX_SOURCE = 256 << 10  # characters
MAX_OUTPUT = 4 << 20
RENDER_SECONDS = 0.25  # of processor time; ordinary chats take under 0.001
_STANDARD = frozenset({"messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token"})
_FUNCTIONS = frozenset({"raise_exception", "strftime_now", "range", "dict", "namespace"})
_CONTINUE_MARK = "CONTINUE_FINAL_MESSAGE_TAG "
# Does the template itself take content apart? If not, it expects text, and parts are joined for it.
_TAKES_PARTS = re.compile(
    r"content['\"]?\]?\s+is\s+(?:not\s+)?(?:string|iterable|sequence|mapping)"
    r"|\bin\s+[\w.\[\]'\"]*\bcontent\b|content['\"]?\]?\[0\]"
)


class ChatTemplate:
    """One compiled template. TemplateError when it is missing, does not parse, or is refused.

    `bos_token` and `eos_token` are what the template sees under these names. Rendering holds a lock:
    one at a time, since a template is compiled against one environment.
    """

    def __init__(
        self,
        source: str | None,
        *,
        bos_token: str | None = None,
        eos_token: str | None = None,
        subject: str = "chat template",
        seconds: float = RENDER_SECONDS,
        max_output: int = MAX_OUTPUT,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        if source is None:
            raise TemplateError(
                "the model has none: give one with chat_template, or use generate() with plain text",
                subject=subject,
            )
        if len(source) > MAX_SOURCE:
            raise TemplateError(
                f"longer than {MAX_SOURCE} characters", subject=subject, field="length", value=len(source)
            )
        self.subject = subject
        self.source = source
        self._seconds = seconds
        self._max_output = max_output
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._takes_parts = _TAKES_PARTS.search(source) is not None
        self._lock = Lock()
        self._environment = BoundedEnvironment(now)
        try:
            tree = self._environment.bounded_tree(source)
            names = meta.find_undeclared_variables(tree)
            code = self._environment.compile(tree, filename="<chat template>")
            self._template = Template.from_code(self._environment, code, self._environment.globals)
        except (JinjaError, SyntaxError, RecursionError, MemoryError, ValueError) as error:
            raise TemplateError(f"does not parse: {_sentence(error)}", subject=subject) from error
        self.options: frozenset[str] = frozenset(names) - _STANDARD - _FUNCTIONS
        self.takes_tools = "tools" in names

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, object]] | None = None,
        documents: Sequence[Mapping[str, object]] | None = None,
        continue_final_message: bool = False,
        options: Mapping[str, object] | None = None,
    ) -> str:
        """The prompt's text. RequestError for messages it cannot take, TemplateError for its own faults.

        `options` are the variables of this template alone (such as `enable_thinking`); a name the
        template never reads is refused. `continue_final_message` leaves the last message open.
        """
        variables = self._variables(messages, tools, documents, options)
        return self._render(variables, add_generation_prompt, continue_final_message)

    def encode(
        self,
        tokenizer: Tokenizer,
        messages: Sequence[Mapping[str, object]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, object]] | None = None,
        documents: Sequence[Mapping[str, object]] | None = None,
        continue_final_message: bool = False,
        options: Mapping[str, object] | None = None,
    ) -> list[int]:
        """The prompt's token ids, in which only the template's own control tokens are control tokens.

        For messages without look-alikes these are the ids of Hugging Face's
        `apply_chat_template(tokenize=True)`; look-alikes become ordinary pieces (see lookalike.py).
        """
        variables = self._variables(messages, tools, documents, options)
        guard = tokenizer.lookalikes
        mark = guard.choose_mark([self.source, *all_strings(variables)])
        protected = {key: guard.protect(value, mark) for key, value in variables.items()}
        isolated = {key: guard.isolate(variables[key], mark) for key in ("messages", "tools", "documents")}
        escaped = f"\\u{ord(mark):04x}"  # what `tojson(ensure_ascii=true)` makes of the mark

        def render(values: Mapping[str, object]) -> str:
            return self._render(values, add_generation_prompt, continue_final_message).replace(escaped, mark)

        text, safe = render(protected), render({**protected, **isolated})
        if guard.control_tokens(text) != guard.control_tokens(safe):
            text = safe
        if mark in text:
            return tokenizer.encode_marked(text, mark)
        return tokenizer.encode(text, add_special=False, parse_special=True)

    def _variables(
        self,
        messages: Sequence[Mapping[str, object]],
        tools: Sequence[Mapping[str, object]] | None,
        documents: Sequence[Mapping[str, object]] | None,
        options: Mapping[str, object] | None,
    ) -> dict[str, object]:
        unknown = sorted(set(options or ()) - self.options)
        if unknown:
            known = ", ".join(sorted(self.options)) or "none"
            raise RequestError(
                f"this template has no such option (it has: {known})", field="options", value=unknown[0]
            )
        plain = plain_messages(messages)
        if not self._takes_parts:
            for message in plain:
                message["content"] = _joined_parts(message.get("content"))
        return {
            **{key: plain_value(value, f"options.{key}") for key, value in (options or {}).items()},
            "messages": plain,
            "tools": None if tools is None else plain_value(list(tools), "tools"),
            "documents": None if documents is None else plain_value(list(documents), "documents"),
        }

    def _render(
        self, variables: Mapping[str, object], add_generation_prompt: bool, continue_final_message: bool
    ) -> str:
        if continue_final_message and add_generation_prompt:
            raise RequestError(
                "a final message cannot be continued and answered at once",
                field="continue_final_message",
                value=True,
            )
        tokens = {name: token for name, token in self._tokens.items() if token is not None}
        values = {**tokens, **variables, "add_generation_prompt": add_generation_prompt}
        if continue_final_message:
            values["messages"] = _with_mark(values["messages"])
        with self._lock:
            text = self._run(values)
        return _cut_at_mark(text, self.subject) if continue_final_message else text

    def _run(self, values: Mapping[str, object]) -> str:
        budget = Budget(self._seconds, self._max_output)
        self._environment.budget = budget
        pieces: list[str] = []
        length = 0
        try:
            for piece in self._template.generate(values):
                pieces.append(piece)
                length += len(piece)
                budget.tick()
                if length > self._max_output:
                    raise TemplateError(
                        f"wrote more than {self._max_output} characters", subject=self.subject, field="output"
                    )
        except PeltonError:
            raise
        except Exception as error:  # a template is a program of its own: it can fail in any way
            raise TemplateError(_sentence(error), subject=self.subject) from error
        return "".join(pieces)


def _sentence(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "the template nests or calls itself too deeply"
    line = f" (line {error.lineno})" if isinstance(error, TemplateSyntaxError) else ""
    text = str(error) or type(error).__name__
    return text[:500] + line


def _joined_parts(content: object) -> object:
    if not isinstance(content, list):
        return content
    return "\n".join(str(part["text"]) for part in content if isinstance(part, dict))


def _with_mark(messages: object) -> list[object]:
    """The messages with the last text followed by the mark at which the rendering is cut."""
    assert isinstance(messages, list)
    final = messages[-1]
    assert isinstance(final, dict)
    content = final.get("content")
    if isinstance(content, str):
        marked: object = content + _CONTINUE_MARK
    elif isinstance(content, list) and content and isinstance(content[-1], dict):
        marked = [*content[:-1], {**content[-1], "text": f"{content[-1]['text']}{_CONTINUE_MARK}"}]
    else:
        raise RequestError(
            "the final message has no text to continue", field="continue_final_message", value=True
        )
    return [*messages[:-1], {**final, "content": marked}]


def _cut_at_mark(text: str, subject: str) -> str:
    place = text.rfind(_CONTINUE_MARK.strip())
    if place < 0:
        raise TemplateError(
            "the template leaves out the final message, so it cannot be continued", subject=subject
        )
    # Where the template trimmed the mark's own space, it would have trimmed the message's too.
    whole = text[place : place + len(_CONTINUE_MARK)] == _CONTINUE_MARK
    return text[:place] if whole else text[:place].rstrip()
