"""The kit on the backends of docs/how-to-write-a-backend.md, as the page has them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from parallel_testkit import BackendConformance

PAGE = Path(__file__).parents[2] / "docs" / "how-to-write-a-backend.md"


def backends_of_the_page() -> dict[str, Any]:
    """Run the blocks of the page that define backends."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks:
        if "Backend(ParallelBackendBase)" in block or "Backend(PoolBackend)" in block:
            exec(block, names)
    return names


BACKENDS = backends_of_the_page()


class TestPoolBackend(BackendConformance):
    backend = BACKENDS["PoolBackend"]


class TestProcessBackend(BackendConformance):
    backend = BACKENDS["ProcessBackend"]
