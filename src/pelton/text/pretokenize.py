"""Pre-tokenizers by name: how each model family cuts text into words before BPE merges.

GGUF names the cut in `tokenizer.ggml.pre`; a Hugging Face folder spells it out in
tokenizer.json. Both meet here, because these expressions run on untrusted text: only
the ones in this table run, so a model file cannot bring a regex that never ends. The
expressions are facts of the published tokenizer.json files (in Oniguruma's dialect,
which `tokenizers` uses) and, for the name of each, of llama.cpp's list of names.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import Regex, normalizers, pre_tokenizers

from pelton.errors import UnsupportedModelError

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA3 = rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_TAIL}"
QWEN2 = rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_TAIL}"
QWEN35 = (
    rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SLASH_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
    rf"|\p{{N}}|{_SLASH_TAIL}"
)
GPT4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CONTRACTION}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_CONTRACTION}?|\p{{N}}{{1,3}}|{_SLASH_TAIL}"
)
SEED_CODER = (
    rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1}}"
    r"| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BAILING = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
DEEPSEEK3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BLOOM = " ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+"
_CJK_KANA = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_CJK_WIDE = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
# Every cased letter of the scripts DeepSeek-LLM lists, with an optional space before the word.
_DEEPSEEK_LETTERS = (
    "\\s?[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af"
    "\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5"
    "\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-"
    "\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d"
    "\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-"
    "\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113"
    "\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e"
    "\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cb3\u2cb3\ua640-\ua66d\ua680-\ua69b\ua722-"
    "\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a"
    "\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-"
    "\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943]+"
)
DEEPSEEK_LLM = (
    "[\r\n]",
    _DEEPSEEK_LETTERS,
    "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
    r"\s+$",
    _CJK_WIDE,
    r"\p{N}+",
)
DEEPSEEK_CODER = ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK_WIDE, r"\p{N}")
_FALCON = (r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]")
_DEFAULT = (r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]")
_MULTI = (r"\p{N}{1,3}", _CJK_KANA, DEEPSEEK3)


@dataclass(frozen=True)
class PreTokenizer:
    """One row: the cut, and the defaults that come with the name.

    `steps` are expressions applied one after another, each isolating its matches; `digits` isolates
    every digit first; `nfc` normalizes to composed form before anything; `ignore_merges` takes a
    whole word that is a token without merging; `adds_bos` is the default when the file is silent.
    """

    steps: tuple[str, ...] = (GPT2,)
    digits: bool = False
    nfc: bool = False
    ignore_merges: bool = False
    adds_bos: bool = False

    def build(self) -> pre_tokenizers.PreTokenizer:
        """The `tokenizers` object: digits, then each step, then bytes as characters."""
        parts: list[pre_tokenizers.PreTokenizer] = []
        if self.digits:
            # Not `\p{N}`: Rust's notion of a digit knows 13 more code points, and the real files use it.
            parts.append(pre_tokenizers.Digits(individual_digits=True))
        if self.steps == (GPT2,):
            parts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True))
        else:
            parts += [pre_tokenizers.Split(Regex(step), "isolated") for step in self.steps]
            parts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
        return parts[0] if len(parts) == 1 else pre_tokenizers.Sequence(parts)

    def normalizer(self) -> normalizers.Normalizer | None:
        """NFC where the family composes characters first, else nothing."""
        return normalizers.NFC() if self.nfc else None


_ROWS: tuple[tuple[tuple[str, ...], PreTokenizer], ...] = (
    (("default",), PreTokenizer(_DEFAULT)),
    (("gpt-2", "phi-2", "mpt", "jais", "trillion", "granite-docling", "exaone4", "mellum"), PreTokenizer()),
    (("gigachat", "a.x-4.0", "modern-bert"), PreTokenizer()),
    (("olmo",), PreTokenizer(nfc=True)),
    (("smollm", "starcoder", "refact", "codeshell", "exaone", "minerva-7b"), PreTokenizer(digits=True)),
    (("mellum2",), PreTokenizer(digits=True)),
    (("command-r",), PreTokenizer(digits=True, nfc=True)),
    (("llama3", "llama-v3", "llama-bpe"), PreTokenizer((LLAMA3,), ignore_merges=True, adds_bos=True)),
    (("falcon3", "falcon-h1", "pixtral"), PreTokenizer((LLAMA3,), ignore_merges=True, adds_bos=True)),
    (("midm-2.0", "lfm2"), PreTokenizer((LLAMA3,), ignore_merges=True, adds_bos=True)),
    (("dbrx", "smaug-bpe", "glm4", "chatglm-bpe"), PreTokenizer((LLAMA3,))),
    (("qwen2", "deepseek-r1-qwen", "megrez"), PreTokenizer((QWEN2,), nfc=True)),
    (("stablelm2", "hunyuan", "solar-open", "kormo", "grok-2"), PreTokenizer((QWEN2,))),
    (("qwen35",), PreTokenizer((QWEN35,), nfc=True)),
    (("tekken",), PreTokenizer((TEKKEN,), ignore_merges=True, adds_bos=True)),
    (("gpt-4o", "llama4", "kanana2", "minimax-m2"), PreTokenizer((GPT4O,))),
    (("deepseek-llm",), PreTokenizer(DEEPSEEK_LLM)),
    (("deepseek-coder",), PreTokenizer(DEEPSEEK_CODER)),
    (("deepseek-v3", "hunyuan-dense", "joyai-llm"), PreTokenizer(_MULTI)),
    (("seed-coder",), PreTokenizer((SEED_CODER,))),
    (("bailingmoe", "bailingmoe2", "llada-moe"), PreTokenizer((BAILING,))),
    (("falcon",), PreTokenizer(_FALCON)),
    (("poro-chat", "bloom", "gpt3-finnish"), PreTokenizer((BLOOM,))),
    (("viking",), PreTokenizer((BLOOM, r"\p{N}"))),
)
PRE_TOKENIZERS: dict[str, PreTokenizer] = {name: row for names, row in _ROWS for name in names}
KNOWN_EXPRESSIONS: frozenset[str] = frozenset(step for _, row in _ROWS for step in row.steps) | {
    r"\p{N}{1,3}",
    r"\p{N}",
    r"\d",
}


def find_pre_tokenizer(name: str, *, subject: str) -> PreTokenizer:
    """The row called `name`; UnsupportedModelError naming `tokenizer.ggml.pre` when there is none."""
    row = PRE_TOKENIZERS.get(name)
    if row is None:
        raise UnsupportedModelError(
            "this pre-tokenizer is unknown, and another would cut words in other places",
            subject=subject,
            field="tokenizer.ggml.pre",
            value=name,
        )
    return row
