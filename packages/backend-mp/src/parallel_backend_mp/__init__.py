"""Worker processes on multiprocessing primitives as a backend of parallel: ``mp`` and ``multiprocessing``."""

from __future__ import annotations

from parallel_backend_mp._backend import MpBackend

__version__ = "0.1.0"

__all__ = ["MpBackend"]
