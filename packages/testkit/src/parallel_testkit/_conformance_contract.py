"""What the core asks of a backend, looked at from the core's side."""

from __future__ import annotations

import contextlib

import pytest

from parallel import Parallel, delayed
from parallel.backend import ParallelBackendBase
from parallel_testkit import _tasks
from parallel_testkit._marks import capability
from parallel_testkit._recording import Recording
from parallel_testkit._suite import Make, Suite, backend_of

__all__ = ["ContractTests"]


@capability("callback contract")
class ContractTests(Suite):
    """Callbacks, futures, numbers of workers, starting and ending."""

    @pytest.fixture
    def instance(self, make: Make) -> ParallelBackendBase:
        """A backend object of the test's own."""
        return backend_of(make())

    def test_every_job_is_called_back_exactly_once(self, instance: ParallelBackendBase) -> None:
        seen = Recording(instance, self.backend_name)
        parallel = Parallel(n_jobs=self.n_jobs, backend=instance, batch_size=3)
        assert parallel.map(_tasks.noop, range(100)) == list(range(100))
        assert [job.callbacks for job in seen.jobs] == [1] * len(seen.jobs)
        assert len(seen.jobs) == 34

    def test_a_task_that_fails_is_called_back_like_any_other(self, instance: ParallelBackendBase) -> None:
        seen = Recording(instance, self.backend_name)
        with pytest.raises(LookupError):
            Parallel(n_jobs=self.n_jobs, backend=instance)([delayed(_tasks.fail)("no")] * 1 + [delayed(_tasks.noop)()])
        assert seen.jobs[0].callbacks == 1
        assert max(job.callbacks for job in seen.jobs) == 1

    def test_a_future_that_was_called_back_is_done(self, instance: ParallelBackendBase) -> None:
        seen = Recording(instance, self.backend_name)
        Parallel(n_jobs=self.n_jobs, backend=instance).map(_tasks.noop, range(10))
        for job in seen.jobs:
            done = getattr(job.future, "done", None)
            if done is None:
                pytest.skip(f"the futures of the backend {self.backend_name!r} have no method done()")
            assert done()

    def test_the_methods_are_called_in_the_order_of_the_contract(self, instance: ParallelBackendBase) -> None:
        seen = Recording(instance, self.backend_name)
        parallel = Parallel(n_jobs=self.n_jobs, backend=instance, batch_size=1)
        with parallel:
            parallel.map(_tasks.noop, range(2))
            parallel.map(_tasks.noop, range(1))
        call = ["start_call", "submit", "stop_call"]
        assert seen.calls == ["configure", "start_call", "submit", "submit", "stop_call", *call, "terminate"]

    def test_an_error_aborts_once_and_before_the_end(self, instance: ParallelBackendBase) -> None:
        seen = Recording(instance, self.backend_name)
        with pytest.raises(LookupError):
            Parallel(n_jobs=self.n_jobs, backend=instance)([delayed(_tasks.fail)("no"), delayed(_tasks.noop)()])
        assert seen.calls.count("abort_everything") == 1
        assert seen.calls.index("abort_everything") < seen.calls.index("terminate")

    def test_jobs_are_for_workers_that_there_are(self, instance: ParallelBackendBase) -> None:
        seen = Recording(instance, self.backend_name)
        Parallel(n_jobs=self.n_jobs, backend=instance, batch_size=1).map(_tasks.noop, range(50))
        assert {job.worker for job in seen.jobs} <= set(range(self.n_jobs))

    def test_numbers_of_workers(self, instance: ParallelBackendBase) -> None:
        name = f"the backend {self.backend_name} lies about effective_n_jobs"
        with contextlib.suppress(ValueError):
            pytest.fail(f"{name}: effective_n_jobs(0) gave {instance.effective_n_jobs(0)!r}; it must be a ValueError")
        for asked in (1, 2, self.n_jobs, -1, -2, -1000, None):
            workers = instance.effective_n_jobs(asked)
            assert type(workers) is int and workers >= 1, f"{name}: effective_n_jobs({asked}) gave {workers!r}"
            if asked is not None and asked > 0:
                assert workers == asked, f"{name}: effective_n_jobs({asked}) gave {workers}"
        assert isinstance(instance.default_n_jobs, int)

    def test_it_can_be_configured_again_after_it_was_ended(self, instance: ParallelBackendBase) -> None:
        for _ in range(3):
            parallel = Parallel(n_jobs=self.n_jobs, backend=instance)
            assert parallel.map(_tasks.noop, range(20)) == list(range(20))

    def test_it_can_be_ended_without_a_job(self, instance: ParallelBackendBase) -> None:
        assert instance.configure(n_jobs=self.n_jobs, parallel=None) == self.n_jobs
        instance.terminate()

    def test_it_can_be_aborted_without_a_job(self, instance: ParallelBackendBase) -> None:
        instance.configure(n_jobs=self.n_jobs, parallel=None)
        instance.abort_everything(ensure_ready=True)
        instance.abort_everything(ensure_ready=False)
        instance.terminate()

    def test_what_it_declares_is_of_the_right_kind(self, declared: ParallelBackendBase) -> None:
        assert declared.wire in ("bytes", "objects")
        for name in ("same_host", "supports_kill", "supports_started", "supports_sharedmem", "uses_threads"):
            assert isinstance(getattr(declared, name), bool), name
        depth = declared.max_in_flight_per_worker
        assert depth is None or depth >= 1

    def test_its_nested_backend_is_one(self, declared: ParallelBackendBase) -> None:
        backend, n_jobs = declared.get_nested_backend()
        assert backend is None or isinstance(backend, (str, ParallelBackendBase))
        assert n_jobs is None or isinstance(n_jobs, int)
