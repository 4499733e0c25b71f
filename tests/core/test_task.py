from __future__ import annotations

import functools
import pickle
import threading
from typing import Any

import pytest

from parallel import delayed
from parallel._carrier import CallCarrier
from parallel._outcomes import decode_outcome
from parallel._settings import ACTIVE, Settings
from parallel._task import Batch, Failure, Job, Kind, Outcome, describe_function
from parallel.backend import run_payload
from parallel.errors import TaskPicklingError
from tests.core.fakes import carrier_of


def carrier(stop_on_failure: bool = True, settings: Settings | None = None) -> CallCarrier:
    return carrier_of(settings, stop_on_failure=stop_on_failure)


def batch_of(*tasks: Any, start: int = 0, budget_seconds: float | None = None) -> Batch:
    return Batch(0, start, list(tasks), budget_seconds=budget_seconds)


def job_of(*tasks: Any, **options: Any) -> Job:
    return Job(batch_of(*tasks), carrier(**options))


# -- batches -----------------------------------------------------------------------------------------------------------


def test_a_batch_gives_whole_tasks_in_whatever_form_it_keeps_them() -> None:
    calls = Batch(0, 5, [delayed(pow)(2, 3), delayed(pow)(2, exp=4)])
    items = Batch(0, 5, [-1, -2], Kind.ITEMS, abs)
    args = Batch(0, 5, [(2, 3), (2, 4)], Kind.ARGS, pow)
    assert calls.call_at(1) == (pow, (2,), {"exp": 4})
    assert items.call_at(1) == (abs, (-2,), {})
    assert args.call_at(1) == (pow, (2, 4), {})


def test_a_batch_knows_which_tasks_it_has() -> None:
    batch = Batch(3, 5, [1, 2, 3], Kind.ITEMS, abs, lane=1)
    assert (len(batch), batch.start, batch.stop) == (3, 5, 8)
    assert repr(batch) == "<Batch 3 tasks 5..7 lane 1>"


# -- jobs in this process ----------------------------------------------------------------------------------------------


def test_a_job_runs_the_original_objects_in_this_process() -> None:
    out: list[int] = []
    job = job_of(*[delayed(out.append)(i) for i in range(3)])
    outcome = job()
    assert out == [0, 1, 2]
    assert isinstance(outcome, Outcome)
    assert outcome.values == [None] * 3


def test_a_job_gives_back_the_original_results() -> None:
    lock = threading.Lock()
    assert job_of(delayed(lambda: lock)())().values[0] is lock


@pytest.mark.parametrize(("kind", "tasks"), [(Kind.ITEMS, [-1, -2]), (Kind.ARGS, [(-1,), (-2,)])])
def test_a_job_of_one_function_runs_too(kind: Kind, tasks: list[Any]) -> None:
    assert Job(Batch(0, 0, tasks, kind, abs), carrier())().values == [1, 2]


def test_a_failure_is_part_of_the_outcome() -> None:
    error = LookupError()

    def fail() -> None:
        raise error

    outcome = job_of(delayed(abs)(-1), delayed(fail)(), delayed(abs)(-2))()
    assert outcome.values[:1] == [1]
    assert outcome.failures[1].exception is error
    assert outcome.failures[1].traceback_text is None  # it has its own
    assert outcome.failures[1].worker == threading.current_thread().name


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_no_task_gets_out_of_its_job(error: BaseException) -> None:
    def fail() -> None:
        raise error

    assert job_of(delayed(fail)())().failures[0].exception is error


def test_the_first_failure_ends_a_batch_or_does_not() -> None:
    def fail() -> None:
        raise LookupError

    tasks = [delayed(fail)(), delayed(abs)(-1)]
    assert len(job_of(*tasks)().values) == 1
    outcome = job_of(*tasks, stop_on_failure=False)()
    assert outcome.values[1] == 1
    assert outcome.failures.keys() == {0}


def test_a_job_stops_between_tasks_when_it_is_cancelled() -> None:
    job = job_of(*[delayed(lambda: setattr(job, "cancelled", True))() for _ in range(3)])
    assert len(job().values) == 1


def test_a_job_that_was_cancelled_before_runs_nothing() -> None:
    out: list[int] = []
    job = job_of(delayed(out.append)(1))
    job.cancelled = True
    job()
    assert out == []


def test_a_job_stops_when_its_budget_is_used_up_and_has_run_one_task_at_least() -> None:
    batch = batch_of(*[delayed(abs)(i) for i in range(3)], budget_seconds=1e-12)
    assert len(Job(batch, carrier())().values) == 1


def test_tasks_see_the_settings_for_what_is_nested_and_the_caller_does_not() -> None:
    settings = Settings(n_jobs=7)
    outer = ACTIVE.get()
    outcome = job_of(delayed(ACTIVE.get)(), settings=settings)()
    assert outcome.values == [settings]
    assert ACTIVE.get() is outer


def test_arguments_may_be_any_iterable() -> None:
    assert job_of((pow, iter([2, 3]), {}))().values == [8]


# -- jobs that travel --------------------------------------------------------------------------------------------------


def test_a_pickled_job_is_a_callable_that_gives_the_outcome_as_bytes() -> None:
    job = job_of(*[delayed(abs)(-i) for i in range(3)])
    remote = pickle.loads(pickle.dumps(job))
    brought = remote()
    assert isinstance(brought, bytes)
    assert decode_outcome(brought, job.batch, "here").values == [0, 1, 2]


def test_what_became_of_a_pickled_job_can_be_pickled_on() -> None:
    job = job_of(delayed(abs)(-1))
    remote = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(job))))
    assert decode_outcome(remote(), job.batch, "here").values == [1]


def test_the_payload_is_made_once() -> None:
    job = job_of(delayed(abs)(-1))
    assert job.payload is job.payload
    assert decode_outcome(run_payload(job.payload), job.batch, "here").values == [1]


def test_the_payload_of_what_cannot_be_pickled_is_an_error_that_names_the_task() -> None:
    job = Job(batch_of(delayed(abs)(1), delayed(abs)(threading.Lock()), start=5), carrier())
    with pytest.raises(TaskPicklingError) as caught:
        job.payload  # noqa: B018
    assert (caught.value.task_index, caught.value.path) == (6, "args[0]")


def test_pickling_a_job_never_raises_and_its_outcome_is_the_error() -> None:
    job = Job(batch_of(delayed(abs)(1), delayed(abs)(threading.Lock()), start=5), carrier())
    outcome = decode_outcome(pickle.loads(pickle.dumps(job))(), job.batch, "here")
    assert outcome.failures.keys() == {1}
    error = outcome.failures[1].exception
    assert isinstance(error, TaskPicklingError)
    assert error.path == "args[0]"


def test_a_pickled_job_is_little_more_than_its_payload() -> None:
    job = job_of(*[delayed(abs)(i) for i in range(1000)])
    assert len(pickle.dumps(job)) < len(job.payload) + 200


# -- names -------------------------------------------------------------------------------------------------------------


class Callable:
    def __call__(self) -> None:
        pass

    def method(self) -> None:
        pass


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (abs, "abs"),
        (job_of, "job_of"),
        (Callable, "Callable"),
        (Callable(), "Callable"),
        (Callable().method, "Callable.method"),
        (functools.partial(abs, 1), "partial(abs)"),
        (functools.partial(functools.partial(abs)), "partial(abs)"),
        (functools.partial(Callable()), "partial(Callable)"),
        (5, "int"),
        (None, "NoneType"),
    ],
)
def test_a_function_is_named_in_messages(function: Any, text: str) -> None:
    assert describe_function(function) == text


def test_jobs_failures_and_outcomes_can_be_read() -> None:
    assert repr(job_of(delayed(abs)(1))) == "<Job of <Batch 0 tasks 0..0 lane 0>>"
    assert repr(Failure(LookupError("x"), None, "thread-1")) == "<Failure LookupError('x') on thread-1>"
    assert repr(Outcome([1, 2], {}, 0.5)) == "<Outcome 2 tasks, 0 failed, 0.500000 s>"


def test_a_job_tells_its_worker() -> None:
    batch = Batch(0, 0, [delayed(abs)(1)], lane=3)
    assert Job(batch, carrier()).worker == 3
