"""The benchmark program: that it measures and judges rightly, and that its rows still run. No time is asserted."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import stages
from benchmarks.__main__ import main
from benchmarks.goals import AtLeast, AtMost, AtMostTimes, TimesFaster, judge
from benchmarks.greedy import greedy_seconds, heavy_tailed
from benchmarks.measuring import Measured, Run, Spread, measure, ratio
from benchmarks.row import Entry, Row, alone
from benchmarks.rows import all_rows
from benchmarks.session import run, select
from benchmarks.table import best_peer, render, summary
from benchmarks.units import MILLISECONDS


class FakeClock:
    """Time that passes only when somebody works."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def __call__(self) -> float:
        return self.now

    def work(self, name: str, *seconds: float) -> Callable[[], str]:
        """Make an action that takes so many seconds at its first call, and so on; the last for all others."""
        times = list(seconds)

        def action() -> str:
            self.log.append(name)
            self.now += times.pop(0) if len(times) > 1 else times[0]
            return name

        return action


def measured(clock: FakeClock, runs: list[Run], **settings: float) -> Measured:
    return measure(runs, clock=clock, tidy=lambda: None, **settings)  # type: ignore[arg-type]


def row(*entries: Entry, **settings: object) -> Row:
    return Row("a-row", "some work", entries, **settings)  # type: ignore[arg-type]


# -- measuring -------------------------------------------------------------------------------------------------------


def test_the_order_rotates_from_round_to_round() -> None:
    clock = FakeClock()
    measured(clock, [Run(name, clock.work(name, 1.0)) for name in "abc"], rounds=4, warms_up=False)
    assert "".join(clock.log) == "abc" + "bca" + "cab" + "abc"


def test_a_value_for_each_round_and_none_for_the_warm_up() -> None:
    clock = FakeClock()
    found = measured(clock, [Run("a", clock.work("a", 100.0, 1.0, 2.0, 4.0))], rounds=3)
    assert found.samples == {"a": [1.0, 2.0, 4.0]}


def test_what_is_short_is_called_several_times_and_its_value_is_per_call() -> None:
    clock = FakeClock()
    runs = [Run("short", clock.work("short", 0.25)), Run("long", clock.work("long", 8.0))]
    found = measured(clock, runs, rounds=1, sample_seconds=1.0)
    assert found.samples == {"short": [0.25], "long": [8.0]}
    assert clock.log == ["short"] * 2 + ["long"] * 2 + ["short"] * 4 + ["long"]


def test_a_score_is_made_of_the_seconds_and_the_result() -> None:
    clock = FakeClock()
    run = Run("abc", clock.work("abc", 6.0), lambda seconds, result: seconds / len(str(result)))
    assert measured(clock, [run], rounds=1).samples == {"abc": [2.0]}


def test_one_that_fails_is_left_out_and_the_others_go_on() -> None:
    clock = FakeClock()

    def fail() -> None:
        raise OSError("no such worker")

    found = measured(clock, [Run("bad", fail), Run("good", clock.work("good", 1.0))], rounds=2)
    assert found.samples == {"good": [1.0, 1.0]}
    assert found.failures == {"bad": "OSError: no such worker"}


@pytest.mark.parametrize("warms_up", [True, False])
def test_wrong_results_are_a_failure(warms_up: bool) -> None:
    clock = FakeClock()
    run = Run("a", clock.work("a", 1.0), accepts=lambda result: result == "b")
    found = measured(clock, [run], rounds=1, warms_up=warms_up)
    assert found.failures == {"a": "AssertionError: the results are not what they should be"}


def test_a_spread() -> None:
    assert Spread.of([5.0, 1.0, 2.0, 3.0, 4.0]) == Spread(median=3.0, low=2.0, high=4.0, least=1.0, most=5.0)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0, 7.0, 7.0)


def test_a_ratio_is_the_median_of_those_of_the_rounds() -> None:
    assert ratio([2.0, 30.0, 9.0], [1.0, 10.0, 1.0]) == 3.0
    assert ratio([1.0], [0.0]) == math.inf


# -- the ideal schedule ----------------------------------------------------------------------------------------------


def test_an_ideal_schedule_gives_each_task_to_whoever_is_free_first() -> None:
    assert greedy_seconds([4.0, 1.0, 1.0, 1.0, 3.0]) == 6.0
    assert greedy_seconds([1.0, 1.0, 4.0]) == 5.0
    assert greedy_seconds([]) == 0.0


def test_heavy_tailed_durations_have_the_mean_that_was_asked_for_and_no_task_that_decides_alone() -> None:
    durations = heavy_tailed(2_000, 1e-3)
    assert durations == heavy_tailed(2_000, 1e-3)
    assert sum(durations) == pytest.approx(2.0)
    assert 0.02 < max(durations) < 0.2


# -- goals and the table ---------------------------------------------------------------------------------------------

SAMPLES = {"ours": [0.002, 0.001, 0.003], "peer": [0.004, 0.004, 0.004], "other": [0.006, 0.005, 0.007]}


@pytest.mark.parametrize(
    ("goal", "text", "shown", "mark"),
    [
        (AtMost("ours", 0.002), "≤ 2 ms", "2 ms", "✓"),
        (AtMost("ours", 0.0015), "≤ 1.5 ms", "2 ms", "✗"),
        (AtLeast("ours", 0.002), "≥ 2 ms", "2 ms", "✓"),
        (AtLeast("ours", 0.0025), "≥ 2.5 ms", "2 ms", "✗"),
        (AtMostTimes("ours", 0.5, "peer"), "≤ 0.5 × peer", "0.50 ×", "✓"),
        (AtMostTimes("peer", 1.5, "ours"), "≤ 1.5 × ours", "2.00 ×", "✗"),
        (TimesFaster("ours", 2, "peer"), "≥ 2 × as fast as peer", "2.00 ×", "✓"),
        (TimesFaster("ours", 2.5, "peer"), "≥ 2.5 × as fast as peer", "2.00 ×", "✗"),
        (AtMostTimes("ours", 1.5, "absent"), "≤ 1.5 × absent", "not measured", "?"),
        (AtMost("absent", 1), "≤ 1,000 ms", "not measured", "?"),
    ],
)
def test_goals(goal: AtMost | AtMostTimes | TimesFaster, text: str, shown: str, mark: str) -> None:
    (verdict,) = judge([goal], SAMPLES, MILLISECONDS)
    assert (verdict.goal, verdict.shown, verdict.mark) == (text, shown, mark)


def test_a_table_shows_ratios_to_the_named_and_to_the_best_peer() -> None:
    table = row(
        Entry("ours", alone(int)),
        Entry("peer", alone(int), is_peer=True),
        Entry("other", alone(int), is_peer=True),
        goals=(AtMostTimes("ours", 0.25, "other"),),
        base="other",
    )
    found = Measured(SAMPLES, {"bad": "OSError: no"})
    assert best_peer(table, found) == "peer"
    assert render(table, found, judge(table.goals, SAMPLES), ["a note"]).splitlines() == [
        "a-row: some work (ms, 3 rounds)",
        "         median   middle half  least  × other  × best peer",
        "  ours     2.00  1.50 to 2.50   1.00     0.33         0.50",
        "  peer     4.00  4.00 to 4.00   4.00     0.67         1.00",
        "  other    6.00  5.50 to 6.50   5.00     1.00         1.50",
        "  ✗ ours ≤ 0.25 × other: 0.33 ×",
        "  bad: failed, OSError: no",
        "  (a note)",
    ]


def test_one_round_has_no_spread_and_a_row_may_have_no_peers() -> None:
    table = row(Entry("ours", alone(int)))
    assert render(table, Measured({"ours": [0.25]}), []).splitlines() == [
        "a-row: some work (ms, 1 round)",
        "        median",
        "  ours     250",
    ]


def test_the_summary_counts_what_was_reached_and_names_what_was_not() -> None:
    goals = [AtMost("ours", 0.002), AtMost("ours", 0.001), AtMost("absent", 1)]
    verdicts = [("a-row", verdict) for verdict in judge(goals, SAMPLES, MILLISECONDS)]
    assert summary(verdicts).splitlines() == ["1 of 2 goals reached", "  a-row: ✗ ours ≤ 1 ms: 2 ms"]


# -- the rows --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_quick", [True, False])
def test_the_labels_of_goals_and_of_the_named_peer_are_those_of_entries(is_quick: bool) -> None:
    for each in all_rows(is_quick=is_quick):
        labels = [entry.label for entry in each.entries]
        assert len(set(labels)) == len(labels), each.name
        named = {goal.label for goal in each.goals} | {goal.peer for goal in each.goals if goal.peer}
        # Of a peer that is not installed there is no program to run in a new process.
        assert {label for label in named if not label.startswith("joblib/")} <= set(labels), each.name


@pytest.mark.parametrize("options", [[], ["--quick"]])
def test_list_names_every_row(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*options, "--list"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == [each.name for each in all_rows(is_quick=bool(options))]


def test_rows_are_chosen_by_a_part_of_their_name_or_a_pattern() -> None:
    rows = all_rows()
    assert {each.name for each in select(rows, ["map-"])} == {"map-1000", "map-20000"}
    assert {each.name for each in select(rows, ["one*mp", "import"])} == {"one-mp", "import"}
    assert select(rows, []) == rows


def test_a_pattern_that_no_row_has(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "nothing-like-it"])
    assert "no row is named like nothing-like-it; --list names them all" in capsys.readouterr().err


def test_a_row_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "run.json"
    # `parallel` without workers, beside a list comprehension.
    assert main(["--only", "many-one-job", "--rounds", "2", "--json", str(kept)]) == 0
    (told,) = json.loads(kept.read_text("utf-8"))["rows"]
    assert told["name"] == "many-one-job"
    assert len(told["samples"]["sequential"]) == len(told["samples"]["list comprehension"]) == 2
    assert told["failures"] == {}
    printed = capsys.readouterr().out
    assert "many-one-job: 20,000 no-op tasks, n_jobs=1 (ms, 2 rounds)" in printed
    assert "of 1 goals reached" in printed


def test_what_is_not_installed_is_left_out_with_a_note() -> None:
    (result,) = run([row(Entry("ours", alone(int)), needs=("no_such_module",), goals=(AtMost("ours", 1),))])
    assert result.notes == ["no_such_module is not installed"]
    assert [verdict.mark for verdict in result.verdicts] == ["?"]


@pytest.mark.parametrize("each", [each for each in stages.rows(is_quick=True) if not each.needs], ids=lambda r: r.name)
def test_stages_go_where_the_private_modules_go(each: Row) -> None:
    for entry in each.entries:
        entry.action(None)
