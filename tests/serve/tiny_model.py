"""A model small enough for thousands of requests: random weights, a real tokenizer and chat template."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gguf import GGUFWriter

from tests.models.cases import settings_of, tiny_weight
from tests.models.gguf_files import write_gguf
from tests.text.tiny_text import byte_level_values

CONTEXT = 1024
TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message.role }}\n{{ message.content }}"
    "{% if not loop.last or add_generation_prompt or message.role != 'assistant' %}<|end|>\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
_LAYER = {
    "self_attn.q_proj": (64, 64),
    "self_attn.k_proj": (32, 64),
    "self_attn.v_proj": (32, 64),
    "self_attn.o_proj": (64, 64),
    "mlp.gate_proj": (96, 64),
    "mlp.up_proj": (96, 64),
    "mlp.down_proj": (64, 96),
    "input_layernorm": (64,),
    "post_attention_layernorm": (64,),
}


def write_tiny(path: Path) -> Path:
    """A llama of two layers and 300 tokens as a GGUF file."""
    values = {**byte_level_values(), "tokenizer.chat_template": TEMPLATE}
    tokens = values["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    kind, settings = settings_of("llama")
    config = {
        **settings,
        "model_type": kind,
        "vocab_size": len(tokens),
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }
    shapes = {"model.embed_tokens": (len(tokens), 64), "model.norm": (64,), "lm_head": (len(tokens), 64)}
    for layer in range(2):
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in _LAYER.items()}
    tensors = {f"{name}.weight": tiny_weight(name, shape) for name, shape in shapes.items()}

    def add_text(writer: GGUFWriter) -> None:
        adders: dict[type, Callable[..., None]] = {
            str: writer.add_string,
            bool: writer.add_bool,
            int: writer.add_uint32,
            list: writer.add_array,
        }
        for key, value in values.items():
            adders[type(value)](key, value)

    return write_gguf(path, config, tensors, add_text)
