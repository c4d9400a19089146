"""The stages of a tokenizer.json, built one by one from a list of those pelton knows.

Nothing of the file is handed over whole: a stage, option or expression outside the list
raises UnsupportedModelError naming the file, field and value, so a folder cannot bring a
regex without end, a normalizer that grows text, or a stage that changes the meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tokenizers import Regex, normalizers, pre_tokenizers

from pelton.errors import UnsupportedModelError
from pelton.text.pieces import SPACE_MARK
from pelton.text.pretokenize import KNOWN_EXPRESSIONS

MAX_STAGES = 16
MAX_REPLACEMENT = 8  # characters: normalizers may not grow text without bound
_SPLIT_BEHAVIOURS = {
    "Isolated": "isolated",
    "Removed": "removed",
    "MergedWithPrevious": "merged_with_previous",
    "MergedWithNext": "merged_with_next",
    "Contiguous": "contiguous",
}


@dataclass(frozen=True)
class Stage:
    """One object of the file with its place, for errors, such as `pre_tokenizer.pretokenizers[0]`."""

    subject: str
    field: str
    data: Mapping[str, object]

    def refuse(self, key: str, why: str) -> UnsupportedModelError:
        """The error for a value pelton does not implement."""
        return UnsupportedModelError(
            why, subject=self.subject, field=f"{self.field}.{key}", value=self.data.get(key)
        )

    def flag(self, key: str, default: bool) -> bool:
        """A boolean option."""
        value = self.data.get(key, default)
        if not isinstance(value, bool):
            raise self.refuse(key, "this must be true or false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """A string option."""
        value = self.data.get(key, default)
        if not isinstance(value, str):
            raise self.refuse(key, "this must be text")
        return value

    def stages(self, key: str) -> list[Stage]:
        """A list of stages, at most MAX_STAGES."""
        value = self.data.get(key)
        if not isinstance(value, list) or len(value) > MAX_STAGES:
            raise self.refuse(key, f"this must be a list of at most {MAX_STAGES} stages")
        return [
            stage_of(item, f"{self.field}.{key}[{index}]", self.subject) for index, item in enumerate(value)
        ]


def stage_of(value: object, field: str, subject: str) -> Stage:
    """`value` as a stage; UnsupportedModelError when it is no JSON object."""
    if not isinstance(value, dict):
        raise UnsupportedModelError("this must be an object", subject=subject, field=field, value=value)
    return Stage(subject, field, value)


def build_normalizer(value: object, subject: str) -> normalizers.Normalizer | None:
    """The `normalizer` of a tokenizer.json, None where it has none."""
    return None if value is None else _normalizer(stage_of(value, "normalizer", subject), depth=0)


def _normalizer(stage: Stage, depth: int) -> normalizers.Normalizer:
    kind = stage.text("type", "")
    forms: dict[str, Callable[[], normalizers.Normalizer]] = {
        "NFC": normalizers.NFC,
        "NFD": normalizers.NFD,
        "NFKC": normalizers.NFKC,
        "NFKD": normalizers.NFKD,
        "Lowercase": normalizers.Lowercase,
    }
    if kind in forms:
        return forms[kind]()
    if kind == "Sequence" and depth < 2:
        return normalizers.Sequence([_normalizer(inner, depth + 1) for inner in stage.stages("normalizers")])
    if kind == "Prepend":
        return normalizers.Prepend(_short(stage, "prepend"))
    if kind == "Replace":
        return normalizers.Replace(_literal_pattern(stage), _short(stage, "content"))
    raise stage.refuse("type", "pelton does not know this normalizer")


def build_pre_tokenizer(value: object, subject: str) -> pre_tokenizers.PreTokenizer | None:
    """The `pre_tokenizer` of a tokenizer.json, None where it has none."""
    return None if value is None else _pre_tokenizer(stage_of(value, "pre_tokenizer", subject), depth=0)


def _pre_tokenizer(stage: Stage, depth: int) -> pre_tokenizers.PreTokenizer:
    kind = stage.text("type", "")
    if kind == "Sequence" and depth < 2:
        return pre_tokenizers.Sequence(
            [_pre_tokenizer(inner, depth + 1) for inner in stage.stages("pretokenizers")]
        )
    if kind == "ByteLevel":
        return pre_tokenizers.ByteLevel(
            add_prefix_space=stage.flag("add_prefix_space", True), use_regex=stage.flag("use_regex", True)
        )
    if kind == "Digits":
        return pre_tokenizers.Digits(individual_digits=stage.flag("individual_digits", False))
    if kind == "Split":
        return _split(stage)
    if kind == "Metaspace":
        scheme = stage.text("prepend_scheme", "always")
        if stage.text("replacement", SPACE_MARK) != SPACE_MARK or scheme not in ("always", "first", "never"):
            raise stage.refuse("prepend_scheme", "pelton does not know this way to mark spaces")
        return pre_tokenizers.Metaspace(prepend_scheme=scheme, split=stage.flag("split", True))
    raise stage.refuse("type", "pelton does not know this pre-tokenizer")


def _split(stage: Stage) -> pre_tokenizers.PreTokenizer:
    behaviour = stage.text("behavior")
    if behaviour not in _SPLIT_BEHAVIOURS:
        raise stage.refuse("behavior", "pelton does not know this way to split")
    pattern = stage.data.get("pattern")
    if isinstance(pattern, dict) and pattern.keys() == {"Regex"}:
        if pattern["Regex"] not in KNOWN_EXPRESSIONS:
            raise stage.refuse("pattern", "only expressions of known tokenizers are run on untrusted text")
        cut: str | Regex = Regex(pattern["Regex"])
    else:
        cut = _literal_pattern(stage)
    return pre_tokenizers.Split(cut, _SPLIT_BEHAVIOURS[behaviour], stage.flag("invert", False))


def _literal_pattern(stage: Stage) -> str:
    pattern = stage.data.get("pattern")
    text = pattern.get("String") if isinstance(pattern, dict) and pattern.keys() == {"String"} else None
    if not isinstance(text, str) or not 0 < len(text) <= MAX_REPLACEMENT:
        raise stage.refuse("pattern", f"this must be a literal of 1 to {MAX_REPLACEMENT} characters")
    return text


def _short(stage: Stage, key: str) -> str:
    text = stage.text(key)
    if len(text) > MAX_REPLACEMENT:
        raise stage.refuse(key, f"longer than {MAX_REPLACEMENT} characters")
    return text


@dataclass(frozen=True)
class DecoderRule:
    """What a decoder does, in the two facts that differ between those pelton knows."""

    byte_level: bool
    strip_leading_space: bool = False


def read_decoder(value: object, subject: str) -> DecoderRule:
    """The `decoder` of a tokenizer.json: byte level, or SentencePiece with or without its leading space."""
    stage = stage_of(value, "decoder", subject)
    if stage.text("type", "") == "ByteLevel":
        return DecoderRule(byte_level=True)
    if stage.text("type", "") != "Sequence":
        raise stage.refuse("type", "pelton does not know this decoder")
    parts = stage.stages("decoders")
    kinds = [part.text("type", "") for part in parts]
    if kinds == ["ByteLevel"]:
        return DecoderRule(byte_level=True)
    if kinds[:3] != ["Replace", "ByteFallback", "Fuse"] or kinds[3:] not in ([], ["Strip"]):
        raise stage.refuse("decoders", "pelton does not know this decoder")
    if _literal_pattern(parts[0]) != SPACE_MARK or parts[0].text("content") != " ":
        raise parts[0].refuse("pattern", "the decoder must turn the space mark into a space")
    strip = parts[3].data if len(parts) == 4 else None
    if strip is not None and (strip.get("content"), strip.get("start"), strip.get("stop")) != (" ", 1, 0):
        raise parts[3].refuse("content", "the decoder may strip one leading space, nothing else")
    return DecoderRule(byte_level=False, strip_leading_space=strip is not None)


def read_post_processor(value: object, subject: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The special tokens that the `post_processor` puts before and after one text."""
    if value is None:
        return (), ()
    stage = stage_of(value, "post_processor", subject)
    kind = stage.text("type", "")
    if kind == "ByteLevel":
        return (), ()
    if kind == "Sequence":
        inner = [read_post_processor(part.data, subject) for part in stage.stages("processors")]
        return tuple(t for before, _ in inner for t in before), tuple(t for _, after in inner for t in after)
    if kind == "TemplateProcessing":
        return _template_tokens(stage)
    raise stage.refuse("type", "pelton does not know this post-processor")


def _template_tokens(stage: Stage) -> tuple[tuple[str, ...], tuple[str, ...]]:
    sides: tuple[list[str], list[str]] = ([], [])
    side = 0
    items: Sequence[Stage] = stage.stages("single")
    for item in items:
        token = item.data.get("SpecialToken")
        if "Sequence" in item.data:
            side = 1
        elif isinstance(token, dict) and isinstance(token.get("id"), str):
            sides[side].append(token["id"])
        else:
            raise stage.refuse("single", "each entry is a sequence or a special token")
    return tuple(sides[0]), tuple(sides[1])
