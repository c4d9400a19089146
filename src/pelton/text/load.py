"""The text side of a model, wherever the model came from."""

from __future__ import annotations

from pathlib import Path

from pelton.errors import TemplateError
from pelton.text.folder_tokenizer import tokenizer_from_folder
from pelton.text.gguf_tokenizer import tokenizer_from_gguf
from pelton.text.metadata import TokenizerMetadata
from pelton.text.template import ChatTemplate
from pelton.text.tokenizer import Tokenizer


def tokenizer_of(
    source: TokenizerMetadata | Path | None, *, subject: str
) -> tuple[Tokenizer | None, ChatTemplate | TemplateError | None]:
    """Tokenizer and chat template of a GGUF header or a Hugging Face folder; None where there is none.

    A template that cannot be used comes back as its error, so that the model still completes plain
    prompts. Raises TokenizerError and UnsupportedModelError, each naming file, field and value.
    """
    if source is None:
        return None, None
    if isinstance(source, Path):
        tokenizer = tokenizer_from_folder(source)
    else:
        tokenizer = tokenizer_from_gguf(source, subject=subject)
    if tokenizer.chat_template is None:
        return tokenizer, None
    try:
        return tokenizer, chat_template_of(tokenizer)
    except TemplateError as error:
        return tokenizer, error


def chat_template_of(tokenizer: Tokenizer, source: str | None = None) -> ChatTemplate:
    """The model's chat template, or `source` in its place, with the names of the model's tokens."""
    return ChatTemplate(
        tokenizer.chat_template if source is None else source,
        bos_token=None if tokenizer.bos_id is None else tokenizer.piece(tokenizer.bos_id),
        eos_token=None if tokenizer.eos_id is None else tokenizer.piece(tokenizer.eos_id),
        subject=f"chat template of {tokenizer.subject}",
    )
