"""Text to token ids and back, with special tokens that only the program can write.

Two encoders share one BPE model. `plain` treats control tokens in the text as ordinary
characters, so nothing a user types becomes one; `parsed` recognizes them, and is for
rendered chat templates and for callers who ask. Decoding works on token bytes, not on
pieces of text, so any split of a sequence decodes to the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from tokenizers import AddedToken, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend

from pelton.errors import RequestError, TokenizerError
from pelton.text.least_tokens import LengthBound, length_bound
from pelton.text.lookalike import LookalikeGuard
from pelton.text.pieces import byte_level_bytes, sentencepiece_bytes

_LONG = 4096
"""Characters; a longer text is encoded by the library's own threads, without Python's lock."""
MAX_INPUT_BYTES = 4 << 20  # the slowest text found takes 2.1 s a MiB here


@dataclass(frozen=True)
class SpecialIds:
    """The ids a model names: each None when it names none; `end` is every id that ends generation."""

    bos: int | None = None
    eos: int | None = None
    eot: int | None = None
    unknown: int | None = None
    padding: int | None = None
    control: frozenset[int] = frozenset()
    end: frozenset[int] = frozenset()


@dataclass(frozen=True)
class TokenizerParts:
    """What a loader (GGUF or folder) found, checked, in the form `Tokenizer` needs.

    `pieces[id]` is the piece as the file writes it, None where an id is unused. `added` are (id, token)
    pairs taken out of the text before words are cut, in ascending id. `prefix` and `suffix` are the ids
    put around a prompt. `byte_level` tells which alphabet the pieces use.
    """

    subject: str
    model: models.BPE
    pieces: Sequence[str | None]
    added: tuple[tuple[int, AddedToken], ...]
    normalizer: normalizers.Normalizer | None
    pre_tokenizer: pre_tokenizers.PreTokenizer | None
    byte_level: bool
    strip_leading_space: bool
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    special: SpecialIds
    chat_template: str | None = None


class Tokenizer:
    """Encodes and decodes for one model; immutable in effect and safe to share between threads.

    `max_input_bytes` bounds one text in UTF-8; longer ones raise RequestError before any work.
    """

    def __init__(self, parts: TokenizerParts, *, max_input_bytes: int = MAX_INPUT_BYTES) -> None:
        self.subject = parts.subject
        self.special = parts.special
        self.strip_leading_space = parts.strip_leading_space
        self.chat_template = parts.chat_template
        self.max_input_bytes = max_input_bytes
        self._parts = parts
        self._pieces = parts.pieces
        self._bytes_of = byte_level_bytes if parts.byte_level else sentencepiece_bytes
        self._byte_cache: dict[int, bytes] = {}
        # Where the model has an unknown token, text it has no pieces for is that token: no harm in it.
        unknown = parts.model.unk_token
        self._never_from_text = frozenset(i for i in parts.special.control if parts.pieces[i] != unknown)
        self._parsed = self._backend(parts.normalizer)
        self._plain = self._backend(parts.normalizer)
        self._plain.encode_special_tokens = True
        self._without_mark: dict[str, Backend] = {}

    def _backend(self, normalizer: normalizers.Normalizer | None) -> Backend:
        parts = self._parts
        backend = Backend(parts.model)  # shares the model: 50 of these add no memory
        if normalizer is not None:
            backend.normalizer = normalizer
        if parts.pre_tokenizer is not None:
            backend.pre_tokenizer = parts.pre_tokenizer
        backend.add_tokens([token for _, token in parts.added])
        for token_id, token in parts.added:
            if backend.token_to_id(token.content) != token_id:
                raise TokenizerError(
                    "this added token cannot have its id: the ids of added tokens leave a gap",
                    subject=parts.subject,
                    field=f"added token {token.content!r}",
                    value=token_id,
                )
        return backend

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return len(self._pieces)

    @property
    def bos_id(self) -> int | None:
        """The beginning-of-sequence id, or None."""
        return self.special.bos

    @property
    def eos_id(self) -> int | None:
        """The end-of-sequence id, or None."""
        return self.special.eos

    @property
    def eot_id(self) -> int | None:
        """The end-of-turn id, or None."""
        return self.special.eot

    @property
    def end_ids(self) -> frozenset[int]:
        """Every id after which a model has finished its answer."""
        return self.special.end

    @property
    def special_ids(self) -> frozenset[int]:
        """The control ids: hidden by `decode`, never made from a user's text."""
        return self.special.control

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Token ids of `text`; RequestError when it is too long or is not Unicode.

        `add_special` puts the model's own prefix and suffix (such as BOS) around it. `parse_special`
        turns written control tokens into their ids: only for text the program wrote.
        """
        self.check_input(text)
        if parse_special:
            ids = _ids(self._parsed, text)
        else:
            ids = _ids(self._plain, text)
            if not self._never_from_text.isdisjoint(ids):
                ids = self._spell_out(ids)
        if add_special:
            return [*self._parts.prefix, *ids, *self._parts.suffix]
        return ids

    def encode_marked(self, text: str, mark: str) -> list[int]:
        """Token ids of program-written `text` in which `mark` breaks up look-alikes of control tokens.

        Control tokens are recognized first, then every `mark` (one character) is dropped, then words
        are cut: so a broken look-alike becomes ordinary pieces, and all else is as if no mark existed.
        """
        self.check_input(text)
        backend = self._without_mark.get(mark)
        if backend is None:
            drop = normalizers.Replace(mark, "")
            inner = self._parts.normalizer
            backend = self._backend(drop if inner is None else normalizers.Sequence([drop, inner]))
            self._without_mark[mark] = backend
        return _ids(backend, text)

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of `ids`; bytes that are not UTF-8 become U+FFFD, ids without a piece nothing.

        The empty sequence is the empty text. RequestError for a negative id.
        """
        hidden = self.special.control if skip_special else frozenset()
        data = b"".join([self.token_bytes(token_id) for token_id in ids if token_id not in hidden])
        if self.strip_leading_space and data.startswith(b" "):
            data = data[1:]
        return data.decode("utf-8", "replace")

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes a token stands for; empty past the vocabulary (padded logits), RequestError below 0."""
        known = self._byte_cache.get(token_id)
        if known is not None:
            return known
        piece = self.piece(token_id)
        data = b"" if piece is None else self._bytes_of(piece)
        if piece is not None:  # only ids of the vocabulary, so the cache is bounded by it
            self._byte_cache[token_id] = data
        return data

    def piece(self, token_id: int) -> str | None:
        """The piece as the vocabulary writes it, or None past its end; RequestError for a negative id."""
        if token_id < 0:
            raise RequestError("a token id cannot be negative", field="token id", value=token_id)
        return self._pieces[token_id] if token_id < len(self._pieces) else None

    def token_id(self, piece: str) -> int | None:
        """The id of a piece as the vocabulary writes it, or None."""
        found: int | None = self._parsed.token_to_id(piece)
        return found

    def control_pieces(self) -> tuple[str, ...]:
        """The text of every control token, longest first."""
        pieces = [self._pieces[token_id] for token_id in self.special.control]
        return tuple(sorted((piece for piece in pieces if piece), key=lambda piece: (-len(piece), piece)))

    @cached_property
    def lookalikes(self) -> LookalikeGuard:
        """Finds and breaks what looks like one of this model's control tokens."""
        return LookalikeGuard(self.control_pieces())

    def least_tokens(self, text: str) -> int:
        """A number of tokens that `text` has at least, without making them; 0 where nothing can be told."""
        bound = self._length_bound
        return 0 if bound is None else bound.least_tokens(text)

    @cached_property
    def _length_bound(self) -> LengthBound | None:
        parts = self._parts
        return length_bound(
            parts.model,
            parts.pieces,
            [token for _, token in parts.added],
            parts.normalizer,
            parts.pre_tokenizer,
            byte_level_bytes if parts.byte_level else None,
        )

    def check_input(self, text: str) -> None:
        """RequestError unless `text` is Unicode within `max_input_bytes`."""
        if len(text) > self.max_input_bytes:
            raise RequestError(self._too_long(), field="text length in characters", value=len(text))
        try:
            size = len(text) if text.isascii() else len(text.encode("utf-8"))
        except UnicodeEncodeError as error:
            raise RequestError(
                "the text has a lone surrogate, which no encoding of Unicode allows",
                field="text",
                value=text[error.start : error.end],
            ) from error
        if size > self.max_input_bytes:
            raise RequestError(self._too_long(), field="text length in bytes", value=size)

    def _too_long(self) -> str:
        return f"the text is longer than the {self.max_input_bytes} bytes that one text may have"

    def _spell_out(self, ids: Sequence[int]) -> list[int]:
        """Control ids that whole-word lookup or a hostile merge made of plain text, spelled out."""
        spelled: list[int] = []
        for token_id in ids:
            if token_id not in self._never_from_text:
                spelled.append(token_id)
                continue
            text = self.token_bytes(token_id).decode("utf-8", "replace")
            single = [self._plain.encode(character, add_special_tokens=False).ids for character in text]
            letters = [letter for part in single for letter in part]
            if not self._never_from_text.isdisjoint(letters):
                raise TokenizerError(
                    "plain text makes this control token even one character at a time",
                    subject=self.subject,
                    field="control token",
                    value=self._pieces[token_id],
                )
            spelled.extend(letters)
        return spelled


def _ids(backend: Backend, text: str) -> list[int]:
    """`encode` holds Python's lock all the while: 4 MB of text would stop every other thread for 2.2 s. The
    batch of one lets go of it (longest gap 56 ms) and gives the same ids."""
    if len(text) > _LONG:
        (found,) = backend.encode_batch_fast([text], add_special_tokens=False)
    else:
        found = backend.encode(text, add_special_tokens=False)
    ids: list[int] = found.ids
    return ids
