"""The suite on mpi4py's executor. Run by test_mpi.py under mpiexec; by its name pytest does not find it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from mpi4py.futures import MPIPoolExecutor

from parallel_testkit import BackendConformance


class TestMPIPoolExecutor(BackendConformance):
    backend = "futures"

    @pytest.fixture
    def backend_options(self) -> Iterator[dict[str, Any]]:
        with MPIPoolExecutor() as executor:
            yield {"executor": executor}
