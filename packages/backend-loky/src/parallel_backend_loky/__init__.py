"""Warm loky worker processes as a backend of parallel, under the name ``loky``."""

from __future__ import annotations

from parallel_backend_loky._backend import LokyBackend

__version__ = "0.1.0"

__all__ = ["LokyBackend"]
