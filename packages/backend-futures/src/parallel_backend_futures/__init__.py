"""Any `concurrent.futures.Executor` as a backend of parallel, under the name ``futures``."""

from __future__ import annotations

from parallel_backend_futures._backend import FuturesBackend

__version__ = "0.1.0"

__all__ = ["FuturesBackend"]
