from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from parallel import Parallel, _progress, delayed, register_parallel_backend
from parallel._progress import Meter, format_seconds
from tests.core.fakes import HereBackend


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set by the test."""
    now = [100.0]
    monkeypatch.setattr(_progress, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0s"), (0.31, "0.3s"), (12, "12.0s"), (270, "4.5min"), (7200, "2.0h")]
)
def test_durations_are_written_shortly(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_zero_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    meter = Meter(0, "label")
    meter.update(1, 10, False)
    meter.update(10, 10, True)
    assert capfd.readouterr() == ("", "")


def test_a_line_tells_how_far_it_is_and_how_long_it_will_take(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    meter = Meter(11, "label")
    clock[0] += 5.0
    meter.update(2, 10, False)
    assert capsys.readouterr().err == "[label]: Done  2 out of 10 | elapsed: 5.0s remaining: 20.0s\n"


def test_without_a_total_a_line_tells_what_is_done(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    meter = Meter(11, "label")
    clock[0] += 5.0
    meter.update(2, None, False)
    assert capsys.readouterr().err == "[label]: Done 2 tasks | elapsed: 5.0s\n"


def test_the_last_line_says_that_it_is_the_last(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    meter = Meter(1, "label")
    meter.update(10, 10, True)
    assert capsys.readouterr().err == "[label]: Done 10 out of 10 | elapsed: 0.0s finished\n"


def count_lines(verbose: int, capsys: pytest.CaptureFixture[str]) -> int:
    meter = Meter(verbose, "label")
    for done in range(1, 1001):
        meter.update(done, 1000, False)
    return len(capsys.readouterr().err.splitlines())


def test_above_ten_there_is_a_line_for_every_batch(capsys: pytest.CaptureFixture[str]) -> None:
    assert count_lines(11, capsys) == 1000


def test_up_to_ten_lines_get_rarer_and_more_of_them_come_with_a_higher_number(
    capsys: pytest.CaptureFixture[str],
) -> None:
    one, five, ten = (count_lines(verbose, capsys) for verbose in (1, 5, 10))
    assert 5 < one < five < ten < 1000


def test_below_fifty_lines_go_to_stderr_and_from_fifty_on_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    for verbose in (49, 50):
        Meter(verbose, str(verbose)).update(1, 10, False)
    out, err = capsys.readouterr()
    assert out.startswith("[50]") and err.startswith("[49]")


def test_a_program_without_a_terminal_gets_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    Meter(11, "label").update(1, 10, False)


# -- in a call ---------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["here", "sequential"])
def backend(request: pytest.FixtureRequest) -> str:
    register_parallel_backend("here", HereBackend)
    return str(request.param)


@pytest.mark.parametrize("is_sized", [True, False])
@pytest.mark.parametrize("return_as", ["list", "generator"])
def test_a_verbose_call_ends_with_a_last_line(
    backend: str, is_sized: bool, return_as: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = [delayed(abs)(i) for i in range(5)]
    n_jobs = 1 if return_as == "generator" else 2  # without a thread
    results = Parallel(n_jobs, backend, return_as, verbose=1)(tasks if is_sized else iter(tasks))
    assert list(results) == list(range(5))
    assert "Done 5 out of 5" in capsys.readouterr().err.splitlines()[-1]


def test_a_silent_call_prints_nothing(backend: str, capfd: pytest.CaptureFixture[str]) -> None:
    Parallel(2, backend).map(abs, range(5))
    assert capfd.readouterr() == ("", "")


class Bar(Parallel):
    """A progress bar of a user's, as it is made for joblib."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen: list[tuple[int, int | None]] = []

    def print_progress(self) -> None:
        self.seen.append((self.n_completed_tasks, self.n_tasks))
        assert self.n_completed_tasks <= self.n_dispatched_tasks


def test_an_overridden_print_progress_is_called_after_every_batch(backend: str) -> None:
    bar = Bar(2, backend, batch_size=1)
    bar.map(abs, range(3))
    assert bar.seen == [(1, 3), (2, 3), (3, 3)]


def test_the_counters_start_anew_with_each_call(backend: str) -> None:
    bar = Bar(2, backend, batch_size=1)
    bar.map(abs, range(3))
    bar.map(abs, range(2))
    assert bar.seen[-1] == (2, 2)


def test_the_number_of_tasks_is_unknown_where_the_input_does_not_tell_it(backend: str) -> None:
    def unsized() -> Iterator[int]:
        yield from range(3)

    bar = Bar(2, backend, batch_size=1)
    bar.map(abs, unsized())
    assert bar.seen[0] == (1, None)


def test_what_print_progress_raises_ends_the_call(backend: str) -> None:
    class Broken(Parallel):
        def print_progress(self) -> None:
            raise LookupError

    with pytest.raises(LookupError):
        Broken(2, backend).map(abs, range(3))


def test_lines_are_whole_when_several_calls_print(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

    monkeypatch.setattr(sys, "stderr", Stream())
    Meter(11, "label").update(1, None, False)
    assert len(written) == 1 and written[0].endswith("\n")
