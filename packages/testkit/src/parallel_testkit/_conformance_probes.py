"""What everything else needs of a backend, looked at first: a backend that has a fault is told in words which."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from parallel import Parallel, delayed
from parallel.backend import ParallelBackendBase
from parallel.errors import BackendContractError, BackendError, TaskTimeoutError
from parallel_testkit import _fault_tasks, _tasks
from parallel_testkit._bounded import run_bounded
from parallel_testkit._leaks import LeakCheck
from parallel_testkit._marks import capability, probe
from parallel_testkit._processes import wait_until_gone
from parallel_testkit._recording import PROBE_SECONDS, Recording
from parallel_testkit._signals import Gate, Mailbox
from parallel_testkit._suite import Make, Suite, backend_of, close_and_wait

__all__ = ["ProbeTests"]

#: A `submit` that takes so long every time waits for something.
BLOCKING_SECONDS = 0.1

#: More than what a pipe or a socket takes at once.
LARGE = 4_000_000

#: How many of the workers that ``n_jobs=-1`` gives are looked at.
MAX_WORKERS = 8

#: What was left behind is waited for so long: shorter than in the tests of `LifecycleTests`, which come later.
SETTLE_SECONDS = 10.0


@capability("callback contract")
class ProbeTests(Suite):
    """One job there and back, submit, callbacks, exceptions, workers, aborts, the function, what is left behind."""

    @pytest.fixture
    def instance(self, make: Make) -> ParallelBackendBase:
        """A backend object of the test's own."""
        return backend_of(make())

    @probe
    def test_a_job_is_run_and_called_back_once(self, instance: ParallelBackendBase) -> None:
        self._check_workers(instance, self.n_jobs)
        seen = Recording(instance, self.backend_name)
        parallel = Parallel(n_jobs=self.n_jobs, backend=instance, batch_size=2)
        results = seen.call(lambda: parallel.map(_tasks.square, range(10)))
        assert results == [i * i for i in range(10)], "the results of one call are not those of its tasks"
        assert len(seen.jobs) == 5
        seen.wait_for_more_callbacks()

    @probe
    def test_submit_does_not_wait_for_the_job(
        self, instance: ParallelBackendBase, gate: Gate, mailbox: Mailbox
    ) -> None:
        seen = Recording(instance, self.backend_name)
        parallel = Parallel(n_jobs=self.n_jobs, backend=instance, batch_size=1, return_as="generator")
        held = [delayed(_tasks.announce_and_wait)(mailbox, gate, i) for i in range(self.n_jobs)]
        results = seen.start(lambda: parallel(held))
        # Nothing ends before the gate is opened, so a submit that returns has not waited for it.
        seen.wait_for(lambda: len(seen.jobs) == self.n_jobs and not seen.is_inside_submit())
        seen.check_submit()
        gate.open()
        assert seen.call(lambda: list(results)) == list(range(self.n_jobs))

    @probe
    @pytest.mark.parametrize("asked", ["n_jobs", "n_jobs + 1", "-1"])
    def test_as_many_tasks_run_at_a_time_as_it_says(
        self, instance: ParallelBackendBase, asked: str, gate: Gate, mailbox: Mailbox
    ) -> None:
        n_jobs = {"n_jobs": self.n_jobs, "n_jobs + 1": self.n_jobs + 1}.get(asked, -1)
        says = self._check_workers(instance, n_jobs)
        workers = min(says, MAX_WORKERS)
        if workers == 1 and instance.runs_in_caller_when_single:
            pytest.skip("a single worker is left out")
        parallel = Parallel(
            n_jobs=n_jobs, backend=instance, batch_size=1, return_as="generator", pre_dispatch=2 * workers
        )
        seen = Recording(instance, self.backend_name)
        results = seen.start(
            lambda: parallel(delayed(_tasks.announce_and_wait)(mailbox, gate, i) for i in range(workers))
        )
        at_once = mailbox.receive_up_to(workers, PROBE_SECONDS)
        gate.open()
        seen.call(lambda: list(results))
        assert len(at_once) == workers, (
            f"the backend {self.backend_name} lies about effective_n_jobs: effective_n_jobs({n_jobs}) gave "
            f"{says}, and of {workers} tasks {len(at_once)} ran at the same time"
        )
        assert seen.configured == [says], (
            f"configure(n_jobs={n_jobs}) gave {seen.configured[0]!r} and effective_n_jobs({n_jobs}) {says}"
        )

    def _check_workers(self, instance: ParallelBackendBase, n_jobs: int) -> int:
        says = instance.effective_n_jobs(n_jobs)
        # There may be only so many: then it is for `n_jobs` of the suite to ask for no more.
        is_possible = says == n_jobs if n_jobs == self.n_jobs else says >= 1 and (n_jobs < 0 or says <= n_jobs)
        assert type(says) is int and is_possible, (
            f"the backend {self.backend_name} lies about effective_n_jobs: effective_n_jobs({n_jobs}) gave {says!r}"
        )
        return says

    @probe
    def test_the_exception_of_a_task_arrives(self, instance: ParallelBackendBase) -> None:
        seen = Recording(instance, self.backend_name)
        parallel = Parallel(n_jobs=self.n_jobs, backend=instance, batch_size=1)

        def call() -> str | None:
            tasks = [delayed(_tasks.noop)(0), delayed(_tasks.fail)("of a task"), delayed(_tasks.noop)(2)]
            try:
                return f"gave {parallel(tasks)!r}"
            except LookupError:
                return None
            except (BackendError, AssertionError):
                raise  # it says itself what is wrong
            except Exception as error:
                return f"raised {error!r}"

        happened = seen.call(call)
        assert happened is None, (
            f"the backend {self.backend_name} loses exceptions: a task raised LookupError('of a task'), and the call "
            f"{happened}. It travels inside the outcome: hand on what the job returns unchanged"
        )

    @probe
    @capability("worker loss")
    def test_the_loss_of_a_worker_is_told(
        self, instance: ParallelBackendBase, declared: ParallelBackendBase, crosses_processes: bool
    ) -> None:
        if not (crosses_processes and declared.same_host):
            self.skip("does not declare that its workers are processes of this host")
        if not (declared.owns_workers or declared.replaces_workers):
            pytest.skip(f"the workers of the backend {self.backend_name!r} are somebody else's, and not replaced")
        seen = Recording(instance, self.backend_name)
        parallel = Parallel(n_jobs=self.n_jobs, backend=instance, batch_size=1)

        def call() -> Any:
            try:
                return f"the call gave {parallel([delayed(_fault_tasks.end_worker)('kill')] * 1)!r}"
            except BackendContractError as error:
                return f"the core said: {error}"
            except BackendError:
                return None

        try:
            problem = run_bounded(call, seconds=PROBE_SECONDS)
        except AssertionError:
            problem = f"the call was still waiting after {PROBE_SECONDS:g} s"
        if problem is not None:
            pytest.fail(
                f"the backend {self.backend_name} loses exceptions of its infrastructure: a worker was killed "
                f"while it ran a task, and {problem}. Call the callback and raise WorkerLostError from "
                "retrieve_result_callback, or call report.lost(future)"
            )
        seen.wait_for_all_callbacks()

    @probe
    def test_submit_is_quick(self, instance: ParallelBackendBase) -> None:
        seen = Recording(instance, self.backend_name)
        seen.call(lambda: Parallel(n_jobs=self.n_jobs, backend=instance, batch_size=1).map(_tasks.noop, range(20)))
        least = min(job.seconds or 0.0 for job in seen.jobs)
        assert least < BLOCKING_SECONDS, (
            f"the backend {self.backend_name} blocks in submit(): of {len(seen.jobs)} calls of it every one took "
            f"{least:.2f} s or more"
        )

    @probe
    def test_submit_does_not_wait_for_room_in_a_pipe(
        self, instance: ParallelBackendBase, gate: Gate, mailbox: Mailbox
    ) -> None:
        seen = Recording(instance, self.backend_name)
        parallel = Parallel(
            n_jobs=self.n_jobs,
            backend=instance,
            batch_size=1,
            return_as="generator",
            max_nbytes=None,
            pre_dispatch="all",
        )
        # Short ones first, so that a second batch waits at each worker; then its data are more than a pipe takes.
        tasks = [delayed(_tasks.noop)(i) for i in range(self.n_jobs)]
        tasks += [delayed(_tasks.announce_and_wait)(mailbox, gate, i, bytes(LARGE)) for i in range(2 * self.n_jobs)]
        results = seen.start(lambda: parallel(tasks))
        mailbox.receive(self.n_jobs, PROBE_SECONDS)
        # Which of them wait at a worker is for the core to say; none may be held up.
        seen.wait_for(lambda: len(seen.jobs) > 2 * self.n_jobs, 1.0)
        seen.wait_for(lambda: not seen.is_inside_submit())
        seen.check_submit()
        gate.open()
        assert len(seen.call(lambda: list(results))) == len(tasks)

    @probe
    def test_the_function_of_a_call_is_pickled_once(self, instance: ParallelBackendBase) -> None:
        function = _tasks.CountsPickling()
        seen = Recording(instance, self.backend_name)
        parallel = Parallel(n_jobs=self.n_jobs, backend=instance, batch_size=1)
        assert seen.call(lambda: parallel(delayed(function)(i) for i in range(40))) == list(range(40))
        assert function.n_pickled <= 2, (
            f"the backend {self.backend_name} pickles the function every time: {function.n_pickled} times for "
            f"{len(seen.jobs)} jobs. A job pickles as its payload, which the core has made with the function pickled "
            "once; do not take it apart"
        )

    @probe
    @capability("abort")
    def test_an_abort_ends_what_runs(
        self, instance: ParallelBackendBase, declared: ParallelBackendBase, gate: Gate, mailbox: Mailbox
    ) -> None:
        if not declared.supports_kill:
            self.skip("does not declare supports_kill")
        before = set(threading.enumerate())
        seen = Recording(instance, self.backend_name)
        parallel = Parallel(n_jobs=self.n_jobs, backend=instance, batch_size=1, return_as="generator")
        with parallel:
            results = parallel([delayed(_fault_tasks.tell_process_and_wait)(mailbox, gate)] * self.n_jobs)
            processes = [int(text) for text in mailbox.receive(self.n_jobs, PROBE_SECONDS)]
            with pytest.warns(RuntimeWarning, match="closed before its end"):
                close_and_wait(results, before)
            assert "abort_everything" in seen.calls
            try:
                for process in processes:
                    wait_until_gone(process, seconds=PROBE_SECONDS)
            except AssertionError as error:
                pytest.fail(
                    f"the backend {self.backend_name} ignores abort: it declares supports_kill, and "
                    f"{PROBE_SECONDS:g} s after abort_everything() tasks of the call that was left run on: {error}"
                )

    @probe
    @capability("abort")
    def test_after_an_abort_there_are_workers_for_the_next_call(
        self, instance: ParallelBackendBase, gate: Gate, mailbox: Mailbox
    ) -> None:
        has_abort = type(instance).abort_everything is not ParallelBackendBase.abort_everything
        if not (instance.supports_kill or has_abort):
            self.skip("neither declares supports_kill nor defines abort_everything")
        before = set(threading.enumerate())
        parallel = Parallel(n_jobs=self.n_jobs, backend=instance, batch_size=1, return_as="generator")
        with parallel:
            results = parallel([delayed(_tasks.announce_and_wait)(mailbox, gate, None)] * self.n_jobs)
            mailbox.receive(self.n_jobs, PROBE_SECONDS)
            with pytest.warns(RuntimeWarning, match="closed before its end"):
                close_and_wait(results, before)
            try:
                assert run_bounded(lambda: list(parallel.map(_tasks.noop, range(5))), seconds=PROBE_SECONDS) == [
                    *range(5)
                ]
            except AssertionError as error:
                gate.open()  # or the end of the block would wait
                pytest.fail(
                    f"the backend {self.backend_name} ignores abort: after abort_everything(ensure_ready=True) "
                    f"tasks of the call that was left hold the workers, and the next call gets none: {error}"
                )

    @probe
    @capability("time limits")
    def test_a_worker_that_is_to_be_killed_is(
        self, instance: ParallelBackendBase, gate: Gate, mailbox: Mailbox
    ) -> None:
        if not instance.supports_kill:
            self.skip("does not declare supports_kill")
        parallel = Parallel(n_jobs=self.n_jobs, backend=instance, batch_size=1, timeout=0.5, return_exceptions=True)
        tasks = [delayed(_fault_tasks.tell_process_and_wait)(mailbox, gate)]
        try:
            (late,) = run_bounded(lambda: parallel(tasks), seconds=PROBE_SECONDS)
            wait_until_gone(int(mailbox.receive()[0]), seconds=PROBE_SECONDS)
        except AssertionError as error:
            gate.open()
            pytest.fail(
                f"the backend {self.backend_name} ignores kill: it declares supports_kill, and {PROBE_SECONDS:g} s "
                f"after kill(future) for a task that had passed its limit this ran on: {error}"
            )
        assert isinstance(late, TaskTimeoutError)

    @probe
    @capability("leaks")
    def test_a_few_calls_leave_nothing_behind(
        self, make: Make, own_temp_folder: Path, gate: Gate, mailbox: Mailbox
    ) -> None:
        if not LeakCheck.is_available:
            pytest.skip("only on Linux can a process see what it holds")

        def use() -> None:
            for _ in range(3):
                make(batch_size=1).map(_tasks.noop, range(20))
            with pytest.raises(LookupError):
                make()([delayed(_tasks.fail)("no"), delayed(_tasks.noop)()])

        self.warm_up(make, gate, mailbox)
        run_bounded(use)
        check = LeakCheck(own_temp_folder, counts_system_threads=True)
        run_bounded(use)
        check.assert_nothing_left(SETTLE_SECONDS)
