"""The scheduler, without a thread, a process or a clock. What is checked after every event is in `tests.simulation`."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import Phase, given, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from parallel._actions import Deliver, Fail, Finish, GiveUp, Kill, Look, Submit
from parallel._batching import AdaptiveBatching, Batching, FixedBatching, SingleBatching
from parallel._results import OrderedResults, UnorderedResults
from parallel._retry import Retry
from parallel._scheduler import Faults, Scheduler, State, Window
from parallel._task import Batch, Kind
from tests.simulation.facts import CallLateError, LateError, LostError, TaskError, limits, result, task
from tests.simulation.policies import WhimsicalBatching
from tests.simulation.whims import follow_whims
from tests.simulation.world import World

RETRIES = st.builds(
    Retry,
    attempts=st.integers(1, 4),
    on=st.sampled_from([(Exception,), (TaskError, LostError), (LateError,)]),
    backoff_seconds=st.sampled_from([0.0, 0.5]),
    jitter=st.just(0.0),
)


class AnyOrderOfEvents(RuleBasedStateMachine):
    """Whatever the input, the workers and the consumer do, and in whatever order."""

    world: World
    n_events = 0
    trouble_after = 0

    @initialize(
        n_tasks=st.integers(0, 40),
        n_jobs=st.integers(1, 4),
        policy=st.sampled_from(["fixed", "adaptive", "whimsical"]),
        max_size=st.integers(1, 12),
        seed=st.integers(0, 1000),
        ordered=st.booleans(),
        pre_dispatch=st.one_of(st.none(), st.integers(1, 10)),
        depth=st.integers(1, 3),
        window=st.one_of(st.none(), st.builds(Window, batches=st.integers(1, 8), tasks=st.integers(1, 30))),
        knows_total=st.booleans(),
        return_exceptions=st.booleans(),
        trouble_after=st.integers(0, 60),
        retry=RETRIES,
        faults=st.builds(Faults, st.booleans(), st.booleans(), st.booleans(), st.booleans()),
        task_seconds=st.sampled_from([None, 1.0]),
        call_seconds=st.sampled_from([None, None, 20.0]),
        replaces=st.booleans(),
    )
    def begin(
        self,
        *,
        n_jobs: int,
        policy: str,
        max_size: int,
        depth: int,
        seed: int,
        trouble_after: int,
        faults: Faults,
        **settings: Any,
    ) -> None:
        if not faults.sees_starts:
            max_size = depth = 1  # as the driver does it
        batching: Batching = FixedBatching(max_size)
        if policy == "adaptive":
            batching = AdaptiveBatching(n_jobs, max_size)
        elif policy == "whimsical":
            batching = WhimsicalBatching(seed, max_size)
        self.world = World(n_jobs=n_jobs, batching=batching, max_size=max_size, depth=depth, faults=faults, **settings)
        # Else most runs would end before they have begun.
        self.trouble_after = trouble_after

    @property
    def may_end(self) -> bool:
        self.n_events += 1
        return self.n_events > self.trouble_after

    def pick(self, number: int) -> int:
        runs = list(self.world.runs)
        return runs[number % len(runs)]

    def is_alive(self) -> bool:
        return not self.world.is_over

    def is_working(self) -> bool:
        return not self.world.is_over and bool(self.world.runs)

    @precondition(is_alive)
    @rule(count=st.one_of(st.none(), st.integers(1, 5)), tells_end=st.booleans())
    def read(self, count: int | None, tells_end: bool) -> None:
        self.world.read(count, tells_end)

    @precondition(is_working)
    @rule(number=st.integers(0, 20), seconds=st.sampled_from([0.0, 1e-6, 0.004, 0.5]))
    def a_batch_comes_back(self, number: int, seconds: float) -> None:
        self.world.bring(self.pick(number), seconds=seconds)

    @precondition(is_working)
    @rule(number=st.integers(0, 20), done=st.integers(1, 12))
    def a_batch_comes_back_cut_short(self, number: int, done: int) -> None:
        batch_id = self.pick(number)
        self.world.bring(batch_id, min(done, len(self.world.runs[batch_id].batch)))

    @precondition(is_working)
    @rule(
        number=st.integers(0, 20),
        done=st.integers(0, 12),
        failing=st.frozensets(st.integers(0, 11), min_size=1, max_size=4),
    )
    def tasks_fail(self, number: int, done: int, failing: frozenset[int]) -> None:
        if self.world.tolerates(TaskError()) or self.may_end:
            batch_id = self.pick(number)
            size = len(self.world.runs[batch_id].batch)
            self.world.bring(batch_id, min(done, size), frozenset(position % size for position in failing))

    @precondition(lambda self: self.world.landed)
    @rule(number=st.integers(0, 20))
    def a_batch_comes_back_twice(self, number: int) -> None:
        self.world.bring_again(self.world.landed[number % len(self.world.landed)])

    @precondition(is_working)
    @rule(number=st.integers(0, 20))
    def a_batch_cannot_be_unpickled(self, number: int) -> None:
        if self.world.tolerates(TaskError()) or self.may_end:
            self.world.blame_nobody(self.pick(number))

    @precondition(is_working)
    @rule(number=st.integers(0, 20))
    def a_worker_begins_a_task(self, number: int) -> None:
        self.world.begin(self.pick(number))

    @precondition(is_working)
    @rule(number=st.integers(0, 20))
    def a_backend_reports_a_start(self, number: int) -> None:
        self.world.report_start(self.pick(number))

    @precondition(is_working)
    @rule(number=st.integers(0, 20), is_between_tasks=st.booleans(), is_deliberate=st.booleans())
    def a_worker_ends(self, number: int, is_between_tasks: bool, is_deliberate: bool) -> None:
        is_survived = self.world.tolerates(LostError()) and self.world.faults.replaces_workers
        if is_survived or is_deliberate or self.may_end:
            self.world.lose(self.pick(number), is_between_tasks, is_deliberate)

    @precondition(lambda self: self.is_working() and self.world.sees_starts)
    @rule(number=st.integers(0, 20))
    def a_worker_does_not_see_the_board(self, number: int) -> None:
        if self.may_end:
            self.world.go_blind(self.pick(number))

    @precondition(lambda self: not self.world.is_over and self.world.stuck)
    @rule(number=st.integers(0, 20))
    def a_worker_that_was_given_up_comes_back(self, number: int) -> None:
        stuck = list(self.world.stuck)
        self.world.come_back_late(stuck[number % len(stuck)])

    @precondition(is_alive)
    @rule(seconds=st.sampled_from([None, 0.0, 0.1, 0.7, 2.0]))
    def time_passes(self, seconds: float | None) -> None:
        if self.world.settings.task_seconds is None or self.world.tolerates(LateError()) or self.may_end:
            self.world.wait(seconds)

    @precondition(lambda self: not self.world.is_over and self.world.unconsumed)
    @rule()
    def the_consumer_takes_results(self) -> None:
        self.world.take()

    @precondition(is_alive)
    @rule(how=st.sampled_from(["close", "break_down", "fail_to_read", "lose_for_good"]), number=st.integers(0, 20))
    def it_ends_early(self, how: str, number: int) -> None:
        if not self.may_end:
            return
        if how != "lose_for_good":
            getattr(self.world, how)()
        elif self.world.runs:
            self.world.lose_for_good(self.pick(number))

    @precondition(lambda self: self.world.is_over)
    @rule()
    def something_comes_after_the_end(self) -> None:
        self.world.trouble_the_dead()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            note(repr(self.world.scheduler))
            self.world.run_to_the_end()


TestAnyOrderOfEvents = AnyOrderOfEvents.TestCase

#: A smaller seed is no simpler schedule, so there is nothing to shrink.
SEEDED = (Phase.explicit, Phase.reuse, Phase.generate)

TestAnyOrderOfEvents.settings = settings(
    stateful_step_count=60, report_multiple_bugs=False, phases=(*SEEDED, Phase.shrink)
)


@pytest.fixture
def hang_seconds() -> float:
    """Long enough for hypothesis to find the smallest schedule that fails."""
    return 600.0


@given(seed=st.integers(0, 2**32))
@settings(max_examples=500, phases=SEEDED)
def test_keeps_its_promises_in_random_calls_of_any_length(seed: int) -> None:
    follow_whims(seed, max_tasks=200)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=1000, phases=SEEDED)
def test_keeps_its_promises_with_failures_limits_and_losses(seed: int) -> None:
    follow_whims(seed, max_tasks=60, with_faults=True)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=4, phases=SEEDED)
def test_keeps_its_promises_with_inputs_longer_than_what_is_read_at_once(seed: int) -> None:
    follow_whims(seed, max_tasks=30_000)


@given(
    n_jobs=st.integers(1, 3),
    limit=st.floats(0.001, 100.0),
    sees_starts=st.booleans(),
    steps=st.lists(
        st.tuples(st.sampled_from(["wait", "wait", "start", "bring", "wait to the deadline"]), st.floats(0.0, 3.0)),
        max_size=30,
    ),
)
def test_no_task_passes_its_limit_unnoticed_and_none_is_stopped_before(
    n_jobs: int, limit: float, sees_starts: bool, steps: list[tuple[str, float]]
) -> None:
    world = World(
        n_tasks=20,
        n_jobs=n_jobs,
        batching=FixedBatching(1),
        max_size=1,
        depth=1,
        task_seconds=limit,
        faults=Faults(sees_starts=sees_starts),
    )
    for what, amount in steps:
        if world.is_over:
            break
        world.read()
        if what == "wait":
            world.wait(amount * limit / 2)
        elif what == "wait to the deadline":
            world.wait()
        elif world.runs:
            batch_id = list(world.runs)[int(amount) % len(world.runs)]
            if what == "bring":
                world.bring(batch_id)
            elif sees_starts:
                world.begin(batch_id)
            else:
                world.report_start(batch_id)
    world.run_to_the_end()


# -- one behaviour at a time -------------------------------------------------------------------------------------------


def make(
    *, n_jobs: int = 2, size: int = 1, ordered: bool = True, pre_dispatch: int | None = 100, **options: Any
) -> Scheduler:
    return Scheduler(
        n_jobs=n_jobs,
        batching=options.pop("batching", FixedBatching(size)),
        results=OrderedResults() if ordered else UnorderedResults(),
        pre_dispatch=pre_dispatch,
        kind=Kind.ITEMS,
        function=result,
        **options,
    )


def feed(scheduler: Scheduler, n_tasks: int, exhausted: bool = True) -> list[Any]:
    first = scheduler.n_read
    return scheduler.on_input([task(i) for i in range(first, first + n_tasks)], exhausted, 0.0)


def submitted(actions: list[Any]) -> list[Batch]:
    return [action.batch for action in actions if isinstance(action, Submit)]


def spans(actions: list[Any]) -> list[tuple[int, int]]:
    return [(batch.start, batch.stop) for batch in submitted(actions)]


def delivered(actions: list[Any]) -> list[Any]:
    return [value for action in actions if isinstance(action, Deliver) for value in action.values]


def come_back(scheduler: Scheduler, batch: Batch, done: int | None = None, now: float = 1.0) -> list[Any]:
    done = len(batch) if done is None else done
    values = [result(batch.start + i) for i in range(done)]
    return scheduler.on_outcome(batch.batch_id, values, {}, 1.0, now)


class Queueing(FixedBatching):
    """A fixed size, and always a second batch at each worker."""

    holds_last = False

    def queues(self) -> bool:
        return True


def test_an_empty_input_is_over_at_once() -> None:
    scheduler = make()
    assert scheduler.wanted() > 0
    assert feed(scheduler, 0) == [Finish()]
    assert scheduler.state is State.FINISHED


def test_the_last_batch_may_be_smaller() -> None:
    scheduler = make(n_jobs=4, size=4)
    assert spans(feed(scheduler, 10)) == [(0, 4), (4, 8), (8, 10)]


def test_an_idle_worker_gets_part_of_a_batch_rather_than_nothing() -> None:
    scheduler = make(n_jobs=1, size=4)
    assert spans(feed(scheduler, 1, exhausted=False)) == [(0, 1)]


def test_a_busy_worker_waits_for_a_whole_batch() -> None:
    scheduler = make(n_jobs=1, batching=Queueing(4))
    feed(scheduler, 4, exhausted=False)
    assert spans(feed(scheduler, 3, exhausted=False)) == []
    assert spans(feed(scheduler, 1, exhausted=False)) == [(4, 8)]


def test_every_worker_gets_one_batch_before_any_gets_a_second() -> None:
    scheduler = make(n_jobs=3, batching=Queueing(1))
    assert [batch.lane for batch in submitted(feed(scheduler, 10))] == [0, 1, 2, 0, 1, 2]


def test_a_second_batch_waits_at_a_worker_only_where_the_policy_says_so() -> None:
    assert len(submitted(feed(make(n_jobs=2, size=1), 10))) == 2
    assert len(submitted(feed(make(n_jobs=2, batching=Queueing(1)), 10))) == 4


def test_the_last_tasks_wait_for_an_idle_worker_and_not_behind_a_busy_one() -> None:
    policy = Queueing(1)
    policy.holds_last = True  # type: ignore[misc]
    scheduler = make(n_jobs=2, batching=policy)
    _, second = submitted(feed(scheduler, 3))
    assert [(batch.start, batch.lane) for batch in submitted(come_back(scheduler, second))] == [(2, 1)]


def test_of_a_sized_input_each_other_worker_is_left_a_task() -> None:
    policy = AdaptiveBatching(2)
    policy.start_with(1e-7, 1e-3)
    assert spans(feed(make(batching=policy), 100)) == [(0, 100)]
    policy.start_with(1e-8, 1e-3)
    assert spans(feed(make(batching=policy), 1000)) == [(0, 999), (999, 1000)]


def test_where_tasks_may_change_each_is_sent_before_the_next_is_read() -> None:
    is_single = True
    scheduler = make(n_jobs=2, batching=SingleBatching(Queueing(3), lambda: is_single))
    flying = []
    for index in range(4):
        assert scheduler.wanted() == 1
        (batch,) = submitted(feed(scheduler, 1, exhausted=False))
        assert (batch.start, batch.stop) == (index, index + 1)
        flying.append(batch)
    assert scheduler.wanted() == 0  # both workers have two
    come_back(scheduler, flying[0])
    assert scheduler.wanted() == 1
    is_single = False
    assert scheduler.wanted() == 3


def test_what_is_read_whole_first_is_not_where_tasks_may_change() -> None:
    scheduler = make(n_jobs=1, pre_dispatch=None, batching=SingleBatching(FixedBatching(5), lambda: True))
    assert scheduler.wanted() == 1
    assert spans(feed(scheduler, 1, exhausted=False)) == [(0, 1)]
    assert scheduler.wanted() == 0


def test_pre_dispatch_limits_what_is_in_flight() -> None:
    scheduler = make(n_jobs=4, batching=Queueing(1), pre_dispatch=3)
    assert len(submitted(feed(scheduler, 10))) == 3


def test_pre_dispatch_limits_what_is_read() -> None:
    scheduler = make(n_jobs=2, size=5, pre_dispatch=3)
    for _ in range(10):
        feed(scheduler, scheduler.wanted(), exhausted=False)
    assert scheduler.n_read == 15


def test_without_pre_dispatch_the_whole_input_is_read_first() -> None:
    scheduler = make(n_jobs=2, size=5, pre_dispatch=None)
    for _ in range(20):
        assert scheduler.wanted() > 0
        feed(scheduler, scheduler.wanted(), exhausted=False)
    assert scheduler.in_flight == 2


def test_a_long_input_that_was_read_ahead_is_cut_without_gaps() -> None:
    world = World(n_tasks=30_000, n_jobs=1, batching=FixedBatching(700), max_size=700, pre_dispatch=None)
    while world.scheduler.wanted():
        world.read()
    world.run_to_the_end()


def test_an_input_that_has_ended_is_read_no_more() -> None:
    scheduler = make()
    feed(scheduler, 1)
    assert scheduler.wanted() == 0


def test_results_come_in_the_order_of_the_input() -> None:
    scheduler = make(n_jobs=3)
    first, second, third = submitted(feed(scheduler, 3))
    assert delivered(come_back(scheduler, third)) == []
    assert delivered(come_back(scheduler, first)) == [result(0)]
    last = come_back(scheduler, second)
    assert delivered(last) == [result(1), result(2)]
    assert last[-1] == Finish()


def test_unordered_results_come_as_they_are_done() -> None:
    scheduler = make(n_jobs=3, ordered=False)
    first, second, third = submitted(feed(scheduler, 3))
    order = [delivered(come_back(scheduler, batch)) for batch in (third, first, second)]
    assert order == [[result(2)], [result(0)], [result(1)]]


def test_what_a_batch_did_not_run_goes_to_whoever_is_free_before_anything_new() -> None:
    scheduler = make(n_jobs=2, size=4)
    first, second = submitted(feed(scheduler, 12))
    assert spans(come_back(scheduler, first, done=1)) == [(1, 4)]
    assert spans(come_back(scheduler, second)) == [(8, 12)]


def test_the_earliest_of_the_unrun_tasks_goes_first() -> None:
    # Position 1 and position 3 failed without the others having run, as tasks do that cannot be pickled.
    scheduler = make(n_jobs=1, size=4, return_exceptions=True)
    (batch,) = submitted(feed(scheduler, 4))
    actions = scheduler.on_outcome(batch.batch_id, [], {3: TaskError(3), 1: TaskError(1)}, 0.0, 1.0)
    assert spans(actions) == [(0, 1)]
    actions = come_back(scheduler, submitted(actions)[0])
    assert [str(value) for value in delivered(actions)] == [str(result(0)), "1"]
    assert spans(actions) == [(2, 3)]


def test_the_first_failure_ends_the_call_after_the_results_before_it() -> None:
    scheduler = make(n_jobs=1, size=4)
    (batch,) = submitted(feed(scheduler, 8))
    error = TaskError(2)
    actions = scheduler.on_outcome(batch.batch_id, [result(0), result(1), None], {2: error}, 1.0, 1.0)
    assert actions == [Deliver(0, [result(0), result(1)]), Fail(error)]
    assert scheduler.state is State.FAILED


def test_of_several_failures_the_first_in_the_input_is_raised() -> None:
    scheduler = make(n_jobs=1, size=4)
    (batch,) = submitted(feed(scheduler, 4))
    failures = {3: TaskError(3), 1: TaskError(1)}
    actions = scheduler.on_outcome(batch.batch_id, [result(0), None, result(2), None], failures, 1.0, 1.0)
    assert actions[-1] == Fail(failures[1])


def test_an_exception_may_take_the_place_of_a_result() -> None:
    scheduler = make(n_jobs=1, size=3, return_exceptions=True)
    (batch,) = submitted(feed(scheduler, 3))
    error = TaskError(1)
    actions = scheduler.on_outcome(batch.batch_id, [result(0), None, result(2)], {1: error}, 1.0, 1.0)
    assert actions == [Deliver(0, [result(0), error, result(2)]), Finish()]


def test_an_outcome_that_comes_twice_is_delivered_once() -> None:
    scheduler = make(n_jobs=2)
    first, _ = submitted(feed(scheduler, 2))
    assert delivered(come_back(scheduler, first)) == [result(0)]
    assert come_back(scheduler, first) == []


def test_a_full_window_stops_the_workers_until_something_is_consumed() -> None:
    scheduler = make(n_jobs=1, window=Window(batches=2, tasks=100))
    (first,) = submitted(feed(scheduler, 9))
    (second,) = submitted(come_back(scheduler, first))
    assert submitted(come_back(scheduler, second)) == []
    assert spans(scheduler.on_consumed(1, 2.0)) == [(2, 3)]


def test_a_full_window_stops_reading() -> None:
    scheduler = make(n_jobs=1, window=Window(batches=2, tasks=100))
    (first,) = submitted(feed(scheduler, 1, exhausted=False))
    come_back(scheduler, first)
    (second,) = submitted(feed(scheduler, 1, exhausted=False))
    come_back(scheduler, second)
    assert scheduler.wanted() == 0
    scheduler.on_consumed(1, 2.0)
    assert scheduler.wanted() > 0


def test_the_window_counts_tasks_too() -> None:
    scheduler = make(n_jobs=4, size=10, window=Window(batches=100, tasks=25))
    assert spans(feed(scheduler, 100)) == [(0, 10), (10, 20), (20, 25)]


def test_the_task_that_everything_waits_for_may_go_beyond_a_full_window() -> None:
    scheduler = make(n_jobs=2, size=3, window=Window(batches=2, tasks=100))
    first, second = submitted(feed(scheduler, 9))
    come_back(scheduler, second)
    actions = come_back(scheduler, first, done=1)
    assert delivered(actions) == [result(0)]
    assert spans(actions) == [(1, 2)]


def test_a_lost_batch_ends_the_call() -> None:
    scheduler = make(n_jobs=2)
    first, _ = submitted(feed(scheduler, 2))
    error = RuntimeError()
    assert scheduler.on_broken(first.batch_id, error, 1.0) == [Fail(error)]


def test_a_lost_batch_that_had_come_back_is_no_loss() -> None:
    scheduler = make(n_jobs=2)
    first, _ = submitted(feed(scheduler, 2))
    come_back(scheduler, first)
    assert scheduler.on_broken(first.batch_id, RuntimeError(), 1.0) == []


def test_closing_gives_the_workers_back_even_though_they_are_busy() -> None:
    scheduler = make()
    feed(scheduler, 2)
    assert scheduler.on_close(1.0) == [Finish(abort=True)]
    assert scheduler.state is State.CLOSED


def test_an_outcome_after_the_end_changes_nothing() -> None:
    scheduler = make()
    first, _ = submitted(feed(scheduler, 2))
    scheduler.on_close(1.0)
    assert come_back(scheduler, first) == []
    assert scheduler.state is State.CLOSED


# -- failures that are tried again -------------------------------------------------------------------------------------


def fail(scheduler: Scheduler, batch: Batch, error: BaseException, now: float = 1.0) -> list[Any]:
    return scheduler.on_outcome(batch.batch_id, [None], {0: error}, 1.0, now)


def test_a_task_that_fails_runs_again_as_often_as_it_may() -> None:
    scheduler = make(n_jobs=1, retry=Retry(attempts=3))
    (batch,) = submitted(feed(scheduler, 1))
    for _ in range(2):
        (batch,) = submitted(fail(scheduler, batch, TaskError()))
        assert batch.start == 0
    error = TaskError("the last")
    assert fail(scheduler, batch, error) == [Fail(error)]


def test_only_what_the_policy_names_is_tried_again() -> None:
    scheduler = make(n_jobs=1, retry=Retry(attempts=3, on=(LostError,)))
    (batch,) = submitted(feed(scheduler, 1))
    error = TaskError()
    assert fail(scheduler, batch, error) == [Fail(error)]


def test_the_neighbours_of_a_task_that_is_tried_again_are_done() -> None:
    scheduler = make(n_jobs=1, size=3, retry=Retry(attempts=2))
    (batch,) = submitted(feed(scheduler, 3))
    actions = scheduler.on_outcome(batch.batch_id, [result(0), None, result(2)], {1: TaskError()}, 1.0, 1.0)
    assert delivered(actions) == [result(0)]
    assert spans(actions) == [(1, 2)]
    assert delivered(come_back(scheduler, submitted(actions)[0])) == [result(1), result(2)]


def test_a_delay_is_a_deadline_and_others_run_meanwhile() -> None:
    scheduler = make(n_jobs=1, retry=Retry(attempts=4, backoff_seconds=2.0))
    (batch,) = submitted(feed(scheduler, 2))
    (second,) = submitted(fail(scheduler, batch, TaskError(), now=1.0))
    assert second.start == 1
    assert scheduler.next_deadline() == 3.0
    come_back(scheduler, second)
    assert submitted(scheduler.on_time(2.9)) == []
    (again,) = submitted(scheduler.on_time(3.0))
    assert again.start == 0
    fail(scheduler, again, TaskError(), now=3.0)
    assert scheduler.next_deadline() == 7.0  # twice as long


def test_what_waits_for_another_attempt_keeps_no_worker_idle() -> None:
    scheduler = make(n_jobs=2, pre_dispatch=2, retry=Retry(attempts=2, backoff_seconds=1000.0))
    in_flight = submitted(feed(scheduler, 2, exhausted=False))
    for index in range(2, 22):
        failed = in_flight.pop(0)
        assert submitted(fail(scheduler, failed, TaskError())) == []  # all that was read is with the workers, or waits
        assert scheduler.wanted() == 1
        (batch,) = submitted(feed(scheduler, 1, exhausted=False))
        assert (batch.start, batch.lane) == (index, failed.lane)
        in_flight.append(batch)
    assert scheduler.next_deadline() == 1001.0
    assert scheduler.in_flight == 2


def test_a_batch_that_nobody_can_blame_on_one_task_runs_again_one_by_one() -> None:
    scheduler = make(n_jobs=1, size=3, return_exceptions=True)
    (batch,) = submitted(feed(scheduler, 3))
    error = TaskError()
    (first,) = submitted(scheduler.on_unclear(batch.batch_id, error, 1.0))
    assert (first.start, len(first)) == (0, 1)
    actions = scheduler.on_unclear(first.batch_id, error, 1.0)
    assert delivered(actions) == [error]
    assert spans(actions) == [(1, 2)]


def test_a_batch_that_nobody_can_blame_on_one_task_ends_the_call_if_any_failure_does() -> None:
    scheduler = make(n_jobs=1, size=3)
    (batch,) = submitted(feed(scheduler, 3))
    error = TaskError()
    assert scheduler.on_unclear(batch.batch_id, error, 1.0) == [Fail(error)]


# -- workers that end --------------------------------------------------------------------------------------------------


def lose(scheduler: Scheduler, batch: Batch, position: int | None = None, running: bool = True) -> list[Any]:
    return scheduler.on_lost(batch.batch_id, position, running, LostError(), 1.0)


REPLACED = Faults(replaces_workers=True, sees_starts=True)
ALL_AT_ONCE = Faults(replaces_workers=True, sees_starts=True, loses_all=True)


def test_a_lost_worker_ends_the_call_where_losses_are_not_tolerated() -> None:
    for options in ({"faults": REPLACED}, {"retry": Retry(attempts=5)}, {"return_exceptions": True}):
        scheduler = make(n_jobs=1, **options)
        (batch,) = submitted(feed(scheduler, 2))
        (failed,) = lose(scheduler, batch, 0)
        assert isinstance(failed, Fail) and isinstance(failed.error, LostError)


def test_a_lost_worker_costs_the_task_that_it_ran_and_no_other() -> None:
    scheduler = make(n_jobs=1, size=3, faults=REPLACED, return_exceptions=True)
    (batch,) = submitted(feed(scheduler, 3))
    actions = lose(scheduler, batch, position=1)
    assert spans(actions) == [(0, 1)]
    actions = come_back(scheduler, submitted(actions)[0])
    first, lost = delivered(actions)
    assert first == result(0)
    assert isinstance(lost, LostError)
    assert spans(actions) == [(2, 3)]


def test_a_batch_that_was_not_begun_is_no_suspect() -> None:
    scheduler = make(n_jobs=1, size=3, faults=REPLACED, retry=Retry(attempts=2))
    (batch,) = submitted(feed(scheduler, 3))
    assert spans(lose(scheduler, batch, position=None)) == [(0, 3)]


def test_where_all_workers_are_lost_at_once_the_suspects_run_alone() -> None:
    scheduler = make(n_jobs=2, faults=ALL_AT_ONCE, retry=Retry(attempts=2))
    first, second = submitted(feed(scheduler, 3))
    assert lose(scheduler, first, position=0) == []
    (alone,) = submitted(lose(scheduler, second, position=0))
    assert alone.start == 0
    (alone,) = submitted(come_back(scheduler, alone))
    assert alone.start == 1
    assert [batch.start for batch in submitted(come_back(scheduler, alone))] == [2]


def test_a_suspect_that_is_lost_alone_is_guilty() -> None:
    scheduler = make(n_jobs=2, faults=ALL_AT_ONCE, retry=Retry(attempts=2))
    first, second = submitted(feed(scheduler, 2))
    lose(scheduler, first, position=0)
    (alone,) = submitted(lose(scheduler, second, position=0))
    (again,) = submitted(lose(scheduler, alone, position=0))
    assert again.start == 0
    (failed,) = lose(scheduler, again, position=0)
    assert isinstance(failed, Fail)


def test_where_nobody_knows_what_ran_all_tasks_of_a_lost_batch_run_alone() -> None:
    scheduler = make(n_jobs=1, size=3, faults=Faults(replaces_workers=True), retry=Retry(attempts=2))
    (batch,) = submitted(feed(scheduler, 3))
    (alone,) = submitted(lose(scheduler, batch, position=None, running=False))
    assert (alone.start, len(alone)) == (0, 1)


def test_nothing_waits_behind_a_suspect() -> None:
    scheduler = make(n_jobs=2, batching=Queueing(1), faults=REPLACED, retry=Retry(attempts=2))
    first, second, behind_first, _ = submitted(feed(scheduler, 20))
    assert submitted(lose(scheduler, first, position=0)) == []  # there is another batch with that worker
    (suspect,) = submitted(come_back(scheduler, behind_first))
    assert (suspect.start, suspect.lane) == (0, first.lane)
    following = second
    for _ in range(5):
        (following,) = submitted(come_back(scheduler, following))
        assert following.lane == second.lane
    assert {batch.lane for batch in submitted(come_back(scheduler, suspect))} == {first.lane}


def test_a_worker_that_was_ended_for_another_task_is_no_loss_of_this_one() -> None:
    scheduler = make(n_jobs=1, size=3)
    (batch,) = submitted(feed(scheduler, 3))
    actions = scheduler.on_lost(batch.batch_id, 1, True, LostError(), 1.0, is_deliberate=True)
    assert spans(actions) == [(0, 3)]


def test_workers_that_never_begin_anything_end_the_call() -> None:
    scheduler = make(n_jobs=2, faults=REPLACED, retry=Retry(attempts=5))
    waiting = submitted(feed(scheduler, 2))
    for _ in range(100):
        actions = lose(scheduler, waiting.pop(0), position=None)
        waiting += submitted(actions)
        if scheduler.is_over:
            break
    assert scheduler.state is State.FAILED
    assert isinstance(actions[-1], Fail)


def test_losses_that_are_charged_to_a_task_are_no_sign_that_nothing_works() -> None:
    scheduler = make(n_jobs=1, faults=REPLACED, return_exceptions=True)
    (batch,) = submitted(feed(scheduler, 100))
    for _ in range(100):
        (batch,) = submitted(lose(scheduler, batch, position=None))
        actions = lose(scheduler, batch, position=0)
        assert [type(value) for value in delivered(actions)] == [LostError]
        if not scheduler.is_over:
            (batch,) = submitted(actions)
    assert scheduler.state is State.FINISHED


# -- limits ------------------------------------------------------------------------------------------------------------


def test_there_is_no_deadline_without_a_limit() -> None:
    scheduler = make()
    feed(scheduler, 2)
    assert scheduler.next_deadline() is None


def test_a_batch_that_came_back_has_no_deadline() -> None:
    scheduler = make(n_jobs=1, limits=limits(5.0))
    (first,) = submitted(feed(scheduler, 1, exhausted=False))
    assert scheduler.next_deadline() == 5.0
    come_back(scheduler, first)
    assert scheduler.next_deadline() is None


def test_the_limit_counts_from_the_start_where_a_backend_tells_it() -> None:
    scheduler = make(n_jobs=1, limits=limits(5.0))
    (first,) = submitted(feed(scheduler, 1))
    scheduler.on_started(first.batch_id, 3.0)
    assert scheduler.on_time(5.0) == []
    assert scheduler.next_deadline() == 8.0
    (failed,) = scheduler.on_time(8.5)
    assert failed.error.args == (0, 5.5)


def test_the_limit_counts_from_the_start_of_the_task_where_that_can_be_seen() -> None:
    scheduler = make(n_jobs=1, size=3, limits=limits(5.0), faults=Faults(sees_starts=True))
    (batch,) = submitted(feed(scheduler, 3))
    assert scheduler.on_time(5.0) == [Look(batch.batch_id)]
    assert scheduler.on_look(batch.batch_id, 1, 4.0, 5.0) == []
    assert scheduler.next_deadline() == 9.0
    assert scheduler.on_time(9.0) == [Look(batch.batch_id)]
    (failed,) = scheduler.on_look(batch.batch_id, 1, 4.0, 9.0)
    assert failed.error.args == (1, 5.0)


def test_a_batch_that_was_not_begun_is_looked_at_again() -> None:
    scheduler = make(n_jobs=1, limits=limits(5.0), faults=Faults(sees_starts=True))
    (batch,) = submitted(feed(scheduler, 1))
    assert scheduler.on_time(5.0) == [Look(batch.batch_id)]
    assert scheduler.on_look(batch.batch_id, 0, None, 5.0) == []
    assert scheduler.next_deadline() == 10.0


@pytest.mark.parametrize(("begin", "limit"), [(0.7, 0.1), (0.3, 0.6), (1e6 + 0.1, 0.1)])
def test_a_deadline_is_not_missed_by_a_rounding_error(begin: float, limit: float) -> None:
    scheduler = make(n_jobs=1, limits=limits(limit))
    scheduler.on_input([task(0)], True, begin)
    deadline = scheduler.next_deadline()
    assert deadline is not None
    assert isinstance(scheduler.on_time(deadline)[0], Fail)


def test_a_call_that_passes_its_limit_fails() -> None:
    scheduler = make(n_jobs=1, limits=limits(call_seconds=10.0))
    feed(scheduler, 1)
    assert scheduler.next_deadline() == 10.0
    (failed,) = scheduler.on_time(10.5)
    assert isinstance(failed.error, CallLateError)
    assert failed.error.args == (10.5,)


def test_a_late_task_costs_itself_and_its_neighbours_run_elsewhere() -> None:
    scheduler = make(
        n_jobs=1,
        size=3,
        limits=limits(5.0),
        faults=Faults(can_kill=True, replaces_workers=True, sees_starts=True),
        return_exceptions=True,
    )
    (batch,) = submitted(feed(scheduler, 3))
    scheduler.on_time(5.0)
    assert scheduler.on_look(batch.batch_id, 1, 0.0, 5.0) == [Kill(batch.batch_id)]
    actions = lose(scheduler, batch, position=1)
    assert spans(actions) == [(0, 1)]
    actions = come_back(scheduler, submitted(actions)[0])
    first, late = delivered(actions)
    assert first == result(0)
    assert isinstance(late, LateError) and late.args[0] == 1
    assert spans(actions) == [(2, 3)]


def test_what_is_lost_with_a_late_task_is_no_suspect() -> None:
    faults = Faults(can_kill=True, replaces_workers=True, sees_starts=True, loses_all=True)
    scheduler = make(n_jobs=2, size=2, limits=limits(5.0), faults=faults, return_exceptions=True)
    first, second = submitted(feed(scheduler, 4))
    scheduler.on_time(5.0)
    assert scheduler.on_look(first.batch_id, 0, 0.0, 5.0) == [Kill(first.batch_id)]
    assert spans(lose(scheduler, second, position=1)) == [(2, 4)]


def test_a_late_task_that_comes_back_before_its_worker_is_ended_has_its_result() -> None:
    faults = Faults(can_kill=True, replaces_workers=True)
    scheduler = make(n_jobs=1, limits=limits(5.0), faults=faults, return_exceptions=True)
    (batch,) = submitted(feed(scheduler, 1))
    assert scheduler.on_time(5.0) == [Kill(batch.batch_id)]
    assert delivered(come_back(scheduler, batch)) == [result(0)]


def give_up_first(n_jobs: int, n_tasks: int, **options: Any) -> tuple[Scheduler, Batch, list[Batch]]:
    scheduler = make(n_jobs=n_jobs, limits=limits(5.0), return_exceptions=True, **options)
    first, *others = submitted(feed(scheduler, n_tasks))
    for other in others:
        scheduler.on_started(other.batch_id, 4.0)
    assert scheduler.on_time(5.0) == [GiveUp(first.batch_id)]
    return scheduler, first, others


def test_a_worker_that_cannot_be_killed_is_given_up() -> None:
    scheduler, first, (second,) = give_up_first(n_jobs=2, n_tasks=4)
    (late,) = delivered(scheduler.on_given_up(first.batch_id, [], False, 5.0))
    assert isinstance(late, LateError)
    assert scheduler.n_given_up == 1
    (third,) = submitted(come_back(scheduler, second))
    assert third.lane == second.lane != first.lane


def test_a_worker_that_was_given_up_works_again_when_it_comes_back() -> None:
    scheduler, first, _ = give_up_first(n_jobs=2, n_tasks=4)
    scheduler.on_given_up(first.batch_id, [], False, 5.0)
    (third,) = submitted(come_back(scheduler, first))
    assert third.lane == first.lane


def test_another_worker_takes_the_place_of_one_that_was_given_up() -> None:
    scheduler, first, _ = give_up_first(n_jobs=2, n_tasks=4)
    (third,) = submitted(scheduler.on_given_up(first.batch_id, [], True, 5.0))
    assert third.lane == first.lane


def test_the_results_before_a_late_task_are_saved_where_they_can_be_had() -> None:
    scheduler = make(n_jobs=1, size=3, limits=limits(5.0), faults=Faults(sees_starts=True), return_exceptions=True)
    (batch,) = submitted(feed(scheduler, 3))
    scheduler.on_time(5.0)
    assert scheduler.on_look(batch.batch_id, 1, 0.0, 5.0) == [GiveUp(batch.batch_id)]
    actions = scheduler.on_given_up(batch.batch_id, [result(0)], True, 5.0)
    first, late = delivered(actions)
    assert first == result(0)
    assert isinstance(late, LateError)
    assert spans(actions) == [(2, 3)]


def test_what_a_late_task_gave_after_it_was_given_up_does_not_count() -> None:
    scheduler = make(n_jobs=1, size=3, limits=limits(5.0), faults=Faults(sees_starts=True), return_exceptions=True)
    (batch,) = submitted(feed(scheduler, 3))
    scheduler.on_time(5.0)
    scheduler.on_look(batch.batch_id, 1, 0.0, 5.0)
    actions = scheduler.on_given_up(batch.batch_id, [result(0), result(1)], True, 5.0)
    first, late = delivered(actions)
    assert first == result(0)
    assert isinstance(late, LateError)
    assert spans(actions) == [(2, 3)]


def test_a_call_whose_workers_are_all_stuck_fails() -> None:
    scheduler, first, _ = give_up_first(n_jobs=1, n_tasks=2)
    actions = scheduler.on_given_up(first.batch_id, [], False, 5.0)
    assert isinstance(actions[-1], Fail)


def test_a_call_whose_last_worker_gets_stuck_in_the_last_attempt_says_so() -> None:
    scheduler = make(n_jobs=1, limits=limits(5.0), retry=Retry(attempts=2))
    (batch,) = submitted(feed(scheduler, 2))
    (again,) = submitted(fail(scheduler, batch, TaskError(), now=0.0))
    assert scheduler.on_time(5.0) == [GiveUp(again.batch_id)]
    (failed,) = scheduler.on_given_up(again.batch_id, [], False, 5.0)
    assert isinstance(failed, Fail) and isinstance(failed.error, LateError)


def test_a_worker_with_two_batches_given_up_works_again_when_both_are_back() -> None:
    scheduler = make(
        n_jobs=3, batching=Queueing(1), limits=limits(5.0), faults=Faults(sees_starts=True), return_exceptions=True
    )
    batches = submitted(feed(scheduler, 12))
    stuck = [batch for batch in batches if batch.lane == 0]
    other = next(batch for batch in batches if batch.lane == 1)
    scheduler.on_time(5.0)
    for batch in stuck:
        scheduler.on_look(batch.batch_id, 0, 0.0, 5.0)
        scheduler.on_given_up(batch.batch_id, [], False, 5.0)
    assert submitted(come_back(scheduler, stuck[0])) == []
    assert [batch.lane for batch in submitted(come_back(scheduler, other))] == [1]
    assert {batch.lane for batch in submitted(come_back(scheduler, stuck[1]))} == {0}


def test_a_call_fails_whose_workers_are_all_stuck_with_batches_of_one_lane() -> None:
    scheduler = make(
        n_jobs=2, batching=Queueing(1), limits=limits(5.0), faults=Faults(sees_starts=True), return_exceptions=True
    )
    first, _, behind_first, _ = submitted(feed(scheduler, 8))
    scheduler.on_time(5.0)
    for batch in (first, behind_first):  # taken by the other worker, which had nothing to do: they share one queue
        scheduler.on_look(batch.batch_id, 0, 0.0, 5.0)
        actions = scheduler.on_given_up(batch.batch_id, [], False, 5.0)
    assert isinstance(actions[-1], Fail)


def test_without_sight_tasks_go_one_by_one() -> None:
    scheduler = make(n_jobs=1, size=3, limits=limits(5.0), faults=Faults(sees_starts=True))
    (batch,) = submitted(feed(scheduler, 3))
    assert spans(scheduler.on_refused(batch.batch_id, 1.0, is_blind=True)) == [(0, 1)]


# -- and what it shows -------------------------------------------------------------------------------------------------


def test_results_that_wait_for_earlier_ones_can_be_had() -> None:
    scheduler = make(n_jobs=2)
    _, second = submitted(feed(scheduler, 2))
    come_back(scheduler, second)
    assert scheduler.held_results() == {1: result(1)}


def test_its_repr_tells_where_the_tasks_are() -> None:
    scheduler = make(n_jobs=1, size=2)
    feed(scheduler, 5, exhausted=False)
    for fact in ("feeding", "5 read", "3 buffered", "1 batches in flight", "0 completed"):
        assert fact in repr(scheduler)


def test_pickling_and_transport_are_no_part_of_a_round_trip() -> None:
    batching = FixedBatching(1)
    scheduler = make(batching=batching)
    (batch,) = submitted(feed(scheduler, 1, exhausted=False))
    scheduler.on_outcome(batch.batch_id, [1], {}, 1.0, 4.0, 2.5)
    assert batching.least_round_trip_seconds == pytest.approx(0.5)
