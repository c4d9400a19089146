"""Makes goldens.npz: logits of the tiny models as the transformers library computes them in float32.

Run by hand, with torch and transformers installed: `python -m tests.models.make_goldens`.
"""

from __future__ import annotations

import json
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from .cases import CASES, GOLDENS, settings_of, stored_rows, tiny_weight, tokens_of, write_folder

# Imported so that the checks of types need neither.
torch, transformers = import_module("torch"), import_module("transformers")


def saved_form(case: str, folder: Path) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    """config.json, and names and shapes of the tensors, as save_pretrained writes them."""
    kind, settings = settings_of(case)
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(kind, **settings))
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    del config["transformers_version"]
    with safe_open(folder / "model.safetensors", "np") as file:
        names = file.keys()
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
    return config, shapes


def main() -> None:
    meta: dict[str, Any] = {}
    logits: dict[str, Any] = {}
    for case in CASES:
        with tempfile.TemporaryDirectory() as temporary:
            config, shapes = saved_form(case, Path(temporary, "random"))
            tensors = {name: tiny_weight(name, shape) for name, shape in shapes.items()}
            folder = write_folder(Path(temporary, "seeded"), config, tensors)
            model, info = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
            )
            assert not [*info["missing_keys"], *info["unexpected_keys"]], info
            ids = torch.from_numpy(tokens_of(case).astype(np.int64))[None]
            with torch.no_grad():
                found = model.eval()(ids, use_cache=False).logits[0].numpy()
        logits[case] = found[stored_rows(case)]
        meta[case] = {"config": config, "tensors": shapes}
        print(case, "spread of logits", float(found.std()))
    packed = np.frombuffer(json.dumps(meta, separators=(",", ":")).encode(), np.uint8)
    np.savez_compressed(GOLDENS, meta=packed, **logits)
    print(GOLDENS, GOLDENS.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
