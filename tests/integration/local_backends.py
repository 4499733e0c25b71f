"""The backends of this host, for what holds on all of them, on those with workers, or on those of processes."""

from __future__ import annotations

from typing import Any

import pytest

#: Name to arguments of `Parallel`; the executors of "futures" come from the fixture `make`.
KINDS: dict[str, dict[str, Any]] = {
    "sequential": {"backend": "sequential"},
    "threads": {"backend": "threads"},
    "loky": {"backend": "loky"},
    "mp": {"backend": "mp"},
    "futures-threads": {"backend": "futures"},
    "futures-processes": {"backend": "futures"},
}

WITH_WORKERS = [kind for kind in KINDS if kind != "sequential"]
OF_PROCESSES = ["loky", "mp", "futures-processes"]

every_kind = pytest.mark.parametrize("kind", KINDS)
every_kind_with_workers = pytest.mark.parametrize("kind", WITH_WORKERS)
every_kind_of_processes = pytest.mark.parametrize("kind", OF_PROCESSES)
#: Those that start their workers, and so give them an environment.
every_kind_that_starts_processes = pytest.mark.parametrize("kind", ["loky", "mp"])
