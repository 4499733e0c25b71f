"""What all parts of the suite share: the backend under test, and how tests reach it."""

from __future__ import annotations

import inspect
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import pytest

from parallel import Parallel, delayed
from parallel.backend import ParallelBackendBase
from parallel_testkit import _tasks
from parallel_testkit._signals import Gate, Mailbox, Tally

__all__ = ["MODES", "Make", "Suite", "backend_of", "close_and_wait", "every_mode", "join_new_threads"]

#: The values of ``return_as``.
MODES = ("list", "generator", "generator_unordered")

#: Runs a test once for each value of ``return_as``.
every_mode = pytest.mark.parametrize("mode", MODES)

#: Makes a `Parallel` on the backend under test.
Make = Callable[..., Parallel]


class Suite:
    """Base of the parts of `BackendConformance`."""

    #: The backend under test: a name, a subclass of `ParallelBackendBase`, or anything that makes such an object.
    backend: ClassVar[str | Callable[..., ParallelBackendBase]]
    #: Options of the backend's constructor. Override the fixture `backend_options` where they have to be made.
    options: ClassVar[Mapping[str, Any]] = {}
    #: How many workers to ask for; at least 2.
    n_jobs: ClassVar[int] = 2
    #: How long one test may take, in seconds, before it counts as hanging; none takes a tenth of it.
    hang_seconds: ClassVar[float] = 40.0
    #: The least number of tasks that do nothing that the backend runs in a second, in batches of any size.
    least_tasks_per_second: ClassVar[float] = 500.0

    @pytest.fixture
    def backend_options(self) -> Any:
        """Options of the backend's constructor; an override may yield them and clean up afterwards."""
        return dict(self.options)

    @pytest.fixture
    def make(self, backend_options: dict[str, Any]) -> Make:
        """Make a `Parallel` on the backend under test; arguments are those of `Parallel`."""

        def make_parallel(**arguments: Any) -> Parallel:
            given: dict[str, Any] = {"n_jobs": self.n_jobs, **arguments}
            backend = self._factory()
            if isinstance(backend, str):
                return Parallel(**{"backend": backend, **backend_options, **given})
            return Parallel(**{"backend": backend(**backend_options), **given})

        return make_parallel

    def skip(self, why: str) -> NoReturn:
        """Skip the test, because the backend `why`, as in "does not declare supports_kill"."""
        pytest.skip(f"the backend {self.backend_name!r} {why}")

    @property
    def backend_name(self) -> str:
        """What messages call the backend."""
        backend = self._factory()
        return backend if isinstance(backend, str) else getattr(backend, "__name__", repr(backend))

    def _factory(self) -> str | Callable[..., ParallelBackendBase]:
        # A function that is an attribute of the class is no method of this object.
        backend = inspect.getattr_static(type(self), "backend")
        return backend.__func__ if isinstance(backend, staticmethod) else backend

    def warm_up(self, make: Make, gate: Gate, mailbox: Mailbox) -> None:
        """Have all workers started, so that what a backend keeps on purpose is there before a test looks for leaks."""
        results = make(return_as="generator", batch_size=1)(
            delayed(_tasks.announce_and_wait)(mailbox, gate, i) for i in range(self.n_jobs)
        )
        mailbox.receive(self.n_jobs)
        gate.open()
        assert list(results) == list(range(self.n_jobs))

    @pytest.fixture
    def declared(self, make: Make) -> ParallelBackendBase:
        """A backend object, for what it declares."""
        return backend_of(make())

    @pytest.fixture
    def crosses_processes(self, make: Make) -> bool:
        """Whether tasks run in other processes, so that they are pickled; found out by looking."""
        known = type(self).__dict__.get("_crosses_processes")
        if known is None:
            known = os.getpid() not in make().map(_tasks.process_id, range(self.n_jobs))
            type(self)._crosses_processes = known  # type: ignore[attr-defined]
        return bool(known)

    @pytest.fixture
    def only_across_processes(self, crosses_processes: bool) -> None:
        """Skip the test where nothing is pickled."""
        if not crosses_processes:
            pytest.skip(f"tasks of the backend {self.backend_name!r} run in the caller's process: nothing is pickled")

    # Made after `make`, so that it is opened before the workers are ended: nothing waits for it any more.
    @pytest.fixture
    def gate(self, make: Make, pipes: Path) -> Iterator[Gate]:
        """A gate that is opened at the end of the test."""
        with Gate(pipes / "gate") as gate:
            yield gate

    @pytest.fixture
    def mailbox(self, pipes: Path) -> Iterator[Mailbox]:
        """Messages from tasks."""
        with Mailbox(pipes / "mailbox") as mailbox:
            yield mailbox

    @pytest.fixture
    def tally(self, tmp_path: Path) -> Tally:
        """Counts what tasks did."""
        return Tally(tmp_path / "tally")

    @pytest.fixture
    def pipes(self, tmp_path: Path) -> Path:
        """A folder that can hold named pipes."""
        if not hasattr(os, "mkfifo"):
            pytest.skip("this system has no named pipes, through which a test holds its tasks")
        return tmp_path

    @pytest.fixture
    def own_temp_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A folder for temporary files that nobody else uses."""
        folder = tmp_path / "tmp"
        folder.mkdir()
        monkeypatch.setenv("TMPDIR", str(folder))
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        return folder


def backend_of(parallel: Parallel) -> ParallelBackendBase:
    """Give the backend object of a `Parallel`; the attribute has the name that joblib's users know."""
    return parallel._backend


def join_new_threads(before: set[threading.Thread], seconds: float = 30.0) -> None:
    """Wait for the threads that a call has started, so that what they do at their end has been done.

    Parameters
    ----------
    before
        The threads that there were.
    seconds
        For each; not a measurement.
    """
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("parallel-call"):
            thread.join(seconds)
            assert not thread.is_alive(), f"{thread.name} is still running"


def close_and_wait(results: Any, before: set[threading.Thread]) -> None:
    """Leave a generator, and wait for its call; see `join_new_threads`."""
    results.close()
    join_new_threads(before)
