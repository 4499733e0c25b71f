"""The suite for one backend: `BackendConformance`."""

from __future__ import annotations

import pytest

_PARTS = (
    "context",
    "contract",
    "data",
    "errors",
    "faults",
    "generators",
    "lifecycle",
    "limits",
    "pickling",
    "probes",
    "results",
)
pytest.register_assert_rewrite(
    "parallel_testkit._recording",
    "parallel_testkit._suite",
    *(f"parallel_testkit._conformance_{part}" for part in _PARTS),
)

from parallel_testkit._conformance_context import ContextTests  # noqa: E402 - after their asserts can be rewritten
from parallel_testkit._conformance_contract import ContractTests  # noqa: E402
from parallel_testkit._conformance_data import DataTests  # noqa: E402
from parallel_testkit._conformance_errors import ErrorTests  # noqa: E402
from parallel_testkit._conformance_faults import FaultTests  # noqa: E402
from parallel_testkit._conformance_generators import GeneratorTests  # noqa: E402
from parallel_testkit._conformance_lifecycle import LifecycleTests  # noqa: E402
from parallel_testkit._conformance_limits import LimitTests  # noqa: E402
from parallel_testkit._conformance_pickling import PicklingTests  # noqa: E402
from parallel_testkit._conformance_probes import ProbeTests  # noqa: E402
from parallel_testkit._conformance_results import ResultTests  # noqa: E402

__all__ = ["BackendConformance"]


class BackendConformance(
    ProbeTests,
    ResultTests,
    ErrorTests,
    FaultTests,
    LimitTests,
    PicklingTests,
    GeneratorTests,
    ContextTests,
    DataTests,
    LifecycleTests,
    ContractTests,
):
    """All that `parallel` needs of a backend, as tests for pytest.

    ::

        class TestMine(BackendConformance):
            backend = "mine"
            options = {"address": "localhost"}

    or, where the options have to be made and cleaned up::

        class TestPool(BackendConformance):
            backend = "futures"

            @pytest.fixture
            def backend_options(self):
                with ThreadPoolExecutor(self.n_jobs) as executor:
                    yield {"executor": executor}

    What looks at the contract itself runs first; if that fails, the message says what is wrong, and what needs it is
    skipped. A test of something that the backend does not declare is skipped too, with the reason. A table at the end
    counts by capability. The workers must see the files of the machine that runs the tests, and must be able to import
    this package.

    Attributes
    ----------
    backend : str or callable
        The backend under test: the name by which it is found, its class, or a function that makes one.
    options : mapping
        What it is made with.
    n_jobs : int
        How many workers to ask for; at least 2.
    hang_seconds : float, default 40
        After so long a test counts as one that hangs: it fails, and the others are skipped.
    least_tasks_per_second : float, default 500
        The throughput below which the backend fails: a floor for what is broken, no measurement.
    """
