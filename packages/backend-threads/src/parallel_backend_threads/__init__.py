"""Threads of this process as a backend of parallel, under the names ``threads`` and ``threading``."""

from __future__ import annotations

from parallel_backend_threads._backend import ThreadsBackend

__version__ = "0.1.0"

__all__ = ["ThreadsBackend"]
