"""config.json of a Hugging Face folder -> Decoder: what most families share."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import ModelFileError, UnsupportedModelError
from ..plan.ops import Activation
from ..weights.config_file import ConfigFile
from ..weights.fields import Fields
from .architecture import Decoder
from .checks import MOST, positive, refuse, refuse_broken, size
from .read_rope import PLAIN_KEYS, ContextUse, RopeKeys, rope_from_config

ACTIVATIONS = {
    "silu": Activation.SILU,
    "swish": Activation.SILU,
    "gelu": Activation.GELU_ERF,
    "gelu_new": Activation.GELU_TANH,
    "gelu_pytorch_tanh": Activation.GELU_TANH,
    "relu": Activation.RELU,
}

# Keys that say how to train, sample, label or store, and never what the next token's logits are.
_HARMLESS = frozenset(
    (
        *("architectures", "model_type", "torch_dtype", "dtype", "transformers_version", "_name_or_path"),
        *("_commit_hash", "use_cache", "initializer_range", "attention_dropout", "hidden_dropout"),
        *("resid_pdrop", "embd_pdrop", "attn_pdrop", "embd_dropout", "classifier_dropout", "bos_token_id"),
        *("eos_token_id", "pad_token_id", "sep_token_id", "unk_token_id", "pretraining_tp"),
        *("output_attentions", "output_hidden_states", "return_dict", "torchscript", "problem_type"),
        *("id2label", "label2id", "finetuning_task", "task_specific_params", "output_router_logits"),
        *("router_aux_loss_coef", "router_jitter_noise", "is_llama_config", "transformers.js_config"),
        *("unsloth_version", "unsloth_fixed", "auto_map", "tokenizer_class", "is_decoder", "n_ctx"),
        *("reorder_and_upcast_attn", "summary_type", "summary_use_proj", "summary_activation"),
        *("summary_proj_to_labels", "summary_first_dropout", "max_length", "do_sample", "temperature"),
        *("top_k", "top_p", "repetition_penalty", "num_return_sequences", "gradient_checkpointing"),
        *("cache_implementation", "_attn_implementation", "_attn_implementation_autoset"),
        *("decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id", "bad_words_ids"),
        *("prefix", "chunk_size_feed_forward", "return_dict_in_generate"),
    )
)
# Options of the transformers library that must be off.
_OFF: dict[str, tuple[object, ...]] = {
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "tie_encoder_decoder": (False,),
    "use_bfloat16": (False,),
    "rope_interleaved": (False,),
    "cross_attention_hidden_size": (),
    "pruned_heads": ({},),
    "use_bidirectional_attention": (False,),
    "quantization_config": (),
}


def activation(config: ConfigFile, key: str, default: str) -> Activation:
    """The activation of that name. Raises UnsupportedModelError."""
    name = config.get_str(key, default)
    if name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        refuse(config, key, f"only {known} are supported")
    return ACTIVATIONS[name]


def split_head_dim(fields: Fields, key: str, hidden: int, heads: int, default: int | None = None) -> int:
    """Head dimension: stated, or the family's default, or hidden / heads."""
    if key not in fields and default is None and hidden % heads:
        raise ModelFileError(
            f"must be a multiple of the {heads} heads",
            subject=fields.subject,
            field="hidden size",
            value=hidden,
        )
    found = size(fields, key, MOST["heads"], default or hidden // heads)
    if found % 2:
        refuse_broken(fields, key, f"heads must be of even width, not {found}")
    return found


def read_decoder(
    config: ConfigFile,
    wanted: int | None,
    architecture: str,
    *,
    tied: bool = False,
    head_dim: int | None = None,
    rope: RopeKeys = PLAIN_KEYS,
    eps_key: str = "rms_norm_eps",
    activation_key: str = "hidden_act",
    activation_default: str = "silu",
) -> Decoder:
    """The keys that Llama's descendants share; keyword arguments are a family's names and defaults.

    The result has no biases and no windows: the family replaces what it does otherwise.
    """
    heads = size(config, "num_attention_heads", MOST["heads"])
    hidden = size(config, "hidden_size", MOST["width"])
    dim = split_head_dim(config, "head_dim", hidden, heads, head_dim)
    layers = size(config, "num_hidden_layers", MOST["layers"])
    context = trained_context(config, wanted)
    return Decoder(
        architecture=architecture,
        vocab_size=size(config, "vocab_size", MOST["vocab"]),
        context_length=context.trained,
        num_layers=layers,
        hidden=hidden,
        num_heads=heads,
        num_kv_heads=size(config, "num_key_value_heads", MOST["heads"], heads),
        head_dim=dim,
        intermediate=size(config, "intermediate_size", MOST["width"]),
        eps=config.get_float(eps_key),
        windows=(0,) * layers,
        rope=rope_from_config(config, dim, context, rope),
        tied=config.get_bool("tie_word_embeddings", tied),
        activation=activation(config, activation_key, activation_default),
        attention_scale=dim**-0.5,
    )


def trained_context(config: ConfigFile, wanted: int | None) -> ContextUse:
    """max_position_embeddings; YaRN's factor times its original length where that is more."""
    trained = size(config, "max_position_embeddings", MOST["context"])
    section = config.section("rope_parameters") or config.section("rope_scaling")
    if section is not None and section.get_str("rope_type", section.get_str("type", "default")) == "yarn":
        original = size(section, "original_max_position_embeddings", MOST["context"], trained)
        trained = min(max(trained, int(original * positive(section, "factor", 1.0))), MOST["context"])
    return ContextUse(trained, wanted)


def one_window(config: ConfigFile, layers: int) -> tuple[int, ...]:
    """ "sliding_window" for all layers, null for none: Mistral's, Mixtral's and Phi 3's way."""
    return (size(config, "sliding_window", MOST["context"]) if "sliding_window" in config else 0,) * layers


def layered_windows(config: ConfigFile, layers: int, is_local: Callable[[int], bool]) -> tuple[int, ...]:
    """A window for the layers that "layer_types" names, or `is_local` where the key is absent."""
    types = config.get_array("layer_types", None, element=str)
    if types is None:
        local = [is_local(layer) for layer in range(layers)]
    else:
        for kind in types:
            if kind not in ("full_attention", "sliding_attention"):
                raise UnsupportedModelError(
                    "only full_attention and sliding_attention are supported",
                    subject=config.subject,
                    field="layer_types",
                    value=kind,
                )
        if len(types) != layers:
            refuse_broken(config, "layer_types", f"must name all {layers} layers")
        local = [kind == "sliding_attention" for kind in types]
    if not any(local):
        config.get_int("sliding_window", None)
        return (0,) * layers
    window = size(config, "sliding_window", MOST["context"])
    return tuple(window if is_local else 0 for is_local in local)


def refuse_unread(config: ConfigFile) -> None:
    """Raise UnsupportedModelError for an option that must be off, or a key no reader asked for."""
    for key, allowed in _OFF.items():
        if allowed:
            config.expect(key, *allowed)
        elif key in config:
            refuse(config, key, "is not supported")
    for key in config.unread():
        if key not in _HARMLESS:
            refuse(config, key, "is not a setting known for this architecture")
