"""Writes a GGUF file again in another number format, with llama.cpp's own quantizer.

    LLAMA_CPP/bin/python makers/requantize.py SOURCE.gguf Q8_0 TARGET.gguf

The output head and the embedding change with the rest, so that the file is what `llama-quantize` would
write from the same source. What the source already lost stays lost.
"""

from __future__ import annotations

import sys

import llama_cpp

FORMATS = {
    "Q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
    "Q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
    "BF16": llama_cpp.LLAMA_FTYPE_MOSTLY_BF16,
    "F16": llama_cpp.LLAMA_FTYPE_MOSTLY_F16,
}


def main() -> None:
    source, name, target = sys.argv[1:]
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = FORMATS[name]
    params.allow_requantize = True
    params.nthread = 2
    failed = llama_cpp.llama_model_quantize(source.encode(), target.encode(), params)
    if failed:
        raise SystemExit(f"llama.cpp could not write {source} as {name}: code {failed}")


if __name__ == "__main__":
    main()
