"""Random programs: what comes out of `parallel` is what plain loops say, and nothing stays behind.

``PARALLEL_FUZZ_EXAMPLES=5000 hatch run test tests/fuzz`` tries so many other programs, new ones in each run; without it
the number is small, and the programs are the same in every run.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from parallel import Parallel
from parallel_testkit import LeakCheck, run_bounded
from tests.fuzz.drawing import programs
from tests.fuzz.evaluate import Runs, evaluate
from tests.fuzz.outcome import Came
from tests.fuzz.programs import Block, walk
from tests.fuzz.run import Journal, run

#: About a minute on two cores.
DEFAULT_EXAMPLES = 250

EXAMPLES = int(os.environ.get("PARALLEL_FUZZ_EXAMPLES", "0"))

#: What one program may take; not a measurement: only what hangs should ever reach it.
PROGRAM_SECONDS = 120.0

#: After so many programs all pools that are kept warm are ended, and nothing may be left. Not after each one, which
#: would be a test of how long processes take to start.
PROGRAMS_PER_CHECK = 25

#: Warnings that programs may cause.
EXPECTED_WARNINGS = (
    "a generator of results was closed before its end",
    "tasks run one after the other",
    "This process (pid=",  # of Python 3.12+, at any fork beside threads
)


@pytest.fixture
def hang_seconds() -> float:
    return PROGRAM_SECONDS + 2.0 * max(EXAMPLES, DEFAULT_EXAMPLES)


class Leftovers:
    """Looks from time to time whether anything was left behind."""

    def __init__(self, temp_folder: Path) -> None:
        self._temp_folder = temp_folder
        self._n_programs = 0
        for backend in ("loky", "mp", "threads"):  # starts what is there for good, such as loky's tracker
            Parallel(n_jobs=2, backend=backend).map(abs, range(2))
        self._end_warm()
        self._check = LeakCheck(temp_folder) if LeakCheck.is_available else None

    def one_more(self) -> None:
        self._n_programs += 1
        if self._n_programs % PROGRAMS_PER_CHECK == 0:
            self.check()

    def check(self) -> None:
        self._end_warm()
        if self._check is not None:
            self._check.assert_nothing_left()

    def _end_warm(self) -> None:
        from parallel_backend_loky import _backend as loky_backend

        loky_backend._warm.close_idle()


@pytest.fixture
def leftovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Leftovers]:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    leftovers = Leftovers(folder)
    yield leftovers
    leftovers.check()


def problems_of(program: Block, journal: Journal) -> list[str]:
    """Run a program both ways, and tell how they differ."""
    runs = Runs()
    expected = evaluate(program, "", runs)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        came: list[Came] = run_bounded(run, program, journal, seconds=PROGRAM_SECONDS)
        for thread in threading.enumerate():  # who still may warn
            if thread.name == "parallel-call":
                with contextlib.suppress(RuntimeError):  # is just about to start, in a task that nobody waits for
                    thread.join(PROGRAM_SECONDS)
    problems = expected.problems(came, runs)
    ran = Counter(journal.read())
    if surplus := ran.keys() - runs.may:
        problems.append(f"ran and should not have: {sorted(surplus)}")
    if missing := runs.must - ran.keys():
        problems.append(f"has a result and did not run: {sorted(missing)}")
    repeated = [key for key, count in ran.items() if count > 1]
    if twice := [key for key in repeated if not any(key.startswith(one) for one in runs.may_repeat)]:
        problems.append(f"ran more than once: {sorted(twice)}")
    is_left_early = any(call.stop is not None for call in walk(program))
    for warning in seen:
        text = str(warning.message)
        if not text.startswith(EXPECTED_WARNINGS) or (text.startswith(EXPECTED_WARNINGS[0]) and not is_left_early):
            problems.append(f"warned: {warning.category.__name__}: {text}")
    return problems


# Of a task that goes on in its thread after the failure of another one has ended its call.
@pytest.mark.filterwarnings("ignore:tasks run one after the other:RuntimeWarning")
@pytest.mark.skipif(sys.platform == "win32", reason="the programs have workers that are forked")
def test_programs_come_out_as_plain_loops_do(leftovers: Leftovers, tmp_path: Path) -> None:
    number = 0

    @settings(
        max_examples=EXAMPLES or DEFAULT_EXAMPLES,
        derandomize=not EXAMPLES,
        print_blob=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(programs())
    def compare(program: Block) -> None:
        nonlocal number
        number += 1
        journal = Journal(str(tmp_path / f"journal-{number}"))
        assert problems_of(program, journal) == []
        leftovers.one_more()

    compare()
