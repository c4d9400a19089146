"""Open a model: a GGUF file, a Hugging Face folder, or a synthetic reference -> plan and weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ..errors import ModelFileError, UnsupportedModelError
from ..plan import Plan, PlanBuilder, verify
from ..quant import Weight
from ..weights.config_file import open_config
from ..weights.fields import Fields
from ..weights.gguf import GGUFFile, open_gguf
from ..weights.manifest import ModelKind
from ..weights.safetensors import open_safetensors
from . import ARCHITECTURES, read_config, read_gguf
from .architecture import Architecture, Decoder, ModelShape
from .assemble import assemble
from .build import build, parameter_count, weight_shapes
from .read_rope import ContextUse
from .synthetic import PREFIX, parse_synthetic, synthetic_weights

# Tensors that hold no weights: masks and tables that the library computes anyway.
_CONFIG_IGNORED = (r".*\.rotary_emb\.inv_freq", r".*\.(attn|attention)\.(bias|masked_bias)")
# Read as part of the RoPE settings.
_GGUF_IGNORED = (r"rope_freqs\.weight", r"rope_factors_(long|short)\.weight")


@dataclass(frozen=True)
class LoadedModel:
    """A model ready for an executor.

    `weights` is keyed by the plan's names; a tied "output" is the same Weight as "token_embd".
    `context_length` is the one in use. `source` is where the text layer finds its settings: the
    metadata of a GGUF file, a Hugging Face folder, None for a synthetic model.
    """

    shape: ModelShape
    plan: Plan
    weights: Mapping[str, Weight]
    context_length: int
    source: Fields | Path | None


def load_model(
    source: str | Path, kind: ModelKind | None = None, context_length: int | None = None
) -> LoadedModel:
    """Open the model at `source`: "synthetic:...", a folder with config.json, or a GGUF file.

    `kind` None: seen from `source` itself. `context_length` None: the trained one.

    Raises ModelFileError and UnsupportedModelError naming file, field and value; ConfigError for a
    synthetic reference or a context length beyond the trained one.
    """
    if kind == "synthetic" or (kind is None and str(source).startswith(PREFIX)):
        return _load_synthetic(str(source), context_length)
    path = Path(source)
    is_folder = path.is_dir() if kind is None else kind == "folder"
    return load_folder(path, context_length) if is_folder else load_gguf(open_gguf(path), context_length)


@contextmanager
def _naming(subject: Path) -> Iterator[None]:
    """Errors that do not know their file, those of Decoder and Mixture, get its name."""
    try:
        yield
    except ModelFileError as error:
        if error.subject is not None:
            raise
        raise type(error)(error.message, subject=subject, field=error.field, value=error.value) from error


def _load_synthetic(reference: str, context_length: int | None) -> LoadedModel:
    model = parse_synthetic(reference, lambda folder: _read_folder(folder, context_length)[1])
    wanted = context_length if model.context is None else model.context
    return _finish(model.decoder, synthetic_weights(model), wanted, None)


def load_folder(folder: Path, wanted: int | None) -> LoadedModel:
    """A Hugging Face folder: config.json and safetensors."""
    architecture, decoder = _read_folder(folder, wanted)
    tensors = open_safetensors(folder)
    ignored = (*_CONFIG_IGNORED, r"lm_head\.weight|embed_out\.weight") if decoder.tied else _CONFIG_IGNORED
    parts = architecture.config_parts(decoder, tensors)
    weights = assemble(str(folder), tensors, parts, _stored(decoder), ignored)
    return _finish(decoder, weights, wanted, folder)


def _read_folder(folder: Path, wanted: int | None) -> tuple[Architecture, Decoder]:
    config = open_config(folder)
    name = config.get_str("model_type")
    known = {key: item for item in ARCHITECTURES for key in item.config_names}
    architecture = _find(config.subject, "model_type", name, known)
    with _naming(config.subject):
        decoder = architecture.read_config(config, wanted)
    read_config.refuse_unread(config)
    return architecture, decoder


def load_gguf(file: GGUFFile, wanted: int | None = None) -> LoadedModel:
    """An opened GGUF file."""
    name = file.metadata.get_str("general.architecture")
    known = {key: item for item in ARCHITECTURES for key in item.gguf_names}
    architecture = _find(file.path, "general.architecture", name, known)
    with _naming(file.path):
        decoder = architecture.read_gguf(file, wanted)
    read_gguf.refuse_unread(file)
    parts = architecture.gguf_parts(decoder, file.tensors)
    weights = assemble(str(file.path), file.tensors, parts, _stored(decoder), _GGUF_IGNORED)
    return _finish(decoder, weights, wanted, file.metadata)


def _find(subject: Path, field: str, name: str, known: Mapping[str, Architecture]) -> Architecture:
    if name not in known:
        raise UnsupportedModelError(
            f"is none of the supported architectures: {', '.join(sorted(known))}",
            subject=subject,
            field=field,
            value=name,
        )
    return known[name]


def _stored(decoder: Decoder) -> dict[str, tuple[int, ...]]:
    shapes = weight_shapes(decoder)
    if decoder.tied:
        del shapes["output"]
    return shapes


def _finish(
    decoder: Decoder,
    weights: Mapping[str, Weight],
    wanted: int | None,
    source: Fields | Path | None,
) -> LoadedModel:
    tied = {"output": weights["token_embd"]} if decoder.tied else {}
    weights = MappingProxyType({**weights, **tied})
    plan = build(PlanBuilder({name: weight.shape for name, weight in weights.items()}), decoder)
    verify(plan)
    shape = ModelShape(
        architecture=decoder.architecture,
        vocab_size=decoder.vocab_size,
        context_length=decoder.context_length,
        num_layers=decoder.num_layers,
        hidden=decoder.hidden,
        num_kv_heads=decoder.num_kv_heads,
        head_dim=decoder.head_dim,
        parameters=parameter_count(decoder),
    )
    context = ContextUse(decoder.context_length, wanted).length
    return LoadedModel(shape, plan, weights, context, source)
