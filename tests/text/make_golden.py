"""Makes the golden files of this folder from Hugging Face's own tokenizer and template renderer.

Needs transformers and the default model's file: `python -m tests.text.make_golden MODEL.gguf`.

transformers reads vocabulary, merges and special tokens from the GGUF file but not how words are
cut; that is set here to what SmolLM2's published tokenizer.json has: digits one by one, then
GPT-2's expression.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.text.strings import BLOCK, block_hashes, sample_strings

GOLDEN = Path(__file__).parent / "golden"
COUNT = 10_000


def main(model: Path) -> None:
    """Writes golden/tokenizer.json and golden/chats.json; golden/cases.json holds what goes in."""
    from tokenizers import Tokenizer, pre_tokenizers
    from transformers import AutoTokenizer
    from transformers.utils.chat_template_utils import render_jinja_template

    truth: Any = AutoTokenizer.from_pretrained(str(model.parent), gguf_file=model.name)
    backend = truth.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    plain = Tokenizer.from_str(backend.to_str())
    plain.encode_special_tokens = True
    control = _control(backend)
    strings = sample_strings(COUNT, control)
    write(
        "tokenizer.json",
        {
            "control": list(control),
            "block": BLOCK,
            "plain": block_hashes([plain.encode(text, add_special_tokens=False).ids for text in strings]),
            "parsed": block_hashes([backend.encode(text, add_special_tokens=False).ids for text in strings]),
        },
    )
    cases = json.loads((GOLDEN / "cases.json").read_text(encoding="utf-8"))
    rows = []
    for chat in cases["chats"]:
        for open_end in (True, False):
            ids = truth.apply_chat_template(chat, add_generation_prompt=open_end, tokenize=True)["input_ids"]
            text = truth.apply_chat_template(chat, add_generation_prompt=open_end, tokenize=False)
            rows.append({"add_generation_prompt": open_end, "text": text, "ids": list(ids)})
    continued = [
        truth.apply_chat_template(chat, continue_final_message=True, tokenize=False)
        for chat in cases["chats"]
        if chat[-1]["content"].strip()
    ]
    rendered = [
        render_jinja_template([case["messages"]], chat_template=case["template"], **case["options"])[0][0]
        for case in cases["templates"]
    ]
    write("chats.json", {"chats": rows, "continued": continued, "templates": rendered})


def _control(backend: Any) -> tuple[str, ...]:
    decoder = backend.get_added_tokens_decoder()
    return tuple(token.content for _, token in sorted(decoder.items()) if token.special)


def write(name: str, data: object) -> None:
    """Writes one golden file."""
    (GOLDEN / name).write_text(json.dumps(data, ensure_ascii=True, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
