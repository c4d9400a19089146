"""Text to tokens and back: tokenizers, chat templates, streaming text and stop strings."""

from __future__ import annotations

from pelton.text.detokenizer import Detokenizer
from pelton.text.folder_tokenizer import tokenizer_from_folder
from pelton.text.gguf_tokenizer import tokenizer_from_gguf
from pelton.text.load import chat_template_of, tokenizer_of
from pelton.text.metadata import TokenizerMetadata
from pelton.text.stop import StopMatcher
from pelton.text.template import ChatTemplate
from pelton.text.tokenizer import SpecialIds, Tokenizer, TokenizerParts

__all__ = [
    "ChatTemplate",
    "Detokenizer",
    "SpecialIds",
    "StopMatcher",
    "Tokenizer",
    "TokenizerMetadata",
    "TokenizerParts",
    "chat_template_of",
    "tokenizer_from_folder",
    "tokenizer_from_gguf",
    "tokenizer_of",
]
