"""For authors of backends of parallel: a conformance suite for pytest, and fakes that need no worker.

::

    from parallel_testkit import BackendConformance


    class TestMine(BackendConformance):
        backend = "mine"
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parallel_testkit._bounded import run_bounded
    from parallel_testkit._clock import FakeClock
    from parallel_testkit._conformance import BackendConformance
    from parallel_testkit._flaky import FlakyBackend
    from parallel_testkit._leaks import LeakCheck
    from parallel_testkit._manual import ManualBackend, ManualBatch, ManualFuture
    from parallel_testkit._signals import Gate, Mailbox, Tally

__version__ = "0.1.0"

__all__ = [
    "BackendConformance",
    "FakeClock",
    "FlakyBackend",
    "Gate",
    "LeakCheck",
    "Mailbox",
    "ManualBackend",
    "ManualBatch",
    "ManualFuture",
    "Tally",
    "run_bounded",
]

_MODULES = {
    "BackendConformance": "_conformance",
    "FakeClock": "_clock",
    "FlakyBackend": "_flaky",
    "Gate": "_signals",
    "LeakCheck": "_leaks",
    "Mailbox": "_signals",
    "ManualBackend": "_manual",
    "ManualBatch": "_manual",
    "ManualFuture": "_manual",
    "Tally": "_signals",
    "run_bounded": "_bounded",
}


# Only what is used is imported: the workers import this package for the tasks of the suite, and pytest would cost each
# of them a quarter of a second.
def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"parallel_testkit.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
