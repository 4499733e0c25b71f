"""The simulation finds bugs that are put into the scheduler on purpose, and what it finds can be replayed."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from parallel._actions import Action, Deliver, Fail, Finish, Kill
from parallel._batching import AdaptiveBatching
from parallel._dispatch import Dispatch
from parallel._lanes import Lanes
from parallel._limits import Watch
from parallel._results import OrderedResults
from parallel._retry import Attempts, Retry
from parallel._scheduler import Scheduler
from parallel._states import State
from parallel.errors import ParallelError
from tests.simulation import seeds
from tests.simulation.__main__ import main
from tests.simulation.many import Failed, first_failure, run_many
from tests.simulation.seeds import run_seed
from tests.simulation.trace import trace

ROOT = Path(__file__).parents[2]

#: The demand is 20,000; most bugs are found by one of the first hundred seeds, the rarest by the thousandth.
ENOUGH_SEEDS = 3000

Patch = Callable[[pytest.MonkeyPatch], None]


def traced(seed: int) -> list[str]:
    lines: list[str] = []
    run_seed(seed, lambda world: trace(world, lines.append))
    return lines


# -- seeds -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(0, 40, 4))
def test_a_seed_always_gives_the_same_events(seed: int) -> None:
    assert traced(seed) == traced(seed)


def test_a_seed_gives_the_same_events_in_every_process() -> None:
    outputs = []
    for hash_seed in ("1", "2"):
        command = [sys.executable, "-m", "tests.simulation", "--seed", "3"]
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        outputs.append(subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True).stdout)
    first, second = outputs
    assert first.count(b"\n") > 10
    assert first == second


def test_seeds_differ() -> None:
    assert len({tuple(traced(seed)) for seed in range(20)}) == 20


# -- bugs that are put back --------------------------------------------------------------------------------------------


def wrap(patch: pytest.MonkeyPatch, where: type, name: str, bug: Callable[..., Any]) -> None:
    """Put a bug in the place of a method; it is given what it replaces, and then what that would be given."""
    before = getattr(where, name)

    @functools.wraps(before)
    def after(*arguments: Any, **options: Any) -> Any:
        return bug(before, *arguments, **options)

    patch.setattr(where, name, after)


def forget_a_retried_task(patch: pytest.MonkeyPatch) -> None:
    def bug(
        before: Any, scheduler: Any, batch: Any, position: int, error: Any, now: float, alone: bool = False
    ) -> bool:
        return scheduler._attempts.fail(batch.start + position, error) is not None

    wrap(patch, Scheduler, "_runs_again", bug)


def deliver_a_result_twice(patch: pytest.MonkeyPatch) -> None:
    def bug(before: Any, scheduler: Any, *arguments: Any) -> list[Action]:
        actions: list[Action] = before(scheduler, *arguments)
        delivered = [action for action in actions if isinstance(action, Deliver)]
        return actions[:1] + delivered[:1] + actions[1:] if scheduler.n_completed > 5 else actions

    wrap(patch, Scheduler, "on_outcome", bug)


def run_a_task_again_that_is_done(patch: pytest.MonkeyPatch) -> None:
    def bug(before: Any, dispatch: Any, batch: Any, begin: int, end: int, alone: bool = False) -> None:
        before(dispatch, batch, max(begin - 1, 0), end, alone)

    wrap(patch, Dispatch, "put_back", bug)


def drop_the_last_batch(patch: pytest.MonkeyPatch) -> None:
    def bug(before: Any, dispatch: Any, *arguments: Any) -> Any:
        cut = before(dispatch, *arguments)
        is_rest = cut is not None and dispatch.is_exhausted and not len(dispatch.pending)
        return None if is_rest and len(cut[1]) < dispatch.batching.next_size(None) else cut

    wrap(patch, Dispatch, "_cut", bug)


def drop_the_last_batch_without_a_trace(patch: pytest.MonkeyPatch) -> None:
    def bug(before: Any, scheduler: Any, tasks: list[Any], exhausted: bool, now: float) -> Any:
        size = scheduler._dispatch.batching.next_size(None)
        if exhausted and 0 < len(tasks) < size:
            tasks = []
        return before(scheduler, tasks, exhausted, now)

    wrap(patch, Scheduler, "on_input", bug)


def drop_results_that_come_last(patch: pytest.MonkeyPatch) -> None:
    def bug(before: Any, scheduler: Any, actions: list[Action], now: float) -> list[Action]:
        actions = before(scheduler, actions, now)
        return actions[-1:] if actions and isinstance(actions[-1], Finish) else actions

    wrap(patch, Scheduler, "_go_on", bug)


def finish_before_the_last_batch_is_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Scheduler, "_is_done", lambda self: self.state is State.DRAINING and not len(self._dispatch.pending))


def submit_after_the_end(patch: pytest.MonkeyPatch) -> None:
    def bug(before: Any, scheduler: Any, now: float) -> list[Action]:
        return [] if scheduler.is_over else [Finish(abort=True)]  # and stays in its state

    wrap(patch, Scheduler, "on_close", bug)


def submit_after_a_failure(patch: pytest.MonkeyPatch) -> None:
    def bug(before: Any, scheduler: Any, actions: list[Action], error: BaseException) -> list[Action]:
        actions.append(Fail(error))
        return actions

    wrap(patch, Scheduler, "_fail", bug)


def lose_the_rest_of_a_cut_batch(patch: pytest.MonkeyPatch) -> None:
    def bug(before: Any, dispatch: Any, batch: Any, begin: int, end: int, alone: bool = False) -> None:
        if end < len(batch) or begin == 0:
            before(dispatch, batch, begin, end, alone)

    wrap(patch, Dispatch, "put_back", bug)


def ignore_a_deadline(patch: pytest.MonkeyPatch) -> None:
    wrap(patch, Watch, "take", lambda before, watch, now, alive: before(watch, now, alive)[1:])


def notice_a_deadline_late(patch: pytest.MonkeyPatch) -> None:
    wrap(patch, Watch, "set", lambda before, watch, batch_id, at: before(watch, batch_id, at + 0.01))


def ignore_the_limit_of_the_call(patch: pytest.MonkeyPatch) -> None:
    def bug(before: Any, scheduler: Any, now: float) -> list[Action]:
        scheduler._call_until = None
        return before(scheduler, now)  # type: ignore[no-any-return]

    wrap(patch, Scheduler, "on_time", bug)


def stop_a_task_before_its_limit(patch: pytest.MonkeyPatch) -> None:
    def bug(before: Any, scheduler: Any, batch_id: int, position: int, started_at: Any, now: float) -> list[Action]:
        began = None if started_at is None else started_at - 0.01
        return before(scheduler, batch_id, position, began, now)  # type: ignore[no-any-return]

    wrap(patch, Scheduler, "on_look", bug)


def exceed_pre_dispatch(patch: pytest.MonkeyPatch) -> None:
    def bug(before: Any, dispatch: Any, **options: Any) -> None:
        before(dispatch, **options)
        dispatch.max_in_flight += 1

    wrap(patch, Dispatch, "__init__", bug)


def deliver_out_of_order(patch: pytest.MonkeyPatch) -> None:
    def bug(before: Any, results: Any, start: int, values: list[Any]) -> Any:
        ready = before(results, start, values)
        return ready[::-1]

    wrap(patch, OrderedResults, "add", bug)


def never_finish(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Scheduler, "_is_done", lambda self: False)


def ask_for_nothing(patch: pytest.MonkeyPatch) -> None:
    wrap(patch, Scheduler, "wanted", lambda before, self: before(self) if self.n_read < 5 else 0)


def ignore_the_window(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Dispatch, "_room", lambda self: 10_000)


def count_nothing_as_held(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Dispatch, "hold", lambda self, tasks: None)
    patch.setattr(Dispatch, "consume", lambda self, tasks: None)


def kill_the_wrong_batch(patch: pytest.MonkeyPatch) -> None:
    def bug(before: Any, scheduler: Any, *arguments: Any) -> list[Action]:
        actions: list[Action] = before(scheduler, *arguments)
        last = max(scheduler._dispatch.flights, default=0)
        return [Kill(last) if isinstance(action, Kill) else action for action in actions]

    wrap(patch, Scheduler, "on_look", bug)


def accept_what_comes_twice(patch: pytest.MonkeyPatch) -> None:
    landed: dict[tuple[int, int], Any] = {}

    def bug(before: Any, dispatch: Any, batch_id: int) -> Any:
        flight = before(dispatch, batch_id)
        if flight is not None:
            landed[id(dispatch), batch_id] = flight
        return flight or landed.get((id(dispatch), batch_id))

    wrap(patch, Dispatch, "land", bug)


def blame_nobody_for_a_lost_worker(patch: pytest.MonkeyPatch) -> None:
    def bug(
        before: Any, scheduler: Any, batch_id: int, position: Any, running: bool, *rest: Any, **options: Any
    ) -> Any:
        return before(scheduler, batch_id, position, False, *rest, **options)

    wrap(patch, Scheduler, "on_lost", bug)


def keep_a_lane_that_came_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Scheduler, "_regain", lambda self, batch_id, now: [])


def use_a_lane_that_was_given_up(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Dispatch, "leave", Dispatch.land)


def start_an_attempt_before_its_delay(patch: pytest.MonkeyPatch) -> None:
    def bug(before: Any, dispatch: Any, batch: Any, position: int, at: float, alone: bool) -> None:
        dispatch.put_back(batch, position, position + 1, alone)

    wrap(patch, Dispatch, "delay", bug)


def read_for_one_batch_more_than_the_window_has(patch: pytest.MonkeyPatch) -> None:
    def bug(before: Any, dispatch: Any) -> Any:
        window = dispatch._window
        if window is not None:
            dispatch._window = window._replace(batches=window.batches + 1)
        wanted = before(dispatch)
        dispatch._window = window
        return wanted

    wrap(patch, Dispatch, "wanted", bug)


def lose_places_of_a_closed_lane(patch: pytest.MonkeyPatch) -> None:
    def bug(before: Any, lanes: Any) -> Any:
        load = before(lanes)
        lanes._closed = {lane: min(tokens, 1) for lane, tokens in lanes._closed.items()}
        return load

    wrap(patch, Lanes, "next_load", bug)


def count_no_large_fragments_as_held(patch: pytest.MonkeyPatch) -> None:
    def bug(before: Any, dispatch: Any, tasks: int) -> None:
        before(dispatch, tasks)
        if dispatch._window is not None and tasks >= 40:
            dispatch._held_fragments -= 1

    wrap(patch, Dispatch, "hold", bug)


def vary_delays_too_much(patch: pytest.MonkeyPatch) -> None:
    def bug(before: Any, retry: Any, attempts: int, generator: Any) -> Any:
        delay = before(retry, attempts, generator)
        return 0.9 * delay if retry.jitter else delay

    wrap(patch, Retry, "delay_seconds", bug)


def never_vary_delays(patch: pytest.MonkeyPatch) -> None:
    def bug(before: Any, retry: Any, attempts: int, generator: Any) -> Any:
        return before(Retry(retry.attempts, retry.on, retry.backoff_seconds), attempts, generator)

    wrap(patch, Retry, "delay_seconds", bug)


def keep_the_attempts_of_what_is_done(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Attempts, "succeed", lambda self, start, stop: None)


def note_a_wrong_number_of_attempts(patch: pytest.MonkeyPatch) -> None:
    def bug(before: Any, attempts: Any, index: int, error: Any) -> Any:
        delay = before(attempts, index, error)
        if delay is None and isinstance(error, ParallelError):
            error.attempts -= 1
        return delay

    wrap(patch, Attempts, "fail", bug)


def send_large_batches_to_the_end(patch: pytest.MonkeyPatch) -> None:
    wrap(patch, AdaptiveBatching, "next_size", lambda before, batching, remaining: before(batching, None))


@pytest.mark.parametrize(
    ("bug", "message"),
    [
        (
            forget_a_retried_task,
            "are with the backend or done|finished without|have nothing to do|nothing will ever happen",
        ),
        (deliver_a_result_twice, "delivered twice"),
        (run_a_task_again_that_is_done, "somebody else has, or that are done|came back a second time|with the backend"),
        (drop_the_last_batch, "have nothing to do|nothing will ever happen|finished without"),
        (drop_the_last_batch_without_a_trace, r"\d+ tasks were read, not \d+"),
        (drop_results_that_come_last, "results are lost|finished without the results"),
        (finish_before_the_last_batch_is_back, "finished without the results|finished with"),
        (submit_after_the_end, "over without saying so|closed, but|closed after the end"),
        (submit_after_a_failure, "after the end|over without saying so|failed, but"),
        (lose_the_rest_of_a_cut_batch, "have nothing to do|nothing will ever happen|with the backend|finished without"),
        (ignore_a_deadline, "passed its limit and nobody noticed|nobody sees to|should have been at"),
        (notice_a_deadline_late, "should have been at|nobody noticed"),
        (ignore_the_limit_of_the_call, "the call passed its limit and nobody noticed"),
        (stop_a_task_before_its_limit, "before its limit"),
        (exceed_pre_dispatch, "more in flight than pre_dispatch and depth allow|should have failed with LostError"),
        (deliver_out_of_order, "out of order"),
        (never_finish, "all is done and the call goes on"),
        (ask_for_nothing, "nothing will ever happen|nothing will happen any more"),
        (ignore_the_window, "beyond the window|run ahead of the consumer"),
        (count_nothing_as_held, "beyond the window|run ahead of the consumer"),
        (kill_the_wrong_batch, "is stopped before its limit|is stopped twice|is about another task"),
        (accept_what_comes_twice, "came back a second time|came twice|more tasks ran than were sent"),
        (
            blame_nobody_for_a_lost_worker,
            "should have failed with|a suspect|are done|with the backend|should have been at|attempts behind it",
        ),
        (keep_a_lane_that_came_back, "have nothing to do though tasks wait|which is no reason to"),
        (use_a_lane_that_was_given_up, "for a worker that is stuck|too much for one worker|queues although"),
        (start_an_attempt_before_its_delay, "before its delay is over"),
        (read_for_one_batch_more_than_the_window_has, "reads for another batch than the window has"),
        (lose_places_of_a_closed_lane, "a worker may have another batch, and none of the tasks"),
        (count_no_large_fragments_as_held, "beyond the window|reads for another batch than the window has"),
        (vary_delays_too_much, "waits until|before its delay is over"),
        (never_vary_delays, "is not varied"),
        (keep_the_attempts_of_what_is_done, "attempts of .* are kept"),
        (note_a_wrong_number_of_attempts, r"ran \d+ times, not \d+"),
        (send_large_batches_to_the_end, "its last batches are too long"),
    ],
)
def test_a_bug_that_is_put_back_is_found(bug: Patch, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bug(monkeypatch)
    failed = first_failure(range(ENOUGH_SEEDS))
    assert failed is not None
    assert re.search(message, failed.message), failed.message


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_says_which_seed_failed_and_the_replay_fails_in_the_same_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    deliver_out_of_order(monkeypatch)
    assert main(["--seeds", "300", "--first", "7", "--jobs", "1"]) == 1
    failure, how_to_replay = capsys.readouterr().out.splitlines()
    match = re.fullmatch(r"seed (\d+) failed: AssertionError: result \d+ is delivered out of order", failure)
    assert match is not None and int(match[1]) >= 7
    assert how_to_replay == f"replay it with: python -m tests.simulation --seed {match[1]}"
    assert main(["--seed", match[1]]) == 1
    *events, last = capsys.readouterr().out.splitlines()
    assert last == failure
    assert any("on_input" in line for line in events)


def test_the_command_passes_where_nothing_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tests.simulation.__main__.report", lambda loads, say: None)
    assert main(["--seeds", "30", "--jobs", "1"]) == 0
    assert "all 30 seeds passed" in capsys.readouterr().out


def fail_from_700_on(seeds: range) -> Failed | None:
    return next((Failed(seed, "on purpose") for seed in seeds if seed >= 700), None)


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_smallest_seed_that_fails_is_found_whatever_the_number_of_processes(jobs: int) -> None:
    passed: list[int] = []
    failed = run_many(range(50, 2050), jobs, lambda n_passed, seconds: passed.append(n_passed), fail_from_700_on)
    assert failed == Failed(700, "on purpose")
    assert passed == [200, 400, 600]


def test_seeds_pass_in_other_processes() -> None:
    assert run_many(range(20), 2, lambda n_passed, seconds: None) is None


def test_a_scheduler_that_loops_for_ever_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def loop(self: Scheduler) -> int:
        while True:
            pass

    monkeypatch.setattr(Scheduler, "wanted", loop)
    monkeypatch.setattr(seeds, "HANG_SECONDS", 0.1)
    failed = first_failure(range(1))
    assert failed is not None and "an endless loop" in failed.message
