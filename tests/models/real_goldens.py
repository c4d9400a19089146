"""The prompts whose next-token logits make_real_goldens.py stores, and how they are read back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

REAL_GOLDENS = Path(__file__).with_name("real_goldens.npz")
KEPT = 64  # most likely tokens stored per prompt

_CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
PROMPTS = (
    "The",
    "The capital of France is",
    "Once upon a time there was a little girl who",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return",
    "1, 1, 2, 3, 5, 8, 13,",
    "import numpy as np\n\nx = np.",
    "Water boils at a temperature of",
    '{"name": "Ada", "born": 1815, "occupation":',
    "SELECT name, COUNT(*) FROM users GROUP",
    "La capitale de l'Allemagne est",
    "To be, or not to be, that is the",
    "for (int i = 0; i < n; i++) {\n    sum +=",
    "# Shopping list\n\n- milk\n- eggs\n-",
    "The derivative of x^3 with respect to x is",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002 \u041f\u0440\u0438\u0432\u0435\u0442! \U0001f642 means",
    _CHAT.format("What is the largest planet?"),
    _CHAT.format("Write a haiku about rain.") + "Soft drops on the roof,\n",
    _CHAT.format("Explain recursion in one paragraph."),
    "A pelton wheel is a water turbine. " * 6 + "A pelton",
    "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen. "
    "Plants, algae and some bacteria do it. In the light reactions, chlorophyll absorbs "
    "photons and splits water; in the Calvin cycle, the energy so won binds carbon. "
    "Without it, the air would hold almost no oxygen, and animals",
)


@dataclass(frozen=True)
class RealGolden:
    """One prompt: its tokens, the ids of the most likely next ones, their logits, and log sum exp of all."""

    tokens: NDArray[np.int32]
    kept: NDArray[np.int32]
    logits: NDArray[np.float32]
    logsumexp: float


def real_goldens() -> list[RealGolden]:
    with np.load(REAL_GOLDENS) as archive:
        stored = {name: archive[name] for name in archive.files}
    parts = np.split(stored["tokens"], np.cumsum(stored["lengths"])[:-1])
    rows = zip(parts, stored["kept"], stored["logits"], stored["logsumexp"], strict=True)
    return [RealGolden(tokens, kept, logits, float(total)) for tokens, kept, logits, total in rows]
