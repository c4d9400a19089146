"""RoPE settings of config.json and of GGUF metadata -> the plan's Rope."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigError, ModelFileError
from ..plan.ops import Rope
from ..weights.config_file import ConfigFile
from ..weights.fields import Fields
from . import rope as scaling
from .checks import MOST, positive, refuse, refuse_broken


@dataclass(frozen=True)
class ContextUse:
    """The context length a model was trained for, and the one it is loaded with.

    Raises ConfigError for more than the trained length: no family promises anything there.
    """

    trained: int
    wanted: int | None

    def __post_init__(self) -> None:
        if self.wanted is not None and not 1 <= self.wanted <= self.trained:
            raise ConfigError(
                f"must be from 1 to the model's {self.trained}", field="context_length", value=self.wanted
            )

    @property
    def length(self) -> int:
        return self.trained if self.wanted is None else self.wanted


@dataclass(frozen=True)
class RopeKeys:
    """A family's names and defaults for the base and for the part of a head that turns.

    `section` stands for "rope_parameters" where a model has several.
    """

    theta: float = 10_000.0
    theta_key: str = "rope_theta"
    share: float = 1.0
    share_key: str = "partial_rotary_factor"
    section: ConfigFile | None = None


PLAIN_KEYS = RopeKeys()


def rotated_width(subject: Fields, key: str, head_dim: int, share: float) -> int:
    """How much of a head turns; ModelFileError unless it is an even part of the head."""
    width = int(head_dim * share) if 0.0 < share <= 1.0 else 0
    if not 0 < width <= head_dim or width % 2:
        raise ModelFileError(
            f"must turn an even part of a head of {head_dim}", subject=subject.subject, field=key, value=share
        )
    return width


def rope_from_config(
    config: ConfigFile, head_dim: int, context: ContextUse, keys: RopeKeys = PLAIN_KEYS
) -> Rope:
    """RoPE as Hugging Face configs state it: "rope_parameters" (v5) or "rope_scaling" with "rope_theta".

    Raises UnsupportedModelError for a rope type or a key it does not know.
    """
    section = keys.section or config.section("rope_parameters") or config.section("rope_scaling")
    theta = config.get_float(keys.theta_key, keys.theta)
    share = config.get_float(keys.share_key, keys.share)
    kind = "default"
    if section is not None:
        theta = section.get_float("rope_theta", theta)
        share = section.get_float("partial_rotary_factor", share)
        kind = section.get_str("rope_type", section.get_str("type", "default"))
        section.get_str("type", None)
    _check_theta(config, keys.theta_key, theta)
    dim = rotated_width(config, keys.share_key, head_dim, share)
    if section is None or kind == "default":
        rope = _rope(head_dim, scaling.plain(theta, dim))
    else:
        rope = _scaled(config, section, kind, theta, dim, head_dim, context)
    if section is not None and section.unread():
        key = section.unread()[0]
        refuse(section, key, f"not known for rope type {kind!r}")
    return rope


def _rope(head_dim: int, frequencies: scaling.F64, magnitude: float = 1.0, interleaved: bool = False) -> Rope:
    return Rope(head_dim, tuple(float(f) for f in frequencies), magnitude, interleaved)


def _check_theta(fields: Fields, key: str, theta: float) -> None:
    if not 1.0 < theta < 1e15:
        raise ModelFileError("must be above 1", subject=fields.subject, field=key, value=theta)


def _original(config: ConfigFile, section: ConfigFile, context: ContextUse) -> int:
    key = "original_max_position_embeddings"
    original = section.get_int(key, config.get_int(key, context.trained))
    if not 2 <= original <= MOST["context"]:
        refuse_broken(section if key in section else config, key, f"must be from 2 to {MOST['context']}")
    return original


def _scaled(
    config: ConfigFile,
    section: ConfigFile,
    kind: str,
    theta: float,
    dim: int,
    head_dim: int,
    context: ContextUse,
) -> Rope:
    if kind == "linear":
        return _rope(head_dim, scaling.plain(theta, dim) / positive(section, "factor"))
    if kind == "dynamic":
        # Up to the trained length, the most that can be asked for, dynamic NTK changes nothing.
        positive(section, "factor")
        _original(config, section, context)
        return _rope(head_dim, scaling.plain(theta, dim))
    if kind == "llama3":
        low, high = positive(section, "low_freq_factor"), positive(section, "high_freq_factor")
        if high <= low:
            refuse_broken(section, "high_freq_factor", "must be above low_freq_factor")
        original = _original(config, section, context)
        plain = scaling.plain(theta, dim)
        return _rope(head_dim, scaling.llama3(plain, positive(section, "factor"), low, high, original))
    if kind == "yarn":
        return _yarn(config, section, theta, dim, head_dim, context)
    if kind in ("longrope", "su"):
        return _longrope(config, section, theta, dim, head_dim, context)
    key = "rope_type" if "rope_type" in section else "type"
    known = "default, linear, dynamic, yarn, longrope, llama3"
    refuse(section, key, f"only {known} are supported")


def _yarn(
    config: ConfigFile, section: ConfigFile, theta: float, dim: int, head_dim: int, context: ContextUse
) -> Rope:
    original = _original(config, section, context)
    factor = positive(section, "factor", context.trained / original)
    strength, all_dim = section.get_float("mscale", 0.0), section.get_float("mscale_all_dim", 0.0)
    magnitude = scaling.yarn_magnitude(factor)
    if strength and all_dim:
        magnitude = scaling.yarn_magnitude(factor, strength) / scaling.yarn_magnitude(factor, all_dim)
    frequencies = scaling.yarn(
        theta,
        dim,
        factor=factor,
        original=original,
        beta_fast=positive(section, "beta_fast", 32.0),
        beta_slow=positive(section, "beta_slow", 1.0),
        truncate=section.get_bool("truncate", True),
    )
    return _rope(head_dim, frequencies, positive(section, "attention_factor", magnitude))


def _longrope(
    config: ConfigFile, section: ConfigFile, theta: float, dim: int, head_dim: int, context: ContextUse
) -> Rope:
    original = _original(config, section, context)
    factors = {key: _factors(section, key, dim // 2) for key in ("short_factor", "long_factor")}
    factor = positive(section, "factor", context.trained / original)
    magnitude = positive(section, "attention_factor", scaling.longrope_magnitude(factor, original))
    chosen = factors["long_factor" if context.length > original else "short_factor"]
    return _rope(head_dim, scaling.longrope(theta, dim, chosen), magnitude)


def _factors(section: ConfigFile, key: str, count: int) -> list[float]:
    found = section.get_array(key)
    good = all(type(x) in (int, float) and 1e-6 <= x <= 1e6 for x in found)
    if len(found) != count or not good:
        refuse_broken(section, key, f"must be {count} numbers from 1e-6 to 1e6")
    return [float(x) for x in found]
