"""A tokenizer from the metadata of a GGUF file.

Two kinds of model are in these files: `gpt2`, byte-level BPE with its merges and a named
pre-tokenizer, and `llama`, SentencePiece BPE with a score for each piece. The second has
no merges; they are derived as Hugging Face's converter does: every split of a piece into
two pieces, best score first.
"""

from __future__ import annotations

from dataclasses import replace

from tokenizers import AddedToken, models, normalizers

from pelton.errors import TokenizerError, UnsupportedModelError
from pelton.text.metadata import TokenizerMetadata
from pelton.text.pieces import SPACE_MARK
from pelton.text.pretokenize import find_pre_tokenizer
from pelton.text.tokenizer import MAX_INPUT_BYTES, SpecialIds, Tokenizer, TokenizerParts
from pelton.text.vocabulary import Kind, Vocabulary, read_id, read_merges, read_scores, read_vocabulary

# Tokens that end an answer whatever the file's eos says; llama.cpp keeps the same kind of list because
# many files name only one of the two that their chat template uses.
END_PIECES = frozenset(
    (
        *("<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<end_of_turn>"),
        *("<|endoftext|>", "<|end_of_text|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<end_of_utterance>"),
        *("<eos>", "<\uff5cend\u2581of\u2581sentence\uff5c>"),
    )
)
_TURN_PIECES = ("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<EOT>", "_<EOT>", "[EOT]")
# Phi-3's control tokens swallow the white space after them, except these.
_PHI3_KEEPS_SPACE = frozenset({"<unk>", "<s>", "<|endoftext|>"})


def tokenizer_from_gguf(
    metadata: TokenizerMetadata, *, subject: str, max_input_bytes: int = MAX_INPUT_BYTES
) -> Tokenizer:
    """The tokenizer of a GGUF file. `subject` is the file's name, for errors.

    UnsupportedModelError for a tokenizer or pre-tokenizer pelton does not know, TokenizerError for a
    vocabulary that contradicts itself.
    """
    model = metadata.get_str("tokenizer.ggml.model")
    builders = {"gpt2": _byte_level_parts, "llama": _sentencepiece_parts}
    if model not in builders:
        raise UnsupportedModelError(
            f"the kinds of tokenizer pelton knows are {', '.join(builders)}",
            subject=subject,
            field="tokenizer.ggml.model",
            value=model,
        )
    vocabulary = read_vocabulary(metadata, subject=subject)
    parts = builders[model](metadata, vocabulary)
    if "tokenizer.chat_template" in metadata:
        parts = replace(parts, chat_template=metadata.get_str("tokenizer.chat_template"))
    return Tokenizer(parts, max_input_bytes=max_input_bytes)


def _byte_level_parts(metadata: TokenizerMetadata, vocabulary: Vocabulary) -> TokenizerParts:
    subject = vocabulary.subject
    if "tokenizer.ggml.pre" not in metadata:
        raise UnsupportedModelError(
            "the file does not say how words are cut; convert the model again with a newer converter",
            subject=subject,
            field="tokenizer.ggml.pre",
        )
    row = find_pre_tokenizer(metadata.get_str("tokenizer.ggml.pre"), subject=subject)
    merges = read_merges(metadata, subject=subject)
    special = _special_ids(metadata, vocabulary)
    prefix, suffix = _around(metadata, special, adds_bos=row.adds_bos, subject=subject)
    return TokenizerParts(
        subject=subject,
        model=build_bpe(vocabulary.pieces, merges, subject=subject, ignore_merges=row.ignore_merges),
        pieces=vocabulary.pieces,
        added=_added_tokens(vocabulary, special),
        normalizer=row.normalizer(),
        pre_tokenizer=row.build(),
        byte_level=True,
        strip_leading_space=False,
        prefix=prefix,
        suffix=suffix,
        special=special,
    )


def _sentencepiece_parts(metadata: TokenizerMetadata, vocabulary: Vocabulary) -> TokenizerParts:
    subject = vocabulary.subject
    if _flag(metadata, "remove_extra_whitespaces", False):
        raise UnsupportedModelError(
            "pelton keeps white space as it is written",
            subject=subject,
            field="tokenizer.ggml.remove_extra_whitespaces",
            value=True,
        )
    space_prefix = _flag(metadata, "add_space_prefix", True)
    vocabulary = _with_written_spaces(vocabulary)
    special = _special_ids(metadata, vocabulary)
    _check_every_byte_has_a_token(vocabulary, special)
    scores = read_scores(metadata, len(vocabulary.pieces), subject=subject)
    prefix, suffix = _around(metadata, special, adds_bos=True, subject=subject)
    swallows = "general.architecture" in metadata and metadata.get_str("general.architecture") == "phi3"
    spaces: normalizers.Normalizer = normalizers.Replace(" ", SPACE_MARK)
    if space_prefix:
        spaces = normalizers.Sequence([normalizers.Prepend(SPACE_MARK), spaces])
    return TokenizerParts(
        subject=subject,
        model=build_bpe(
            vocabulary.pieces,
            merges_from_scores(vocabulary, scores),
            subject=subject,
            byte_fallback=True,
            unknown=None if special.unknown is None else vocabulary.pieces[special.unknown],
        ),
        pieces=vocabulary.pieces,
        added=_added_tokens(vocabulary, special, swallows_space=swallows),
        normalizer=spaces,
        pre_tokenizer=None,
        byte_level=False,
        strip_leading_space=space_prefix,
        prefix=prefix,
        suffix=suffix,
        special=special,
    )


def _with_written_spaces(vocabulary: Vocabulary) -> Vocabulary:
    """User-defined pieces (Gemma has runs of spaces) with real spaces: they match text as typed."""
    taken = set(vocabulary.pieces)
    pieces = list(vocabulary.pieces)
    for token_id in vocabulary.ids_of(Kind.USER_DEFINED):
        written = pieces[token_id].replace(SPACE_MARK, " ")
        pieces[token_id] = written if written not in taken else pieces[token_id]
    return replace(vocabulary, pieces=tuple(pieces))


def build_bpe(
    pieces: tuple[str, ...] | dict[str, int],
    merges: list[tuple[str, str]],
    *,
    subject: str,
    ignore_merges: bool = False,
    byte_fallback: bool = False,
    unknown: str | None = None,
) -> models.BPE:
    """The BPE model; TokenizerError for a merge whose parts or result are not in the vocabulary."""
    table = pieces if isinstance(pieces, dict) else {piece: index for index, piece in enumerate(pieces)}
    try:
        return models.BPE(
            vocab=table,
            merges=merges,
            unk_token=unknown,
            fuse_unk=unknown is not None,
            byte_fallback=byte_fallback,
            ignore_merges=ignore_merges,
        )
    except Exception as error:  # the library raises nothing narrower, and names the token, not the merge
        for rank, (left, right) in enumerate(merges):
            if not {left, right, left + right} <= table.keys():
                raise TokenizerError(
                    "a merge needs a token that the vocabulary lacks",
                    subject=subject,
                    field=f"merge {rank}",
                    value=f"{left} {right}",
                ) from error
        raise TokenizerError(
            "no tokenizer can be made of them", subject=subject, field="merges", value=str(error)
        ) from error


def merges_from_scores(vocabulary: Vocabulary, scores: list[float]) -> list[tuple[str, str]]:
    """Every way to make a piece from two others, in the order SentencePiece would make it.

    Control, byte and user-defined pieces are never made by merging: text must not spell them.
    """
    table = {
        piece: index
        for index, (piece, kind) in enumerate(zip(vocabulary.pieces, vocabulary.kinds, strict=True))
        if kind in (Kind.NORMAL, Kind.UNUSED)
    }
    merges: list[tuple[float, int, int, str, str]] = []
    for piece, index in table.items():
        loss = -scores[index]
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in table and right in table:
                merges.append((loss, table[left], table[right], left, right))
    merges.sort()  # best score first, then the ids of the halves: the order of published tokenizer.json files
    return [(left, right) for _, _, _, left, right in merges]


def _special_ids(metadata: TokenizerMetadata, vocabulary: Vocabulary) -> SpecialIds:
    size, subject = len(vocabulary.pieces), vocabulary.subject
    named = {
        name: read_id(metadata, name, size, subject=subject)
        for name in ("bos", "eos", "eot", "eom", "unknown", "padding")
    }
    control = set(vocabulary.ids_of(Kind.CONTROL)) | set(vocabulary.ids_of(Kind.UNKNOWN))
    end_pieces = {vocabulary.pieces[token_id]: token_id for token_id in control}
    ends = {token_id for piece, token_id in end_pieces.items() if piece in END_PIECES}
    if {"<|return|>", "<|call|>"} <= end_pieces.keys():  # in this format `<|end|>` only ends a channel
        ends.discard(end_pieces.get("<|end|>", -1))
    ends |= {token_id for name in ("eos", "eot", "eom") if (token_id := named[name]) is not None}
    if named["eot"] is None:
        named["eot"] = next((end_pieces[piece] for piece in _TURN_PIECES if piece in end_pieces), None)
    # A model that ends on a newline or a letter names an ordinary token: users must be able to write it.
    marks = (ends | {token_id for token_id in (named["bos"],) if token_id is not None}) - control
    control |= {token_id for token_id in marks if len(vocabulary.pieces[token_id]) > 2}
    return SpecialIds(
        bos=named["bos"],
        eos=named["eos"],
        eot=named["eot"],
        unknown=named["unknown"],
        padding=named["padding"],
        control=frozenset(control),
        end=frozenset(ends),
    )


def _added_tokens(
    vocabulary: Vocabulary, special: SpecialIds, *, swallows_space: bool = False
) -> tuple[tuple[int, AddedToken], ...]:
    added = []
    for token_id in sorted(special.control.union(vocabulary.ids_of(Kind.USER_DEFINED))):
        piece, control = vocabulary.pieces[token_id], token_id in special.control
        strips = swallows_space and control and piece not in _PHI3_KEEPS_SPACE
        added.append((token_id, AddedToken(piece, special=control, normalized=False, rstrip=strips)))
    return tuple(added)


def _around(
    metadata: TokenizerMetadata, special: SpecialIds, *, adds_bos: bool, subject: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids before and after a prompt: BOS and EOS where the file or the family asks for them."""
    explicit = "tokenizer.ggml.add_bos_token" in metadata
    add_bos = _flag(metadata, "add_bos_token", adds_bos and special.bos is not None)
    add_eos = _flag(metadata, "add_eos_token", False)
    if (add_bos and special.bos is None and explicit) or (add_eos and special.eos is None):
        name = "add_bos_token" if add_bos and special.bos is None else "add_eos_token"
        raise TokenizerError(
            "the file asks for a token that it does not name",
            subject=subject,
            field=f"tokenizer.ggml.{name}",
            value=True,
        )
    prefix = (special.bos,) if add_bos and special.bos is not None else ()
    suffix = (special.eos,) if add_eos and special.eos is not None else ()
    return prefix, suffix


def _flag(metadata: TokenizerMetadata, name: str, default: bool) -> bool:
    key = f"tokenizer.ggml.{name}"
    return metadata.get_bool(key) if key in metadata else default


def _check_every_byte_has_a_token(vocabulary: Vocabulary, special: SpecialIds) -> None:
    count = len(vocabulary.ids_of(Kind.BYTE))
    if count != 256 and special.unknown is None:
        raise TokenizerError(
            "without 256 byte tokens or an unknown token some text has no tokens at all",
            subject=vocabulary.subject,
            field="byte tokens",
            value=count,
        )
