"""What goes wrong in the real world, on worker processes: every result right, exactly once, and nothing left."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import pytest

from parallel import Parallel, ParallelBackendBase, delayed
from parallel.errors import BackendError, CallTimeoutError, ResultPicklingError, TaskTimeoutError, WorkerLostError
from parallel_testkit import Gate, LeakCheck, Mailbox, Tally, _fault_tasks
from tests.backends.workers import wait_until_gone
from tests.integration import hostile

pytestmark = pytest.mark.skipif(not LeakCheck.is_available, reason="only on Linux can a process see what it holds")

#: Name to arguments of `Parallel`, and to what the command line of a worker has that those of helpers have not.
WORKERS: dict[str, tuple[dict[str, Any], str]] = {
    "mp-fork": ({"backend": "mp", "start_method": "fork"}, "pytest"),
    "mp-spawn": ({"backend": "mp", "start_method": "spawn"}, "multiprocessing.spawn"),
    "loky": ({"backend": "loky"}, "LokyProcess"),
}
every_kind = pytest.mark.parametrize("kind", WORKERS)

#: The same for where there are no worker processes.
IN_PROCESS: dict[str, tuple[dict[str, Any], str]] = {
    "in the caller": ({"n_jobs": 1}, ""),
    "threads": ({"backend": "threads"}, ""),
}


@pytest.fixture
def hang_seconds() -> float:
    return 180.0


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """See to it that a test leaves nothing behind but the warm workers that were there before."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    kind = getattr(request.node, "callspec", None) and request.node.callspec.params.get("kind")
    if kind in WORKERS:
        # What stays warm is there before.
        assert len(set(Parallel(n_jobs=2, batch_size=1, **WORKERS[kind][0]).map(abs, range(50)))) == 50
    check = LeakCheck(folder)
    yield
    check.assert_nothing_left()


@pytest.fixture
def gate(nothing_left: None, tmp_path: Path) -> Iterator[Gate]:
    with Gate(tmp_path / "gate") as gate:
        yield gate


# -- workers that are killed -------------------------------------------------------------------------------------------


class Killer:
    """Kills a random worker of this process every 50 ms, for two seconds at most."""

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._random = random.Random(0)
        self.n_killed = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        for _ in range(40):
            if self._stop.wait(0.05):
                return
            workers = self._workers()
            if workers:
                try:
                    os.kill(self._random.choice(workers), signal.SIGKILL)
                    self.n_killed += 1
                except ProcessLookupError:
                    pass

    def _workers(self) -> list[int]:
        found = []
        for listing in Path("/proc/self/task").glob("*/children"):
            try:
                children = listing.read_text().split()
            except OSError:  # the thread has ended
                continue
            found += [int(child) for child in children if self._mark in _command(child)]
        return found


def _command(process: str) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


@every_kind
@pytest.mark.parametrize("mode", ["list", "generator"])
def test_workers_that_are_killed_all_the_time_cost_no_result(kind: str, mode: str) -> None:
    arguments, mark = WORKERS[kind]
    with Killer(mark) as killer:
        results = Parallel(n_jobs=2, return_as=mode, retries=50, **arguments).map(hostile.work, range(2000))
        assert list(results) == [i * i for i in range(2000)]
    assert killer.n_killed > 0


@every_kind
def test_a_task_that_always_kills_its_worker_costs_one_result_of_a_thousand(kind: str) -> None:
    arguments, _ = WORKERS[kind]
    parallel = Parallel(n_jobs=2, return_exceptions=True, **arguments)
    results = parallel(delayed(hostile.kill_worker_at)(500, i) for i in range(1000))
    error = results[500]
    assert isinstance(error, WorkerLostError)
    assert error.signal == signal.SIGKILL
    assert error.task_indices == range(500, 501)
    assert [result for i, result in enumerate(results) if i != 500] == [i for i in range(1000) if i != 500]


@every_kind
def test_hostile_tasks_cost_one_clear_error_each(kind: str) -> None:
    arguments, _ = WORKERS[kind]
    # 34 of 204 end their worker, which takes long to replace where it is not forked.
    tasks = [*hostile.HOSTILE] * (17 if kind == "mp-fork" else 4)
    with Parallel(n_jobs=2, return_exceptions=True, **arguments) as parallel:
        results = parallel(delayed(task)() for task in tasks)
        wrong = {
            (task.__name__, repr(result)[:200])
            for task, result in zip(tasks, results, strict=True)
            if not isinstance(result, hostile.HOSTILE[task])
        }
        assert not wrong
        assert all(_names(results[i], i) for i in range(len(tasks)))
        assert parallel.map(abs, range(-3, 0)) == [3, 2, 1]


def _names(error: BaseException, index: int) -> bool:
    """Tell whether an error says which task it is of."""
    if isinstance(error, WorkerLostError):
        return index in error.task_indices
    return any(f"task {index} " in note for note in [*getattr(error, "__notes__", ()), str(error)[:1000]])


# -- exceptions that take nothing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", hostile.REFUSING)
@pytest.mark.parametrize("policy", [{}, {"retries": 1}], ids=["one attempt", "two attempts"])
@pytest.mark.parametrize("kind", IN_PROCESS | WORKERS)
def test_an_exception_that_refuses_notes_or_attributes_comes_through(
    kind: str, policy: dict[str, Any], task: Callable[[], None]
) -> None:
    original, args, raised = hostile.REFUSING[task]
    arguments = {"n_jobs": 2, **(IN_PROCESS | WORKERS)[kind][0], **policy}
    tasks = [delayed(abs)(-1), delayed(task)(), delayed(abs)(-3)]

    with pytest.raises(raised) as caught:
        Parallel(**arguments)(tasks)
    assert type(caught.value) is raised
    if raised is not original:
        assert type(caught.value.__cause__) is original

    first, error, last = Parallel(return_exceptions=True, **arguments)(tasks)
    assert (first, last) == (1, 3)
    assert type(error) is original
    assert error.args == args


@pytest.mark.parametrize("kind", ["threads", *WORKERS])
def test_a_second_interrupt_before_anything_was_ended(kind: str, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = {"backend": "threads"} if kind == "threads" else WORKERS[kind][0]
    parallel = Parallel(n_jobs=2, batch_size=1, **arguments)

    def tasks() -> Iterator[Any]:
        for _ in range(2):
            yield delayed(gate.wait)()
        monkeypatch.setattr(type(parallel._backend), "abort_everything", interrupt_again)
        raise KeyboardInterrupt("the first")

    def interrupt_again(backend: ParallelBackendBase, ensure_ready: bool = True) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt("the second")

    with pytest.raises(KeyboardInterrupt, match="the second"):
        parallel(tasks())
    assert parallel.map(abs, range(100)) == list(range(100))


@pytest.mark.parametrize("kind", [kind for kind in WORKERS if kind.startswith("mp")])
@pytest.mark.parametrize("policy", [{"return_exceptions": True}, {"retries": 1}, {"timeout": 60}], ids=str)
def test_a_worker_that_has_no_descriptor_left_goes_on(kind: str, policy: dict[str, Any]) -> None:
    # With an initializer workers are not kept for other tests.
    with Parallel(n_jobs=2, initializer=hostile.do_nothing, **WORKERS[kind][0], **policy) as parallel:
        assert parallel.map(hostile.use_up_descriptors, range(9)) == list(range(9))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # large results may find no room
            assert parallel.map(abs, range(9)) == list(range(9))


@pytest.mark.parametrize("raises", [SystemExit, GeneratorExit, LookupError])
@pytest.mark.parametrize("kind", WORKERS)
def test_a_result_that_raises_when_it_is_unpickled_costs_only_itself(kind: str, raises: type[BaseException]) -> None:
    parallel = Parallel(n_jobs=2, return_exceptions=True, **WORKERS[kind][0])
    results = parallel.map(hostile.give_raising, [raises] * 1 + [None] * 4)
    assert isinstance(results[0], ResultPicklingError)
    assert results[1:] == [None] * 4


@pytest.mark.parametrize("kind", ["threads", *WORKERS])
def test_a_task_that_leaves_the_interpreter_is_tried_again(kind: str, tmp_path: Path) -> None:
    arguments = {"backend": "threads"} if kind == "threads" else WORKERS[kind][0]
    parallel = Parallel(n_jobs=2, retries=2, **arguments)
    assert parallel.map(hostile.leave_at_first, [str(tmp_path / str(i)) for i in range(4)]) == [True] * 4


@pytest.mark.parametrize("kind", WORKERS)
def test_a_generator_that_is_closed_while_its_input_blocks_stops_its_tasks(
    kind: str, gate: Gate, tmp_path: Path
) -> None:
    may_end = threading.Event()

    with Mailbox(tmp_path / "ids") as mailbox:

        def tasks() -> Iterator[Any]:
            for _ in range(2):
                yield delayed(_fault_tasks.tell_process_and_wait)(mailbox, gate)
            may_end.wait()

        results = Parallel(n_jobs=2, batch_size=1, return_as="generator", **WORKERS[kind][0])(tasks())
        processes = [int(text) for text in mailbox.receive(2)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # it was closed before its end
            results.close()
            for process in processes:
                wait_until_gone(process)
            may_end.set()
            wait_for_owners()


def wait_for_owners() -> None:
    for thread in threading.enumerate():
        if thread.name == "parallel-call":
            thread.join()


# -- time limits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["list", "generator_unordered"])
@pytest.mark.parametrize("kind", ["threads", *WORKERS])
def test_three_endless_tasks_on_two_workers(kind: str, mode: str, gate: Gate) -> None:
    arguments = {"backend": "threads"} if kind == "threads" else WORKERS[kind][0]
    with pytest.raises(multiprocessing.TimeoutError) as caught:
        list(Parallel(n_jobs=2, timeout=0.3, return_as=mode, **arguments)(delayed(gate.wait)() for _ in range(3)))
    assert isinstance(caught.value, TaskTimeoutError)
    assert caught.value.task_index in (0, 1)


@pytest.mark.parametrize("mode", ["list", "generator_unordered"])
@pytest.mark.parametrize("executor_class", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_three_endless_tasks_on_an_executor(executor_class: type[Executor], mode: str, gate: Gate) -> None:
    with executor_class(2) as executor:  # type: ignore[call-arg]
        parallel = Parallel(n_jobs=2, timeout=0.3, return_as=mode, backend="futures", executor=executor)
        with pytest.raises(multiprocessing.TimeoutError) as caught:
            list(parallel(delayed(gate.wait)() for _ in range(3)))
        assert isinstance(caught.value, TaskTimeoutError)
        gate.open()  # the executor waits for its tasks


def test_any_number_of_tasks_that_are_given_up_leave_room_for_the_next(gate: Gate) -> None:
    # Many more than the workers of a call have places; none of them ends before the call does.
    parallel = Parallel(n_jobs=2, backend="threads", timeout=0.05, return_exceptions=True)
    with pytest.warns(RuntimeWarning, match="passed the time limit"):
        errors = parallel(delayed(gate.wait)() for _ in range(20))
    assert [type(error) for error in errors] == [TaskTimeoutError] * 20
    assert [error.task_index for error in errors] == list(range(20))


@pytest.mark.parametrize("mode", ["list", "generator"])
@pytest.mark.parametrize("kind", ["threads", *WORKERS])
def test_the_limit_of_a_call_that_passes_while_the_input_blocks(kind: str, mode: str, gate: Gate) -> None:
    limit_seconds = 0.1

    def tasks() -> Iterator[Any]:
        yield delayed(gate.wait)()
        yield delayed(gate.wait)()
        threading.Event().wait(3 * limit_seconds)  # the input is what takes too long
        yield delayed(abs)(-1)

    arguments = (IN_PROCESS | WORKERS)[kind][0]
    with pytest.raises(CallTimeoutError) as caught:
        list(Parallel(n_jobs=2, batch_size=1, total_timeout=limit_seconds, return_as=mode, **arguments)(tasks()))
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value, multiprocessing.TimeoutError)


# -- what cannot be mended ---------------------------------------------------------------------------------------------


def count_and_exit(tally: Tally) -> None:
    tally.add()
    os._exit(3)


@pytest.mark.parametrize("policy", [{}, {"retries": 5}, {"return_exceptions": True}], ids=str)
def test_a_foreign_executor_that_breaks_ends_the_call_at_once(policy: dict[str, Any], tmp_path: Path) -> None:
    tally = Tally(tmp_path / "tally")
    with ProcessPoolExecutor(2) as executor:
        parallel = Parallel(n_jobs=2, backend="futures", executor=executor, **policy)
        with pytest.raises(WorkerLostError, match="ProcessPoolExecutor behind the backend 'futures' is broken"):
            parallel([delayed(count_and_exit)(tally)])
        assert tally.count() == 1
        with pytest.raises(WorkerLostError, match="make a new one"):
            parallel([delayed(abs)(1)])


@every_kind
@pytest.mark.parametrize(
    ("initializer", "reason"),
    [(hostile.fail_to_start, "ZeroDivisionError: in the initializer"), (hostile.NotThere(), "a_module_that_is_not")],
    ids=["raises", "cannot be unpickled"],
)
@pytest.mark.parametrize("policy", [{}, {"retries": 50, "return_exceptions": True}], ids=str)
def test_workers_that_cannot_start_are_an_error_with_the_reason(
    kind: str, initializer: Any, reason: str, policy: dict[str, Any]
) -> None:
    parallel = Parallel(n_jobs=2, initializer=initializer, **WORKERS[kind][0], **policy)
    with pytest.raises(BackendError, match=reason) as caught:
        parallel.map(abs, range(10))
    assert not isinstance(caught.value, WorkerLostError)
    assert "Traceback" in str(caught.value)
