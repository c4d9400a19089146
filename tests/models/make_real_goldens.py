"""Makes real_goldens.npz: next-token logits of the default model as transformers computes them in float32.

The weights are dequantized by transformers and the gguf package, not by pelton. Run by hand, with
torch and transformers installed: `python -m tests.models.make_real_goldens PATH/TO/MODEL.gguf`.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import numpy as np

from .real_goldens import KEPT, PROMPTS, REAL_GOLDENS

torch, transformers = import_module("torch"), import_module("transformers")


def main() -> None:
    path = Path(sys.argv[1])
    where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(**where)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        **where, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    tokens, lengths, kept, logits, normalizers = [], [], [], [], []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            last = model(torch.tensor([ids]), use_cache=False).logits[0, -1]
        top = torch.topk(last, KEPT)
        tokens += ids
        lengths.append(len(ids))
        kept.append(top.indices.numpy())
        logits.append(top.values.numpy())
        normalizers.append(float(torch.logsumexp(last.double(), 0)))
        print(len(ids), repr(tokenizer.decode(top.indices[:1])), repr(prompt[:60]))
    np.savez_compressed(
        REAL_GOLDENS,
        tokens=np.array(tokens, np.int32),
        lengths=np.array(lengths, np.int32),
        kept=np.array(kept, np.int32),
        logits=np.array(logits, np.float32),
        logsumexp=np.array(normalizers, np.float64),
    )
    print(REAL_GOLDENS, REAL_GOLDENS.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
