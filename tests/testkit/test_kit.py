"""What the kit says of backends that are broken, and how it says it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.testkit import broken_backends

ROOT = Path(__file__).parents[2]

#: What an author can be asked to wait until the kit has found what is wrong.
FOUND_WITHIN_SECONDS = 60

#: The fault, and what the kit says of it, as a pattern.
FAULTS = {
    "NeverCallsBack": r"NeverCallsBack never calls back: for 5 of 5 jobs",
    "NeverCallsBackNorIsDone": r"NeverCallsBackNorIsDone never calls back",
    "CallsBackTwice": r"CallsBackTwice calls back more than once: 2 times for one job",
    "RaisesInSubmit": r"RaisesInSubmit raises in submit\(\): OSError\('no route to host'\)",
    "WaitsInSubmit": r"WaitsInSubmit blocks in submit\(\): it has not returned after",
    "NeverReturnsFromSubmit": r"NeverReturnsFromSubmit blocks in submit\(\): it has not returned after",
    "SlowInSubmit": r"SlowInSubmit blocks in submit\(\): of 20 calls of it every one took 0\.30 s or more",
    "RunsInSubmit": r"RunsInSubmit blocks in submit\(\): it has not returned after",
    "LosesExceptions": r"LosesExceptions loses exceptions: a task raised LookupError\('of a task'\), and the call gave",
    "LosesExceptionsOfWorkers": r"LosesExceptionsOfWorkers loses exceptions of its infrastructure: a worker was killed",
    "GivesLists": r"GivesLists returns outcomes in a wrong shape: retrieving gave \[0, 1\], a list",
    "GivesNothing": r"GivesNothing returns outcomes in a wrong shape: retrieving gave None",
    "GivesTooFew": r"GivesTooFew returns outcomes in a wrong shape: one for a job of 2 tasks has 0 results",
    "LeaksThreads": r"left behind:\nthreads: .*leaked",
    "IgnoresAbort": r"IgnoresAbort ignores abort: it declares supports_kill, and",
    "IgnoresAbortInThreads": r"IgnoresAbortInThreads ignores abort: after abort_everything\(ensure_ready=True\) tasks",
    "PicklesTheFunctionEveryTime": r"PicklesTheFunctionEveryTime pickles the function every time: 40 times for 40 jobs",
    "SaysMoreThanItHas": r"effective_n_jobs\(2\) gave 2, and of 2 tasks 1 ran at the same time",
    "CallsBackAgainLater": r"CallsBackAgainLater calls back more than once: 2 times for one job",
    "SkipsCallbacksOfFailures": r"SkipsCallbacksOfFailures never calls back: for 1 of \d jobs",
    "SkipsCallbacksOfLostWorkers": r"SkipsCallbacksOfLostWorkers never calls back: for 1 of 1 jobs",
    "IgnoresKill": r"IgnoresKill ignores kill: it declares supports_kill, and",
    "HasTwoAtMost": r"effective_n_jobs\(3\) gave 3, and of 3 tasks 2 ran at the same time",
    "LeaksThreadsUnknownToPython": r"threads of the system: \d+ before, \d+ now, unknown to threading",
    "SaysTwiceAsMany": r"lies about effective_n_jobs",
    "SaysMoreOfAllCpus": r"effective_n_jobs\(-1\) gave 5, and of 5 tasks 2 ran at the same time",
}

SUITE = """
from parallel_testkit import BackendConformance
from tests.testkit import broken_backends


class TestIt(BackendConformance):
    backend = broken_backends.{name}
"""


@pytest.fixture(scope="module")
def hang_seconds() -> float:
    return 300.0


def run_kit(folder: Path, suite: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    file = folder / "test_it.py"
    file.write_text(suite, "utf-8")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", folder, *arguments, file],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=FOUND_WITHIN_SECONDS,
        check=False,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[subprocess.CompletedProcess[str]]]]:
    """The kit on each of them; several at a time, because most of the time it waits for what does not come."""
    folder = tmp_path_factory.mktemp("kit")
    with ThreadPoolExecutor(4) as executor:
        yield {name: executor.submit(run_kit, folder / name, SUITE.format(name=name), "-x") for name in FAULTS}


def test_every_broken_backend_is_tried() -> None:
    names = {
        name
        for name, kind in vars(broken_backends).items()
        if isinstance(kind, type) and kind.__module__ == broken_backends.__name__
    }
    assert names == {"Good", *FAULTS}


@pytest.mark.parametrize("name", FAULTS)
def test_the_kit_names_the_fault(name: str, runs: dict[str, Future[subprocess.CompletedProcess[str]]]) -> None:
    done = runs[name].result()
    assert done.returncode == 1, done.stdout
    text = "\n".join(line[1:].strip() for line in done.stdout.splitlines() if line.startswith("E  "))
    assert re.search(FAULTS[name], text), done.stdout
