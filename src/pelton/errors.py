"""Every exception pelton raises on purpose. A user's mistake raises one of these; an assert is our own bug.

Each error carries the file, field and value it is about, so a caller can act on the
parts and a person reads one sentence that names all three.
"""

from __future__ import annotations


class PeltonError(Exception):
    """The root of all errors below; `except PeltonError` catches every user-facing failure.

    `subject` is the file, request or plan line concerned, `field` the part of it, `value` what
    was found there. All three may be None where they make no sense.
    """

    def __init__(
        self, message: str, *, subject: object = None, field: str | None = None, value: object = None
    ) -> None:
        self.subject = None if subject is None else str(subject)
        self.field = field
        self.value = value
        self.message = message
        super().__init__(self._sentence())

    def _sentence(self) -> str:
        where = self.subject or ""
        if self.field is not None:
            where = f"{where}: {self.field}" if where else self.field
        if self.value is not None:
            shown = repr(self.value)
            where = f"{where} = {shown if len(shown) <= 120 else shown[:117] + '...'}"
        return f"{where}: {self.message}" if where else self.message


class ConfigError(PeltonError):
    """A setting, flag or environment variable that cannot be used."""


class ModelFileError(PeltonError):
    """A model file that is broken, hostile, or of a kind pelton does not implement."""


class UnsupportedModelError(ModelFileError):
    """A well-formed model whose architecture or option pelton does not implement."""


class StoreError(PeltonError):
    """The model store: unknown name, failed download, checksum, disk, lock or offline."""


class TokenizerError(PeltonError):
    """A tokenizer that cannot be built from the model's files, or text it cannot take."""


class TemplateError(PeltonError):
    """A chat template that does not parse, is refused by the sandbox, or ran too long."""


class RequestError(PeltonError):
    """A request or sampling parameter outside its range; the request alone fails."""


class ContextOverflowError(RequestError):
    """A prompt that does not fit the context; names both numbers."""


class PlanError(PeltonError):
    """A plan that fails verification; names the step and its line."""


class KernelUnsupportedError(PeltonError):
    """An executor was asked for an operation, format or instruction set it lacks."""


class OutOfBlocksError(PeltonError):
    """The KV arena has no free block left for the sequences that must run."""


class MemoryBudgetError(PeltonError):
    """What was asked for does not fit the memory budget; raised before allocating."""


class NotFiniteError(RequestError):
    """The model computed NaN for this request, or nothing but -infinity; the request is not at fault."""


class EngineStoppedError(PeltonError):
    """The engine was closed or its loop failed; nothing more can be generated."""


class EngineRestartingError(EngineStoppedError):
    """The engine's process ended under this request; another takes its place in `retry_after` seconds."""

    def __init__(
        self,
        message: str,
        *,
        retry_after: int = 1,
        subject: object = None,
        field: str | None = None,
        value: object = None,
    ) -> None:
        super().__init__(message, subject=subject, field=field, value=value)
        self.retry_after = retry_after
