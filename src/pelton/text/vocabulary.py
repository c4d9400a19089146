"""The vocabulary of a GGUF file, read and checked before anything is built from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from pelton.errors import TokenizerError, UnsupportedModelError
from pelton.text.metadata import TokenizerMetadata
from pelton.text.pieces import byte_piece_value

MAX_VOCABULARY = 1 << 21  # the largest published one has 262,144 tokens
MAX_MERGES = 1 << 22
MAX_PIECE = 1 << 14


class Kind(IntEnum):
    """GGUF's `tokenizer.ggml.token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Vocabulary:
    """Pieces by id, each with its kind; unique, bounded, at least one."""

    subject: str
    pieces: tuple[str, ...]
    kinds: tuple[int, ...]

    def ids_of(self, kind: Kind) -> list[int]:
        """The ids of one kind, ascending."""
        return [token_id for token_id, value in enumerate(self.kinds) if value == kind]


def read_vocabulary(metadata: TokenizerMetadata, *, subject: str) -> Vocabulary:
    """Reads and checks `tokenizer.ggml.tokens` and `.token_type`; TokenizerError names what is wrong."""
    key = "tokenizer.ggml.tokens"
    raw = _array(metadata, key, MAX_VOCABULARY, subject)
    pieces = tuple(
        # Some converters leave holes; llama.cpp gives each a name of its own, and so the ids stay apart.
        piece if piece != "" else f"[EMPTY_{token_id}]"
        for token_id, piece in enumerate(_strings(raw, key, subject))
    )
    if not pieces:
        raise TokenizerError("the vocabulary is empty", subject=subject, field=key)
    if len(set(pieces)) != len(pieces):
        repeated = Counter(pieces).most_common(1)[0][0]
        raise TokenizerError("a token appears twice", subject=subject, field=key, value=repeated)
    kinds = _kinds(metadata, len(pieces), subject)
    _check_byte_pieces(pieces, kinds, subject)
    return Vocabulary(subject, pieces, kinds)


def read_merges(metadata: TokenizerMetadata, *, subject: str) -> list[tuple[str, str]]:
    """`tokenizer.ggml.merges` as pairs in rank order; TokenizerError for one that is no pair."""
    key = "tokenizer.ggml.merges"
    merges: list[tuple[str, str]] = []
    for rank, merge in enumerate(_strings(_array(metadata, key, MAX_MERGES, subject), key, subject)):
        left, _, right = merge.partition(" ")
        if not left or not right or " " in right:
            raise TokenizerError(
                "a merge is two pieces with one space between",
                subject=subject,
                field=f"{key}[{rank}]",
                value=merge,
            )
        merges.append((left, right))
    return merges


def read_scores(metadata: TokenizerMetadata, size: int, *, subject: str) -> list[float]:
    """`tokenizer.ggml.scores`, one number a token; TokenizerError for another length or NaN."""
    key = "tokenizer.ggml.scores"
    raw = _array(metadata, key, MAX_VOCABULARY, subject)
    try:
        scores = [float(score) for score in raw]  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise TokenizerError("a score is not a number", subject=subject, field=key) from error
    if len(scores) != size:
        raise TokenizerError(
            f"there are {size} tokens, so there must be as many scores",
            subject=subject,
            field=key,
            value=len(scores),
        )
    for token_id, score in enumerate(scores):
        if score != score:
            raise TokenizerError(
                "a score is not a number", subject=subject, field=f"{key}[{token_id}]", value=score
            )
    return scores


def read_id(metadata: TokenizerMetadata, name: str, size: int, *, subject: str) -> int | None:
    """The id at `tokenizer.ggml.NAME_token_id`, None when absent; TokenizerError outside the vocabulary."""
    key = f"tokenizer.ggml.{name}_token_id"
    if key not in metadata:
        return None
    token_id = metadata.get_int(key)
    if not 0 <= token_id < size:
        raise TokenizerError(
            f"the id is outside the vocabulary of {size} tokens", subject=subject, field=key, value=token_id
        )
    return token_id


def _array(metadata: TokenizerMetadata, key: str, limit: int, subject: str) -> Sequence[object]:
    if key not in metadata:
        raise TokenizerError("the file has no such key", subject=subject, field=key)
    array = metadata.get_array(key)
    if len(array) > limit:
        raise TokenizerError(f"more than {limit} entries", subject=subject, field=key, value=len(array))
    return array


def _strings(raw: Sequence[object], key: str, subject: str) -> list[str]:
    strings = [value for value in raw if isinstance(value, str) and len(value) <= MAX_PIECE]
    if len(strings) != len(raw) or not _is_unicode("".join(strings)):
        index, value = next(
            (index, value)
            for index, value in enumerate(raw)
            if not isinstance(value, str) or len(value) > MAX_PIECE or not _is_unicode(value)
        )
        raise TokenizerError(
            f"each entry is Unicode text of at most {MAX_PIECE} characters",
            subject=subject,
            field=f"{key}[{index}]",
            value=value,
        )
    return strings


def _is_unicode(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _kinds(metadata: TokenizerMetadata, size: int, subject: str) -> tuple[int, ...]:
    key = "tokenizer.ggml.token_type"
    if key not in metadata:
        return (int(Kind.NORMAL),) * size
    raw = _array(metadata, key, MAX_VOCABULARY, subject)
    try:
        kinds = tuple(int(kind) for kind in raw)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError) as error:
        raise TokenizerError("a token type is not an integer", subject=subject, field=key) from error
    if len(kinds) != size:
        raise TokenizerError(
            f"there are {size} tokens, so there must be as many types",
            subject=subject,
            field=key,
            value=len(kinds),
        )
    if not set(kinds) <= {int(kind) for kind in Kind}:
        strange = next(index for index, kind in enumerate(kinds) if kind not in set(Kind))
        raise UnsupportedModelError(
            "a token type is 1 to 6", subject=subject, field=f"{key}[{strange}]", value=kinds[strange]
        )
    return kinds


def _check_byte_pieces(pieces: tuple[str, ...], kinds: tuple[int, ...], subject: str) -> None:
    taken: set[int] = set()
    for token_id, kind in enumerate(kinds):
        if kind != Kind.BYTE:
            continue
        value = byte_piece_value(pieces[token_id])
        if value is None or value in taken:
            raise TokenizerError(
                "a byte token is written <0x00> to <0xFF>, each byte once",
                subject=subject,
                field=f"tokenizer.ggml.tokens[{token_id}]",
                value=pieces[token_id],
            )
        taken.add(value)
