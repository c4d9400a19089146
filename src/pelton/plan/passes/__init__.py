"""Rewrites of plans, one a file: each is a function Plan -> Plan that keeps the meaning."""

from __future__ import annotations

from .decompose import decompose
from .fuse import Fused, fuse, fuse_between
from .narrow import narrow
from .taps import tap_attention_mass, tap_layer_outputs

__all__ = ["Fused", "decompose", "fuse", "fuse_between", "narrow", "tap_attention_mass", "tap_layer_outputs"]
