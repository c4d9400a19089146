"""Writes an OpenVINO folder with int8 weights from a float16 GGUF file.

    OPENVINO/bin/python makers/openvino_int8.py SOURCE.F16.gguf FOLDER

GenAI's own reader turns the GGUF file into an OpenVINO model; NNCF then stores every weight as int8 with
one scale and zero point per output, the form in which Intel publishes its int8 models.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import nncf
import openvino
import openvino_genai


def main() -> None:
    source, folder = Path(sys.argv[1]), Path(sys.argv[2])
    read = folder / "read"
    read.mkdir(parents=True, exist_ok=True)
    link = read / "model.gguf"
    link.unlink(missing_ok=True)
    link.symlink_to(source.resolve())
    openvino_genai.LLMPipeline(str(link), "CPU", enable_save_ov_model=True)
    model = openvino.Core().read_model(read / "openvino_model.xml")
    model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)
    openvino.save_model(model, folder / "openvino_model.xml")
    for name in ("openvino_tokenizer", "openvino_detokenizer"):
        for suffix in (".xml", ".bin"):
            shutil.copy(read / f"{name}{suffix}", folder)
    shutil.rmtree(read)


if __name__ == "__main__":
    main()
