"""What has to hold: of each action of the scheduler, and between any two events.

All of it takes the same time in worlds of any size, but for one comparison that says so.
"""

from __future__ import annotations

import math
from typing import Any

from parallel._actions import Fail, Finish
from parallel._batching import AdaptiveBatching, FixedBatching
from parallel._scheduler import Scheduler, State
from parallel._task import Batch, Kind
from parallel.errors import ParallelError
from tests.simulation.books import Books, Run
from tests.simulation.facts import LateError, is_same, result, task

#: In longer calls what is held is not compared result by result after every event.
MAX_COMPARED = 300

#: A delay that is varied by a second is as near to its mean once in a billion times.
CHANCE_SECONDS = 1e-9


def check_batch(books: Books, batch: Batch) -> bool:
    """Check a batch that is about to be sent; tell whether it is one task that is suspected of ending workers."""
    indices = batch.indices
    assert not books.is_over, f"{batch} is sent after the end"
    assert 1 <= len(batch) <= books.settings.max_size, f"{batch} is larger than the largest batch"
    assert list(batch.tasks) == [task(index) for index in indices], f"{batch} has the wrong tasks"
    assert books.ready.issuperset(indices), f"{batch} has tasks that somebody else has, or that are done"
    if books.not_before:
        not_before = max((books.not_before.get(index, 0.0) for index in indices), default=0.0)
        assert not_before <= books.now, f"{batch} goes before its delay is over"
    assert batch.batch_id not in books.seen_ids, "a batch id used twice"
    assert batch.kind is Kind.ITEMS and batch.function is result, f"{batch} has another function"
    assert batch.budget_seconds == books.batching.budget_seconds, f"{batch} has the wrong budget"
    if books.attempts or batch.attempts:
        attempts = {index: books.attempts[index] for index in indices if books.attempts[index]}
        assert (batch.attempts or {}) == attempts, f"{batch} has {batch.attempts} attempts behind it, not {attempts}"
    _check_lane(books, batch)
    assert len(books.runs) < books.max_in_flight, f"{batch} is more in flight than pre_dispatch and depth allow"
    if books.goes_beyond_the_window(len(batch)):
        assert len(batch) == 1 and books.settings.ordered, f"{batch} goes beyond the window"
        assert batch.start == len(books.delivered), f"{batch} goes beyond the window, and not everything waits for it"
        assert batch.start in books.sent_before, f"{batch} goes beyond the window for the first time"
    assert len(batch) == 1 or books.singles.isdisjoint(indices), f"the tasks of {batch} should have gone one by one"
    is_alone = not books.suspects.isdisjoint(indices)
    _check_alone(books, batch, is_alone)
    return is_alone


def _check_lane(books: Books, batch: Batch) -> None:
    lane = batch.lane
    assert 0 <= lane < books.n_jobs, f"{batch} is for a worker that does not exist"
    assert lane not in books.gone or lane in books.just_gone, f"{batch} is for a worker that is stuck"
    if books.load[lane]:
        assert books.load[lane] < books.depth, f"{batch} is too much for one worker"
        # What was found out since the decision may have freed a worker.
        assert not books.n_idle or books.has_looked, f"{batch} queues although a worker has nothing to do"


def _check_alone(books: Books, batch: Batch, is_alone: bool) -> None:
    if is_alone:
        assert len(batch) == 1, f"{batch}: a suspect with others in one batch"
        assert not books.load[batch.lane], f"{batch}: a suspect behind another batch"
        assert not books.runs or not books.faults.loses_all, f"{batch}: a suspect that would take others along"
    if books.faults.loses_all:
        assert not books.alone, f"{batch} joins a suspect that may take it along"
    assert batch.lane not in books.alone, f"{batch} is behind a suspect"


def check_fragment(books: Books, start: int, values: list[Any]) -> None:
    """Check results that are about to be delivered."""
    at, stop = start, start + len(values)
    assert not books.is_over, f"results {start}..{stop - 1} are delivered after the end"
    for index in range(start, stop):
        assert index not in books.delivered, f"the result of task {index} was delivered twice"
    while at < stop:
        assert at in books.pieces, f"results {start}..{stop - 1} are not delivered as they came back"
        at += books.pieces[at]
    assert at == stop, f"results {start}..{stop - 1} are not delivered as they came back"
    assert not books.settings.ordered or start == len(books.delivered), f"result {start} is delivered out of order"
    for index, value in enumerate(values, start):
        assert is_same(value, books.accepted[index]), f"task {index} has the wrong result"
        if isinstance(value, ParallelError):
            count = books.attempts[index]
            assert value.attempts == count, f"task {index} ran {count} times, not {value.attempts}"


def check_late(books: Books, run: Run, error: BaseException) -> None:
    """Check that a task is late that is to be stopped, and that the error is about it."""
    index = run.batch.start + (run.position or 0)
    due = books.due(run)
    assert run.is_unclear or (due is not None and due <= books.now), f"task {index} is stopped before its limit"
    assert isinstance(error, LateError) and error.args[0] == index, f"{error!r} is about another task than {index}"


def check(books: Books, scheduler: Scheduler) -> None:
    """Check what has to hold between events."""
    end, ordered = books.end, books.settings.ordered
    assert scheduler.is_over == books.is_over, f"over without saying so, or not over: {scheduler}"
    assert scheduler.n_read == books.n_read, f"{books.n_read} tasks were read, not {scheduler.n_read}"
    done = len(books.accepted)
    assert scheduler.n_completed == done, f"{done} tasks are done, not {scheduler.n_completed}: lost, or counted twice"
    assert scheduler.n_given_up == books.n_given_up, f"{books.n_given_up} batches were given up"
    if books.settings.n_tasks <= MAX_COMPARED:
        held = scheduler.held_results()
        assert held.keys() == books.accepted.keys() - books.delivered.keys(), "results are lost, or held and delivered"
        assert all(is_same(value, books.accepted[index]) for index, value in held.items()), "a wrong result is held"
    is_held = len(books.delivered) in books.pieces if ordered else bool(books.pieces)
    assert not is_held, "results that could be delivered are held"
    if isinstance(end, Fail):
        assert scheduler.state is State.FAILED, f"failed, but {scheduler}"
    elif isinstance(end, Finish):
        assert scheduler.state is (State.CLOSED if end.abort else State.FINISHED), f"{end}, but {scheduler}"
        if not end.abort:
            assert books.is_exhausted and books.n_read == books.settings.n_tasks, "finished before the input has ended"
            lost = books.n_read - len(books.delivered)
            assert not lost, f"finished without the results of {lost} tasks"
            assert not books.runs, f"finished with {len(books.runs)} batches in flight"
    else:
        _check_alive(books, scheduler)
    _check_delay(books, scheduler)
    _check_sizes(books, scheduler)
    if books.window is not None and not books.retry.backoff_seconds:
        run_ahead = len(books.sent_before) - len(books.delivered) + books.n_unconsumed
        assert run_ahead <= books.window.tasks, "more tasks run ahead of the consumer than the window has"


def _check_delay(books: Books, scheduler: Scheduler) -> None:
    """Check the delay that is over next: by chance as long as it may be, if that is asked for."""
    delayed = scheduler._dispatch.pending._delayed
    if not delayed or not books.retry.jitter:
        return  # `not_before` and the deadlines say it all
    at, index = delayed[0][:2]
    least, most = books.not_before[index], books.delayed.get(index, math.inf)
    assert least <= at <= most, f"task {index} waits until {at}, not from {least} to {most}"
    assert abs(at - (least + most) / 2) > CHANCE_SECONDS, f"the delay of task {index} is not varied"


def _check_sizes(books: Books, scheduler: Scheduler) -> None:
    """Check that nothing is kept of what is done: a call may be without an end."""
    if isinstance(books.end, Fail):
        return
    n_failed, n_counts = len(books.failed), len(scheduler._attempts._counts)
    assert n_counts <= n_failed, f"the attempts of {n_counts} tasks are kept, and {n_failed} of them may run again"
    assert len(scheduler._given_up) <= len(books.stuck), "workers are kept as given up that have come back"
    if not books.is_over:
        n_pending, n_ready = len(scheduler._dispatch.pending), len(books.ready)
        assert n_pending == n_ready, f"{n_pending} tasks are kept as waiting, not {n_ready}"


def _should_queue(books: Books) -> bool:
    """Tell whether some worker may have another batch behind its own, and there are the tasks for one."""
    batching, waiting = books.batching, len(books.ready) - len(books.delayed)
    return (
        books.depth > 1  # so nobody went blind, and the policy is that of the scheduler
        and isinstance(batching, (FixedBatching, AdaptiveBatching))  # others do not say the same twice
        and waiting >= (_least(books) if books.is_exhausted else books.settings.max_size)
        and books.n_free > 0
        and batching.queues()
    )


def _least(books: Books) -> int:
    return books.settings.n_jobs if books.batching.holds_last else 1


def _check_alive(books: Books, scheduler: Scheduler) -> None:
    done = len(books.accepted)
    assert len(books.ready) + books.tasks_in_flight + done == books.n_read, "the books are wrong: a task is nowhere"
    assert scheduler.state is (State.DRAINING if books.is_exhausted else State.FEEDING), f"not {scheduler.state}"
    n_runs = len(books.runs)
    assert scheduler.in_flight == n_runs, f"{n_runs} batches are in flight, not {scheduler.in_flight}"
    sent = books.tasks_in_flight + done
    assert scheduler.n_dispatched == sent, f"{sent} tasks are with the backend or done, not {scheduler.n_dispatched}"
    assert not (books.is_exhausted and done == books.n_read), "all is done and the call goes on"
    someone_alone = books.suspects or books.alone
    if books.n_idle and len(books.ready) > len(books.delayed) and not someone_alone and n_runs < books.max_in_flight:
        assert books.may_fill_the_window(), f"{books.n_idle} workers have nothing to do though tasks wait: {scheduler}"
    if _should_queue(books) and not someone_alone and n_runs < books.max_in_flight:
        assert books.may_fill_the_window(), f"a worker may have another batch, and none of the tasks: {scheduler}"
    if not n_runs and not books.unconsumed:
        assert scheduler.wanted() > 0 or books.delayed, f"nothing will ever happen: {scheduler}"
    # With jitter nobody but the scheduler knows whether a delay is over; the driver notices if it never is.
    delayed_until = None if books.retry.jitter else books.next_delayed()
    due = min((at for at in (books.next_due(), delayed_until) if at is not None), default=None)
    if due is not None:
        deadline = scheduler.next_deadline()
        assert deadline is not None, "a limit or a delay that nobody sees to"
        assert deadline <= max(due, books.now), f"a deadline at {deadline} that should have been at {due}"
