"""A small architecture and a checkpoint of it, for tests of loading."""

from __future__ import annotations

from small_clip import checkpoint, original, small_architecture, small_config

__all__ = ["checkpoint", "original", "small_architecture", "small_config"]
