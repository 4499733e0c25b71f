"""Calls of few tasks: whatever happens in them, they do what calls with a scheduler do."""

from __future__ import annotations

import contextlib
import gc
import itertools
import re
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from queue import SimpleQueue
from time import monotonic
from typing import Any

import pytest

from parallel import Parallel, _call, _experience, _setup, _short, delayed
from parallel._actions import Submit
from parallel._batching import AdaptiveBatching, SingleBatching
from parallel._carrier import CallCarrier
from parallel._results import OrderedResults
from parallel._scheduler import Faults, Scheduler
from parallel._source import Source
from parallel._task import Failure, Job, Outcome
from parallel._worker import run_payload
from parallel.errors import TaskPicklingError, WorkerLostError
from tests.core.fakes import Future, HereBackend, SizesBackend


class ScriptedBackend(HereBackend):
    """Lets each task meet its fate, as soon as all were submitted, in the order that is asked for.

    A fate is a name; what comes after the first attempt goes well.
    """

    replaces_workers = True

    def __init__(self, fates: list[str], order: list[int], *, wire: Any = "objects", is_older: bool = False) -> None:
        super().__init__()
        self.wire = wire
        self.uses_threads = wire == "objects"
        self.supports_retrieve_callback = not is_older
        self.fates = dict(enumerate(fates))
        self.order = order
        self.n_left = len(fates)
        self.events: list[Callable[[], None]] = []
        self.late: list[Callable[[], None]] = []
        self.report: Any = None

    def attach(self, report: Any) -> None:
        self.report = report

    def submit(self, func: Any, callback: Callable[[Any], None]) -> Future:
        index = func.batch.start
        self.log.append(f"submit {index} to {func.worker}: {len(func.batch)}")
        future = Future(func, callback)
        fate = self.fates.get(index, "goes well")
        self.n_left -= 1
        late, self.late = self.late, []
        if fate.startswith("early: ") or fate in ("comes early", "comes and is refused"):
            self.fates[index] = fate.removeprefix("early: ")
            future.is_done = True
            callback(future)
            for event in late:
                event()
        elif fate.startswith("next: "):  # with the next one that comes early
            self.fates[index] = fate.removeprefix("next: ")
            future.is_done = True
            self.late = [*late, partial(callback, future)]
        elif fate == "is reported lost":
            del self.fates[index]
            self.events.append(partial(self.report.lost, future, 3))
        elif not fate.endswith("refused"):
            future.is_done = True
            times = {"is forgotten": 0, "comes twice": 2}.get(fate, 1)
            self.events += [partial(callback, future)] * times
        if self.n_left <= 0:
            events, self.events = self.events, []
            for position in self.order if len(events) == len(self.order) else range(len(events)):
                events[position]()
        if fate.endswith("refused"):
            raise OSError("no more")
        return future

    def retrieve_result_callback(self, future: Any) -> Any:
        return self.retrieve(future)

    def retrieve_result(self, future: Any) -> Any:
        return self.retrieve(future)

    def retrieve(self, future: Future) -> Any:
        job: Job = future.job
        index = job.batch.start
        self.log.append(f"retrieve {index}")
        fate = self.fates.pop(index, "goes well")
        if fate == "is ended":
            raise WorkerLostError("for another's sake", backend="scripted", is_deliberate=True)
        if fate == "is lost":
            raise WorkerLostError("a worker ended", backend="scripted", exit_code=3)
        if fate == "cannot be fetched":
            raise ConnectionError("gone")
        if fate == "is interrupted":
            raise KeyboardInterrupt
        if fate == "is rubbish":
            return 5
        if fate == "brings nothing":
            return Outcome([], {}, 0.0)
        if fate == "brings too much":
            return Outcome([1, 2, 3], {}, 0.0)
        if fate == "is unclear":
            return Outcome([], {}, 0.0, unclear=Failure(ValueError("one of them")))
        if fate == "is out of reach":
            return Outcome([], {}, 0.0, is_blind=True, is_out_of_reach=True)
        if fate == "is blind":
            return Outcome([], {}, 0.0, is_blind=True)
        return run_payload(job.payload) if self.wire == "bytes" else self.run(job)

    def batch_completed(self, batch_size: int, duration: float) -> None:
        self.log.append(f"completed {batch_size}")
        if self.fates.pop(-1, "") == "cannot count":
            raise ZeroDivisionError("in the backend")

    def abort_everything(self, ensure_ready: bool = True) -> None:
        self.log.append(f"abort {ensure_ready}")

    def cancel(self, future: Any) -> None:
        self.log.append(f"cancel {future.job.batch.start}")


FATES = (
    "goes well",
    "raises",
    "exits",
    "comes early",
    "comes twice",
    "is refused",
    "comes and is refused",
    "is forgotten",
    "is reported lost",
    "is lost",
    "cannot be fetched",
    "is interrupted",
    "is rubbish",
    "brings nothing",
    "brings too much",
    "is unclear",
    "is blind",
)


def work(index: int, fate: str, held: object = None) -> str:
    if fate == "raises":
        raise LookupError(index)
    if fate == "exits":
        raise SystemExit(index)
    return f"result {index}"


def what_comes_of(backend: ScriptedBackend, tasks: list[Any]) -> tuple[Any, ...]:
    parallel = Parallel(n_jobs=max(len(tasks), 2), backend=backend)
    try:
        results = parallel(tasks)
    except BaseException as error:
        partial_results = getattr(error, "partial_results", None)
        came = (type(error), str(error), getattr(error, "__notes__", []), type(error.__cause__), partial_results)
    else:
        came = (results, parallel.n_tasks)
        assert parallel.n_completed_tasks == parallel.n_dispatched_tasks == len(results)
    # After an abort it is ended on a thread of its own.
    return (*came, parallel.n_dispatched_batches, [line for line in backend.log if line != "terminate"])


@pytest.fixture(autouse=True)
def nothing_is_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_call, "STALL_SECONDS", 1e-3)
    monkeypatch.setattr(_short, "STALL_SECONDS", 1e-3)
    monkeypatch.setattr(_experience, "_known", {})


@pytest.fixture
def both_ways(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], tuple[Any, Any]]:
    """Do something with the short way, and without it; give what came of both."""
    begun: list[Any] = []
    begin = _short.begin_short

    def note(plan: Any, source: Source) -> Any:
        begun.append(begin(plan, source))
        return begun[-1]

    def do(action: Callable[[], Any]) -> tuple[Any, Any]:
        monkeypatch.setattr(_setup, "begin_short", note)
        monkeypatch.setattr(_experience, "_known", {})
        short = action()
        assert begun and begun[-1] is not None, "this is no short call"
        monkeypatch.setattr(_setup, "begin_short", lambda plan, source: None)
        monkeypatch.setattr(_experience, "_known", {})
        return short, action()

    return do


@pytest.mark.parametrize("is_older", [False, True])
@pytest.mark.parametrize("wire", ["objects", "bytes"])
@pytest.mark.parametrize("first", FATES)
def test_whatever_happens_a_short_call_does_what_others_do(
    both_ways: Any, first: str, wire: str, is_older: bool
) -> None:
    for second, order in itertools.product(FATES, ([0, 1], [1, 0])):
        tasks = [delayed(work)(index, fate) for index, fate in enumerate((first, second))]
        short, other = both_ways(
            lambda tasks=tasks, fates=[first, second], order=order: what_comes_of(
                ScriptedBackend(fates, order, wire=wire, is_older=is_older), tasks
            )
        )
        if first == "comes early":  # a scheduler then gives the second task to the first worker, too
            short, other = ((*came[:-1], [re.sub(" to .*", "", line) for line in came[-1]]) for came in (short, other))
        assert short == other, (second, order)


@pytest.mark.parametrize(
    "first", ["goes well", "raises", "is blind", "is ended", "is lost", "is out of reach", "is unclear"]
)
@pytest.mark.parametrize("second", ["goes well", "raises", "exits", "is blind", "is ended", "is lost", "is refused"])
@pytest.mark.parametrize("when", ["early: ", "next: "])
def test_what_comes_before_all_are_submitted_is_dealt_with_first(
    both_ways: Any, first: str, second: str, when: str
) -> None:
    """Nothing is forgotten, neither what comes nor what has yet to be submitted."""
    fates = [when + first, "early: " + second if second != "is refused" else second, "goes well"]
    tasks = [delayed(work)(index, fate.split(": ")[-1]) for index, fate in enumerate(fates)]

    def call() -> Any:
        backend = ScriptedBackend(fates, [])
        came = what_comes_of(backend, tasks)
        assert not backend.late, "the script is at fault"
        # A scheduler may have put the last two tasks into one batch, of which an error tells.
        return (came[0], *came[3:-2]) if isinstance(came[0], type) else came[:-2]

    short, other = both_ways(call)
    assert short == other


@pytest.mark.parametrize("fates", [["goes well", "cannot count"], ["is lost"], ["goes well"], ["raises"]])
def test_a_backend_that_raises_when_it_is_told_of_a_batch_ends_the_call(both_ways: Any, fates: list[str]) -> None:
    def call() -> tuple[Any, ...]:
        backend = ScriptedBackend(fates, [])
        backend.fates[-1] = "cannot count"
        tasks = [delayed(work)(index, fate) for index, fate in enumerate(fates)]
        return what_comes_of(backend, tasks)

    short, other = both_ways(call)
    assert short == other


@pytest.mark.parametrize("bad", [(0,), (1,), (0, 1), (2,), (0, 2)])
def test_tasks_that_cannot_be_sent_are_named_and_their_neighbours_run(both_ways: Any, bad: tuple[int, ...]) -> None:
    def call() -> tuple[Any, ...]:
        backend = ScriptedBackend(["goes well"] * (3 - len(bad)), [], wire="bytes")
        return what_comes_of(
            backend, [delayed(work)(i, "goes well", threading.Lock() if i in bad else None) for i in range(3)]
        )

    short, other = both_ways(call)
    assert short == other
    assert short[0] is TaskPicklingError


def test_ctrl_c_while_it_waits_stops_everything(both_ways: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class InterruptedQueue:
        """Has Ctrl-C come when there is nothing to take any more."""

        def __init__(self) -> None:
            self._queue: SimpleQueue[Any] = SimpleQueue()
            self.put, self.empty, self.qsize = self._queue.put, self._queue.empty, self._queue.qsize

        def get(self, timeout: float | None = None) -> Any:
            if self._queue.empty():
                raise KeyboardInterrupt
            return self._queue.get_nowait()

    monkeypatch.setattr(_call, "SimpleQueue", InterruptedQueue)
    monkeypatch.setattr(_short, "SimpleQueue", InterruptedQueue)

    def call() -> tuple[Any, ...]:
        tasks = [delayed(work)(index, "") for index in range(2)]
        return what_comes_of(ScriptedBackend(["goes well", "is forgotten"], []), tasks)

    short, other = both_ways(call)
    assert short == other
    assert short[0] is KeyboardInterrupt
    assert short[4] == {0: "result 0"}
    assert short[-1][-4:] == ["completed 1", "cancel 1", "abort False", "stop_call"]


def test_a_call_that_cannot_be_taken_over_stops_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(_setup, "Scheduler", fail)
    backend = ScriptedBackend(["is lost", "is forgotten"], [])
    came = what_comes_of(backend, [delayed(work)(index, "") for index in range(2)])
    assert came[0] is MemoryError
    assert came[-1][-2:] == ["abort False", "stop_call"]


@pytest.mark.parametrize("n_tasks", [1, 2])
def test_ctrl_c_while_the_call_is_put_away_leaves_nothing_undone(n_tasks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(carrier: CallCarrier) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(CallCarrier, "close", interrupted)
    backend = ScriptedBackend(["goes well"] * n_tasks, [])
    parallel = Parallel(n_jobs=2, backend=backend)
    with pytest.raises(KeyboardInterrupt):
        parallel([delayed(work)(index, "") for index in range(n_tasks)])
    assert [line for line in backend.log if line != "terminate"][-1] == "stop_call"


def test_ctrl_c_in_the_input_is_told_with_no_results() -> None:
    def tasks() -> Iterator[Any]:
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt) as caught:
        Parallel(n_jobs=2, backend=HereBackend())(tasks())
    assert caught.value.partial_results == {}  # type: ignore[attr-defined]


def test_an_input_that_waits_for_its_first_task_gets_it() -> None:
    """Also where the function is known: only with tasks that are shorter than a round trip is more read first."""
    done: list[int] = []
    seen: list[int] = []

    def first(number: int) -> None:
        end = monotonic() + 2e-3
        while monotonic() < end:
            pass
        done.append(number)

    def tasks() -> Iterator[Any]:
        for number in range(2):
            seen.append(len(done))
            yield delayed(first)(number)

    parallel = Parallel(n_jobs=2, backend=HereBackend())
    for _ in range(3):
        parallel(tasks())
    assert seen == list(range(6))


@pytest.mark.parametrize("fate", ["goes well", "raises", "is lost", "is forgotten", "is interrupted"])
def test_nothing_keeps_the_call_when_it_is_over(fate: str) -> None:
    class Result:
        """Can be watched."""

    def make(index: int) -> Result:
        if fate == "raises" and index:
            raise LookupError
        return Result()

    refs: list[Any] = []
    backend = ScriptedBackend(["goes well", fate], [])
    retrieve = backend.retrieve

    def watch(future: Future) -> Any:
        outcome = retrieve(future)
        refs.extend(weakref.ref(value) for value in outcome.values if value is not None)
        return outcome

    backend.retrieve = watch  # type: ignore[method-assign]
    gc.disable()
    try:
        results = None
        with contextlib.suppress(LookupError, WorkerLostError, KeyboardInterrupt):
            results = Parallel(n_jobs=2, backend=backend)([delayed(make)(0), delayed(make)(1)])
        assert (results is not None) == (fate in ("goes well", "is forgotten"))
        del results
        assert refs
        assert [ref() for ref in refs] == [None] * len(refs)
    finally:
        gc.enable()


def test_a_callback_after_the_end_changes_nothing() -> None:
    backend = ScriptedBackend(["goes well"] * 2, [])
    callbacks = []
    submit = backend.submit

    def note(func: Any, callback: Callable[[Any], None]) -> Future:
        callbacks.append((future := submit(func, callback), callback))
        return future

    backend.submit = note  # type: ignore[method-assign]
    parallel = Parallel(n_jobs=2, backend=backend)
    assert parallel([delayed(work)(0, ""), delayed(work)(1, "")]) == ["result 0", "result 1"]
    log = list(backend.log)
    for future, callback in callbacks:
        callback(future)
        backend.report.lost(future, 1)
        backend.report.started(future)
    assert backend.log == log


# -- what a scheduler would do ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_jobs", [1, 2, 3, 8, 64])
@pytest.mark.parametrize("is_single", [False, True])
def test_a_scheduler_sends_few_tasks_one_to_each_worker(n_jobs: int, is_single: bool) -> None:
    for count in range(1, n_jobs + 1):
        policy = AdaptiveBatching(n_jobs)
        scheduler = Scheduler(
            n_jobs=n_jobs,
            batching=SingleBatching(policy, lambda: True) if is_single else policy,
            results=OrderedResults(),
            pre_dispatch=count,
            total=count,
            faults=Faults(),
        )
        actions = scheduler.on_input(list(range(count)), True, 0.0)
        batches = [action.batch for action in actions if isinstance(action, Submit)]
        assert len(actions) == len(batches)
        assert [(batch.batch_id, batch.start, list(batch.tasks)) for batch in batches] == [
            (index, index, [index]) for index in range(count)
        ]
        assert {batch.lane for batch in batches} == set(range(count))


# -- which calls are short -------------------------------------------------------------------------------------------


def test_tasks_known_to_be_shorter_than_a_round_trip_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = SizesBackend()
    parallel = Parallel(n_jobs=16, backend=backend)
    tasks = [delayed(work)(index, "") for index in range(12)]
    parallel(tasks)
    assert backend.sizes == [1] * 12
    known = dict(_experience._known)
    assert len(known) == 1
    for key in known:
        monkeypatch.setitem(_experience._known, key, (1e-7, 1e-3))
    assert parallel(tasks) == [f"result {index}" for index in range(12)]
    assert sum(backend.sizes[12:]) == 12
    assert len(backend.sizes[12:]) < 12


def test_what_a_short_call_shows_is_where_the_next_call_begins() -> None:
    backend = SizesBackend()
    parallel = Parallel(n_jobs=2, backend=backend)
    parallel([delayed(work)(0, "")])
    parallel([delayed(work)(index, "") for index in range(1000)])
    assert backend.sizes[1] > 1


def is_short(parallel: Parallel, tasks: Any, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a call is run without a scheduler."""
    made = []

    def make(**settings: Any) -> Scheduler:
        made.append(settings)
        return Scheduler(**settings)

    monkeypatch.setattr(_setup, "Scheduler", make)
    list(parallel(tasks))
    return not made


def test_an_input_of_code_is_read_ahead_only_where_that_is_known_to_be_harmless(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parallel = Parallel(n_jobs=2, backend=HereBackend())
    assert not is_short(parallel, (delayed(work)(index, "") for index in range(2)), monkeypatch)  # unknown

    def check(tasks: Any, seconds: float = 0.9e-3) -> bool:
        for key in list(_experience._known):
            monkeypatch.setitem(_experience._known, key, (seconds, 1e-3))
        return is_short(parallel, tasks, monkeypatch)

    assert check(delayed(work)(index, "") for index in range(1))
    assert check(delayed(work)(index, "") for index in range(2))
    assert not check((delayed(work)(index, "") for index in range(2)), seconds=1e-2)
    assert not check(delayed(work)(index, "") for index in range(3))
    assert not check(delayed(work)(index, "", []) for index in range(2))
    assert not check(delayed(work)(index, fate="") for index in range(2))
    assert not check(delayed(work)(index, "", [None, []][index]) for index in range(2))


@pytest.mark.parametrize(
    "settings",
    [
        {"timeout": 100.0},
        {"total_timeout": 100.0},
        {"retries": 1},
        {"return_exceptions": True},
        {"batch_size": 2},
        {"pre_dispatch": 1},
        {"return_as": "generator"},
        {"verbose": 1},
    ],
)
def test_what_needs_more_than_a_short_call_has_gets_it(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [delayed(work)(0, ""), delayed(work)(1, "")]
    assert is_short(Parallel(n_jobs=2, backend=HereBackend()), tasks, monkeypatch)
    assert not is_short(Parallel(n_jobs=2, backend=HereBackend(), **settings), tasks, monkeypatch)


def test_an_input_that_raises_after_its_first_task_raises() -> None:
    def tasks() -> Iterator[Any]:
        yield delayed(work)(0, "")
        raise LookupError("the input")

    parallel = Parallel(n_jobs=2, backend=HereBackend())
    parallel([delayed(work)(0, "")])
    with pytest.raises(LookupError, match="the input"):
        parallel(tasks())


def test_what_is_no_task_is_told_as_ever() -> None:
    parallel = Parallel(n_jobs=2, backend=HereBackend())
    parallel([delayed(work)(0, "")])
    wrong: Any = [delayed(work)(0, ""), 5]
    for tasks in (wrong, iter(wrong)):
        with pytest.raises(TypeError, match="task 1 of the input"):
            parallel(tasks)


@pytest.mark.parametrize("make", [list, iter])
def test_arguments_may_be_an_iterator(make: Any) -> None:
    parallel = Parallel(n_jobs=2, backend=HereBackend())
    for _ in range(3):
        tasks: Any = [(work, iter([index, ""]), {}) for index in range(2)]
        assert parallel(make(tasks)) == ["result 0", "result 1"]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 10])
def test_map_of_few_and_of_many_items_gives_the_same(count: int) -> None:
    parallel = Parallel(n_jobs=2, backend=HereBackend())
    for _ in range(2):
        assert parallel.map(abs, range(-count, 0)) == list(range(count, 0, -1))
        assert parallel.map(abs, list(range(-count, 0))) == list(range(count, 0, -1))
        assert parallel.map(pow, range(count), [2] * count) == [i * i for i in range(count)]
        assert parallel.starmap(pow, [(i, 2) for i in range(count)]) == [i * i for i in range(count)]
