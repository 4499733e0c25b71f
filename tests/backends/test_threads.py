from __future__ import annotations

import subprocess
import sys
import threading

from parallel import Parallel, delayed
from parallel_testkit import BackendConformance


class TestThreads(BackendConformance):
    backend = "threads"


def test_the_other_name() -> None:
    assert Parallel(n_jobs=2, backend="threading").map(abs, [-1, -2]) == [1, 2]


def test_no_more_threads_than_tasks() -> None:
    before = threading.active_count()
    counts = Parallel(n_jobs=8, backend="threads", batch_size=1)(delayed(threading.active_count)() for _ in range(2))
    assert max(counts) <= before + 2
    assert threading.active_count() == before


ENDLESS = """
import threading
from parallel import Parallel, delayed

try:
    Parallel(n_jobs=2, backend="threads", timeout=0.1, return_as={mode!r})(
        delayed(threading.Event().wait)() for _ in range(4)
    ).__next__()
except TimeoutError:
    print("limit")
except AttributeError:  # a list
    print("unexpected")
"""


def test_an_endless_task_does_not_keep_the_interpreter_from_exiting() -> None:
    code = ENDLESS.format(mode="generator")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "limit\n", "")
