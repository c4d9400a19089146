"""Ten thousand seeded strings that tokenizers disagree about when one of them is wrong.

Unicode of every plane and kind, code, white space in all mixtures, numbers, contractions,
control-token look-alikes whole, broken and nested, and mixtures of all of these.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

BLOCK = 100  # strings per hash in the golden file

_TEXT = (
    "the quick brown fox don't I'M we'll They'VE hello World HTTPServer camelCase snake_case naïve façade "
    "Ångström straße ΑΒΓ привет Россия שלום مرحبا नमस्ते สวัสดี 你好世界 日本語 カタカナ 한국어 ﬁne ①② ½ x² "
    "\U0001d518\U0001d52b\U0001d526 "
    "supercalifragilistic antidisestablishmentarianism e.g. U.S.A. 3.14159 1,000,000 0x1F 2024-01-31"
)
_WORDS = _TEXT.split()
_SPACES = (
    " ",
    "  ",
    "   ",
    "\t",
    "\n",
    "\n\n",
    "\r\n",
    "\u00a0",
    "\u3000",
    "\u2003",
    "\u200b",
    " \n ",
    "\t\t ",
    "\v",
    "\f",
)
_CODE = (
    "def f(x: int) -> str:\n    return f'{x!r:>10}'\n",
    "for (int i = 0; i < n; ++i) { a[i] += b[i] * 2; }\n",
    "SELECT * FROM t WHERE id >= 42 -- note\n",
    "<div class='a'>&nbsp;</div>",
    "x = {'k': [1, 2.5e-3, None]}  # TODO\n\n\n",
    "\tif !ok {\n\t\treturn err\n\t}\n",
    "\\begin{align} \\frac{1}{2} \\end{align}",
    "https://example.org/a?b=c&d=%20#e",
)
_EMOJI = ("😀", "👍🏽", "👩\u200d👩\u200d👧", "🇩🇪", "❤️", "🏳️\u200d🌈")
_PLANES = ((0, 0x80), (0x80, 0x250), (0x250, 0x800), (0x800, 0xD800), (0xE000, 0x10000), (0x10000, 0x110000))


def sample_strings(count: int, control: tuple[str, ...], seed: int = 7) -> list[str]:
    """`count` strings; `control` are the texts of the model's control tokens, used as look-alikes."""
    draw = random.Random(seed)
    makers = (_plain, _unicode, _code, _white, _numbers, _look_alike, _mixture)
    return [makers[index % len(makers)](draw, control) for index in range(count)]


def block_hashes(ids: Sequence[Sequence[int]]) -> list[str]:
    """One hash for every BLOCK token lists: 10,000 strings in 100 short lines."""
    blocks = [ids[start : start + BLOCK] for start in range(0, len(ids), BLOCK)]
    return [hashlib.sha256(repr([list(row) for row in block]).encode()).hexdigest()[:16] for block in blocks]


def _plain(draw: random.Random, control: tuple[str, ...]) -> str:
    return "".join(
        draw.choice(_WORDS) + draw.choice((" ", " ", " ", ", ", ". ", "\n"))
        for _ in range(draw.randint(0, 30))
    )


def _unicode(draw: random.Random, control: tuple[str, ...]) -> str:
    characters = []
    for _ in range(draw.randint(1, 40)):
        low, high = draw.choice(_PLANES)
        characters.append(chr(draw.randrange(low, high)))
    return "".join(characters)


def _code(draw: random.Random, control: tuple[str, ...]) -> str:
    return "".join(draw.choice(_CODE) for _ in range(draw.randint(1, 6)))


def _white(draw: random.Random, control: tuple[str, ...]) -> str:
    return "".join(draw.choice((*_SPACES, "a", "7", ".", "é")) for _ in range(draw.randint(1, 40)))


def _numbers(draw: random.Random, control: tuple[str, ...]) -> str:
    return draw.choice((" ", "", "\n", "x")).join(
        str(draw.randrange(10 ** draw.randint(1, 12)))
        + draw.choice(("", ".", "%", "٣", "Ⅷ", "²", "st", "'s"))
        for _ in range(draw.randint(1, 12))
    )


def _look_alike(draw: random.Random, control: tuple[str, ...]) -> str:
    token = draw.choice(control)
    cut = draw.randint(0, len(token))
    shapes = (
        token,
        token * draw.randint(2, 4),
        token[:cut] + token + token[cut:],
        token[:cut] + draw.choice(_SPACES) + token[cut:],
        token.upper(),
        token[:-1],
        f"{draw.choice(_WORDS)}{token}{draw.choice(_WORDS)}",
        f" {token} \n{draw.choice(control)}{draw.choice(_WORDS)}",
    )
    return draw.choice(shapes)


def _mixture(draw: random.Random, control: tuple[str, ...]) -> str:
    makers = (_plain, _unicode, _code, _white, _numbers, _look_alike)
    parts = [draw.choice(makers)(draw, control)[:60] + draw.choice(_EMOJI) for _ in range(draw.randint(2, 5))]
    return draw.choice(("", " ")).join(parts)
