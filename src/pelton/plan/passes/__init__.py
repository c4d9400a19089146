"""Rewrites of plans, one a file: each is a function Plan -> Plan that keeps the meaning."""

from __future__ import annotations

from .decompose import decompose
from .fuse import fuse
from .taps import tap_attention_mass, tap_layer_outputs

__all__ = ["decompose", "fuse", "tap_attention_mass", "tap_layer_outputs"]
