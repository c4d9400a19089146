"""A tokenizer from a Hugging Face folder: tokenizer.json and the small files beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tokenizers import AddedToken

from pelton.errors import TokenizerError, UnsupportedModelError
from pelton.text.gguf_tokenizer import END_PIECES, build_bpe
from pelton.text.pipeline_json import (
    build_normalizer,
    build_pre_tokenizer,
    read_decoder,
    read_post_processor,
)
from pelton.text.tokenizer import MAX_INPUT_BYTES, SpecialIds, Tokenizer, TokenizerParts
from pelton.text.vocabulary import MAX_MERGES, MAX_PIECE, MAX_VOCABULARY

MAX_FILE = 128 << 20  # bytes; the largest published tokenizer.json has 33 MB
MAX_SMALL_FILE = 8 << 20


def tokenizer_from_folder(folder: Path, *, max_input_bytes: int = MAX_INPUT_BYTES) -> Tokenizer:
    """The tokenizer in `folder`. TokenizerError for broken files, UnsupportedModelError for unknown stages.

    Besides tokenizer.json it reads, where they exist, tokenizer_config.json (named tokens, BOS flag,
    template), special_tokens_map.json, generation_config.json (all end ids), chat_template.jinja.
    """
    path = folder / "tokenizer.json"
    subject = str(path)
    spec = _read_json(path, MAX_FILE)
    if spec is None:
        raise TokenizerError("the folder has no tokenizer.json", subject=subject)
    config = _read_json(folder / "tokenizer_config.json", MAX_SMALL_FILE) or {}
    named = {**(_read_json(folder / "special_tokens_map.json", MAX_SMALL_FILE) or {}), **config}
    generation = _read_json(folder / "generation_config.json", MAX_SMALL_FILE) or {}
    model = _object(spec, "model", subject)
    _check_model(model, subject)
    table = _vocabulary(model, subject)
    added = _added_tokens(spec, subject)
    ids = {**table, **{token.content: token_id for token_id, token in added}}
    special = _special_ids(named, generation, added, ids, subject)
    decoder = read_decoder(spec.get("decoder"), subject)
    prefix, suffix = _around(spec, config, special, ids, subject)
    unknown = model.get("unk_token")
    parts = TokenizerParts(
        subject=subject,
        model=build_bpe(
            table,
            _merges(model, subject),
            subject=subject,
            ignore_merges=bool(model.get("ignore_merges", False)),
            byte_fallback=bool(model.get("byte_fallback", False)),
            unknown=unknown if isinstance(unknown, str) and unknown in table else None,
        ),
        pieces=_pieces(ids, subject),
        added=tuple(_as_added(token_id, token, special) for token_id, token in added),
        normalizer=build_normalizer(spec.get("normalizer"), subject),
        pre_tokenizer=build_pre_tokenizer(spec.get("pre_tokenizer"), subject),
        byte_level=decoder.byte_level,
        strip_leading_space=decoder.strip_leading_space,
        prefix=prefix,
        suffix=suffix,
        special=special,
        chat_template=_chat_template(folder, config, subject),
    )
    return Tokenizer(parts, max_input_bytes=max_input_bytes)


def _read_json(path: Path, limit: int) -> dict[str, object] | None:
    text = _read_text(path, limit)
    if text is None:
        return None
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"not JSON: {error}", subject=path) from error
    if not isinstance(data, dict):
        raise TokenizerError("the file must hold a JSON object", subject=path)
    return data


def _read_text(path: Path, limit: int) -> str | None:
    try:
        if not path.is_file():
            return None
        if path.stat().st_size > limit:
            raise TokenizerError(
                f"the file is larger than {limit} bytes",
                subject=path,
                field="size",
                value=path.stat().st_size,
            )
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"cannot be read: {error}", subject=path) from error


def _object(data: Mapping[str, object], key: str, subject: str) -> Mapping[str, object]:
    value = data.get(key)
    if not isinstance(value, dict):
        raise TokenizerError("this must be an object", subject=subject, field=key, value=value)
    return value


def _check_model(model: Mapping[str, object], subject: str) -> None:
    expected: dict[str, tuple[object, ...]] = {
        "type": ("BPE",),
        "dropout": (None, 0),
        "continuing_subword_prefix": (None, ""),
        "end_of_word_suffix": (None, ""),
    }
    for key, values in expected.items():
        if model.get(key) not in values:
            raise UnsupportedModelError(
                f"pelton knows BPE with {key} {' or '.join(repr(value) for value in values)}",
                subject=subject,
                field=f"model.{key}",
                value=model.get(key),
            )


def _vocabulary(model: Mapping[str, object], subject: str) -> dict[str, int]:
    table = _object(model, "vocab", subject)
    if not 0 < len(table) <= MAX_VOCABULARY:
        raise TokenizerError(
            f"a vocabulary has 1 to {MAX_VOCABULARY} tokens",
            subject=subject,
            field="model.vocab",
            value=len(table),
        )
    checked: dict[str, int] = {}
    for piece, token_id in table.items():
        checked[piece] = _checked_id(piece, token_id, "model.vocab", subject)
    return checked


def _checked_id(piece: str, token_id: object, field: str, subject: str) -> int:
    whole = isinstance(token_id, int) and not isinstance(token_id, bool)
    if not isinstance(token_id, int) or not whole or not 0 <= token_id < MAX_VOCABULARY:
        raise TokenizerError(
            f"an id is a whole number from 0 to {MAX_VOCABULARY - 1}",
            subject=subject,
            field=f"{field}[{piece[:40]!r}]",
            value=token_id,
        )
    if len(piece) > MAX_PIECE or any("\ud800" <= character <= "\udfff" for character in piece):
        raise TokenizerError(
            f"a token is Unicode text of at most {MAX_PIECE} characters",
            subject=subject,
            field=field,
            value=piece,
        )
    return token_id


def _merges(model: Mapping[str, object], subject: str) -> list[tuple[str, str]]:
    raw = model.get("merges")
    if not isinstance(raw, list) or len(raw) > MAX_MERGES:
        raise TokenizerError(
            f"this must be a list of at most {MAX_MERGES}", subject=subject, field="model.merges"
        )
    merges: list[tuple[str, str]] = []
    for rank, merge in enumerate(raw):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if (
            not isinstance(pair, list)
            or len(pair) != 2
            or not all(isinstance(half, str) and half for half in pair)
        ):
            raise TokenizerError(
                "a merge is two pieces", subject=subject, field=f"model.merges[{rank}]", value=merge
            )
        merges.append((pair[0], pair[1]))
    return merges


def _added_tokens(spec: Mapping[str, object], subject: str) -> list[tuple[int, AddedToken]]:
    raw = spec.get("added_tokens") or []
    if not isinstance(raw, list) or len(raw) > MAX_VOCABULARY:
        raise TokenizerError("this must be a list of tokens", subject=subject, field="added_tokens")
    tokens: dict[int, AddedToken] = {}
    for index, item in enumerate(raw):
        field = f"added_tokens[{index}]"
        content = item.get("content") if isinstance(item, dict) else None
        if not isinstance(item, dict) or not isinstance(content, str) or not content:
            raise TokenizerError("an added token has text", subject=subject, field=field, value=item)
        token_id = _checked_id(content, item.get("id"), field, subject)
        flags = {name: item.get(name) is True for name in ("single_word", "lstrip", "rstrip", "special")}
        # A control token is matched in the text as written, whatever the file says: matched after
        # normalization, a full-width look-alike in a user's text could become one.
        normalized = item.get("normalized") is True and not flags["special"]
        if token_id in tokens:
            raise TokenizerError("two added tokens share an id", subject=subject, field=field, value=token_id)
        tokens[token_id] = AddedToken(content, normalized=normalized, **flags)
    return sorted(tokens.items())


def _as_added(token_id: int, token: AddedToken, special: SpecialIds) -> tuple[int, AddedToken]:
    """The token, made special where another file declares it a control token."""
    if token.special or token_id not in special.control:
        return token_id, token
    flags = {"single_word": token.single_word, "lstrip": token.lstrip, "rstrip": token.rstrip}
    return token_id, AddedToken(token.content, normalized=False, special=True, **flags)


def _pieces(ids: Mapping[str, int], subject: str) -> list[str | None]:
    pieces: list[str | None] = [None] * (max(ids.values()) + 1)
    for piece, token_id in ids.items():
        if pieces[token_id] is not None:
            raise TokenizerError(
                f"two tokens share an id: {pieces[token_id]!r} and {piece!r}",
                subject=subject,
                field="id",
                value=token_id,
            )
        pieces[token_id] = piece
    return pieces


def _special_ids(
    named: Mapping[str, object],
    generation: Mapping[str, object],
    added: list[tuple[int, AddedToken]],
    ids: Mapping[str, int],
    subject: str,
) -> SpecialIds:
    roles = {name: _named_id(named.get(f"{name}_token"), ids) for name in ("bos", "eos", "unk", "pad")}
    control = {token_id for token_id, token in added if token.special}
    texts = {token.content: token_id for token_id, token in added}
    ends = {texts[piece] for piece in END_PIECES if piece in texts and texts[piece] in control}
    if {"<|return|>", "<|call|>"} <= texts.keys():
        ends.discard(texts.get("<|end|>", -1))
    ends |= _generation_ends(generation, max(ids.values()) + 1, subject)
    ends |= {roles["eos"]} if roles["eos"] is not None else set()
    turns = ("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>")
    added_ids = {token_id for token_id, _ in added}
    control |= (ends | ({roles["bos"]} if roles["bos"] is not None else set())) & added_ids
    return SpecialIds(
        bos=roles["bos"],
        eos=roles["eos"],
        eot=next((texts[piece] for piece in turns if piece in texts), None),
        unknown=roles["unk"],
        padding=roles["pad"],
        control=frozenset(control),
        end=frozenset(ends),
    )


def _named_id(value: object, ids: Mapping[str, int]) -> int | None:
    text = value.get("content") if isinstance(value, dict) else value
    return ids.get(text) if isinstance(text, str) else None


def _generation_ends(generation: Mapping[str, object], size: int, subject: str) -> set[int]:
    value = generation.get("eos_token_id")
    listed = [] if value is None else value if isinstance(value, list) else [value]
    for token_id in listed:
        if not isinstance(token_id, int) or isinstance(token_id, bool) or not 0 <= token_id < size:
            raise TokenizerError(
                f"the id is outside the vocabulary of {size} tokens",
                subject=str(Path(subject).with_name("generation_config.json")),
                field="eos_token_id",
                value=token_id,
            )
    return set(listed)


def _around(
    spec: Mapping[str, object],
    config: Mapping[str, object],
    special: SpecialIds,
    ids: Mapping[str, int],
    subject: str,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    before, after = read_post_processor(spec.get("post_processor"), subject)
    for piece in (*before, *after):
        if piece not in ids:
            raise TokenizerError("no such token", subject=subject, field="post_processor", value=piece)
    prefix, suffix = [ids[piece] for piece in before], [ids[piece] for piece in after]
    for flag, side, token_id in (
        ("add_bos_token", prefix, special.bos),
        ("add_eos_token", suffix, special.eos),
    ):
        wanted = config.get(flag)
        if isinstance(wanted, bool) and token_id is not None and wanted != (token_id in side):
            side[:] = [token_id] if wanted else [kept for kept in side if kept != token_id]
    return tuple(prefix), tuple(suffix)


def _chat_template(folder: Path, config: Mapping[str, object], subject: str) -> str | None:
    """The default chat template: a file of its own, else the entry in tokenizer_config.json."""
    text = _read_text(folder / "chat_template.jinja", MAX_SMALL_FILE)
    if text is not None:
        return text
    value = config.get("chat_template")
    if isinstance(value, list):
        names = {item.get("name"): item.get("template") for item in value if isinstance(item, dict)}
        value = names.get("default")
    if value is not None and not isinstance(value, str):
        raise TokenizerError("a chat template is text", subject=subject, field="chat_template", value=value)
    return value
