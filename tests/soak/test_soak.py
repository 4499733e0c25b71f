"""The soak test itself, on simulated time: planted leaks are found, and named."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from parallel.errors import WorkerLostError
from tests.soak import planted
from tests.soak.kinds import FAULTS, KINDS, Kind, Kinds
from tests.soak.metrics import LIMITS, is_available, measure
from tests.soak.plan import ITEMS, Item, Turn
from tests.soak.run import Soak, Status, let_threads_end, minutes_needed, report
from tests.soak.trend import Verdict

pytestmark = pytest.mark.skipif(not is_available(), reason="reads /proc")

#: Two minutes of samples.
SIMULATED_SECONDS = 210.0


class Idle(Kind):
    """Runs nothing."""

    def __init__(self, name: str = "idle", **options: Any) -> None:
        super().__init__(name, "threads", in_processes=False, **options)

    def rest(self) -> None:
        """Nothing is kept warm."""


class Clock:
    """Goes on by a second whenever it is looked at."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def nothing(_: Turn) -> None:
    """Leave nothing behind."""


def simulate(item: Item, folder: Path) -> tuple[list[str], dict[str, Any], list[str]]:
    printed: list[str] = []
    soak = Soak([Idle()], (item,), 1, lambda: measure(folder), printed.append, Clock())
    soak.run(SIMULATED_SECONDS)
    return printed, soak.verdicts(), report(soak.verdicts())[0]


@pytest.fixture
def temp_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield folder
    planted.clean()


def test_a_run_without_a_leak_passes(temp_folder: Path) -> None:
    printed, verdicts, _ = simulate(Item(nothing), temp_folder)
    assert len(printed) >= 20
    assert not any(verdict.is_trend for verdict in verdicts.values())


@pytest.mark.parametrize(
    ("what", "metric"),
    [("descriptor", "descriptors"), ("memory", "rss_mb"), ("thread", "threads"), ("file", "temporary_files")],
)
def test_a_planted_leak_is_found(temp_folder: Path, what: str, metric: str) -> None:
    _, verdicts, lines = simulate(planted.PLANTED[what], temp_folder)
    assert verdicts[metric].is_trend
    (line,) = [line for line in lines if line.startswith(metric)]
    assert "GROWS" in line


def test_a_wrong_result_ends_the_run_and_says_where() -> None:
    def wrong(_: Turn) -> None:
        raise AssertionError("wrong")

    with pytest.raises(AssertionError, match="wrong") as caught:
        Soak([Idle()], (Item(wrong),), 7, pytest.fail, pytest.fail, Clock()).run(10.0)
    assert caught.value.__notes__ == ["turn 0: wrong on idle, seed 7"]


def test_a_run_that_is_long_enough_is_judged(temp_folder: Path) -> None:
    soak = Soak([Idle()], (Item(nothing),), 1, lambda: measure(temp_folder), lambda line: None, Clock())
    soak.run(minutes_needed() * 60.0)
    lines, status = report(soak.verdicts())
    assert status is Status.GOOD
    assert not any("too few" in line for line in lines)


def test_a_run_that_is_too_short_says_what_it_needs_and_is_not_good() -> None:
    lines, status = report(dict.fromkeys(LIMITS, Verdict(None)))
    assert status is Status.UNKNOWN
    assert status not in (0, 1, 2)
    assert lines[-1] == f"TOO SHORT to judge {len(LIMITS)} metrics: that needs --minutes {minutes_needed()} at least"


def test_growth_outweighs_what_cannot_be_judged() -> None:
    verdicts = {"threads": Verdict(True, 1.0, 9.0, 2.0), "processes": Verdict(None)}
    assert report(verdicts)[1] is Status.BAD


def test_the_command_exits_with_a_status_of_its_own_when_it_was_too_short() -> None:
    command = [sys.executable, "-m", "tests.soak", "--minutes", "0", "--backends", "threads"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == Status.UNKNOWN
    assert "TOO SHORT" in done.stdout
    described = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout
    assert "3 if no call went wrong" in " ".join(described.split())


def test_every_pair_comes_once_before_one_comes_again() -> None:
    seen: list[tuple[str, str]] = []

    def first(turn: Turn) -> None:
        seen.append(("first", turn.kind.name))

    def second(turn: Turn) -> None:
        seen.append(("second", turn.kind.name))

    kinds = [Idle("one"), Idle("two"), Idle("three")]
    Soak(list(kinds), (Item(first), Item(second)), 1, pytest.fail, print, Clock()).run(70.0, sample_seconds=100.0)
    rounds = [seen[at : at + 6] for at in range(0, 30, 6)]
    assert all(len(set(one)) == 6 for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1  # not in the same order each time


def test_a_fault_ends_a_call_only_where_the_kind_has_faults() -> None:
    def lose(_: Turn) -> None:
        raise WorkerLostError("lost")

    faulty = Soak([Idle(may_raise=FAULTS)], (Item(lose),), 1, pytest.fail, print, Clock())
    faulty.run(10.0, sample_seconds=100.0)
    assert faulty.n_faults == faulty.n_calls > 1
    with pytest.raises(WorkerLostError):
        Soak([Idle()], (Item(lose),), 1, pytest.fail, print, Clock()).run(10.0)


def test_a_wrong_result_is_none_of_the_faults() -> None:
    def wrong(_: Turn) -> None:
        raise AssertionError("wrong")

    with pytest.raises(AssertionError, match="wrong"):
        Soak([Idle(may_raise=FAULTS)], (Item(wrong),), 1, pytest.fail, print, Clock()).run(10.0)


@pytest.mark.parametrize("name", ["faulty-threads", "faulty-mp"])
def test_calls_on_a_backend_with_faults_end_right_or_with_a_fault(name: str, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with Kinds([name]) as (kind,):
        soak = Soak(
            [kind], tuple(item for item in ITEMS if item.name in ("lists", "generators")), 1, pytest.fail, print
        )
        soak.run(1.0, sample_seconds=100.0)
        kind.rest()
        let_threads_end(before)
    assert soak.n_faults < soak.n_calls


def test_the_same_seed_makes_the_same_choices() -> None:
    def choices(seed: int) -> list[float]:
        seen: list[float] = []
        soak = Soak(
            [Idle()], (Item(lambda turn: seen.append(turn.random.random())),), seed, pytest.fail, print, Clock()
        )
        soak.run(30.0, sample_seconds=100.0)
        return seen

    assert choices(1) == choices(1) != choices(2)


# Of generators that are left, and of tasks in threads that pass their limit.
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.name)
def test_every_item_passes_on_a_backend(item: Item, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    name = "mp-fork" if item.needs_processes or item.needs_replacement else "threads"
    with Kinds([name]) as (kind,):
        assert item.suits(kind)
        item.do(Turn(kind, random.Random(1), tmp_path))
        kind.rest()
        let_threads_end(before)


def test_items_that_need_processes_are_not_for_threads() -> None:
    with Kinds(list(KINDS)) as kinds:
        names = {kind.name: {item.name for item in ITEMS if item.suits(kind)} for kind in kinds}
    assert names["loky"] == {item.name for item in ITEMS}
    assert "workers_that_end" not in names["threads"]
    assert "workers_that_end_once" not in names["futures-processes"]
    assert "retries" not in names["faulty-mp"]


def test_an_unknown_backend_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", "--backends", "abacus"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "there is no backend abacus" in done.stderr


def test_every_metric_has_a_limit_and_a_value() -> None:
    with ThreadPoolExecutor(1) as executor:
        executor.submit(threading.get_ident).result()
        sample = measure(Path("/nowhere"))
    assert sample.threads >= 2
    assert sample.rss_mb > 1
    assert all(getattr(sample, name) >= 0 for name in LIMITS)
