"""Writes a Hugging Face folder with bfloat16 weights from a GGUF file, for engines that do not read GGUF.

    TRANSFORMERS/bin/python makers/hugging_face_folder.py SOURCE.gguf FOLDER

Weights are dequantized, so the folder computes what the GGUF file says, rounded to bfloat16.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    source, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    where = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    AutoTokenizer.from_pretrained(**where).save_pretrained(folder)
    read = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.bfloat16)
    # A model read from GGUF is marked as quantized and refuses to be saved; one of the same shape is not.
    settings = {name: value for name, value in read.config.to_dict().items() if name != "quantization_config"}
    plain = AutoModelForCausalLM.from_config(type(read.config)(**settings), dtype=torch.bfloat16)
    plain.load_state_dict(read.state_dict())
    plain.save_pretrained(folder)


if __name__ == "__main__":
    main()
