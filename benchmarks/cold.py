"""Rows of new processes: what an import costs, and the first call.

Times are taken inside the new process, from after the interpreter's own start, so they are over the bare interpreter.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec

from benchmarks.goals import AtMost, AtMostTimes, Goal
from benchmarks.row import Entry, Row, alone

__all__ = ["rows", "run_program"]

#: Nothing here takes longer, on the slowest of machines.
_TIMEOUT_SECONDS = 120

_IMPORT = """\
from time import perf_counter
begin = perf_counter()
{code}
print(perf_counter() - begin)
"""

_FIRST_CALL = """\
from time import perf_counter
{code}
begin = perf_counter()
results = {call}
seconds = perf_counter() - begin
assert results == [0, 1], results
print(seconds)
"""

_OURS = "from parallel import Parallel, delayed"
_JOBLIB = "from joblib import Parallel, delayed"

#: Label to what is imported, and the module that must be there.
_IMPORTS = {
    "parallel": (_OURS, "parallel"),
    "parallel, and mp": (f"{_OURS}; import parallel_backend_mp", "parallel_backend_mp"),
    "joblib": (_JOBLIB, "joblib"),
    "multiprocessing.pool": ("import multiprocessing.pool", "multiprocessing"),
    "concurrent.futures.process": ("import concurrent.futures.process", "concurrent"),
    "loky": ("import loky", "loky"),
    "mpire": ("import mpire", "mpire"),
    "pebble": ("import pebble", "pebble"),
}


def _parallel_call(options: str) -> str:
    return f"Parallel(n_jobs=2, {options})(delayed(abs)(i) for i in range(2))"


#: The same, and the call.
_FIRST_CALLS = {
    "processes": {
        "mp": (_OURS, _parallel_call("backend='mp', start_method='fork'"), "parallel_backend_mp"),
        "joblib/mp": (_JOBLIB, _parallel_call("backend='multiprocessing'"), "joblib"),
        "ProcessPoolExecutor": (
            "from concurrent.futures import ProcessPoolExecutor; import concurrent.futures.process",
            "list(ProcessPoolExecutor(2).map(abs, range(2)))",
            "concurrent",
        ),
        "Pool": ("import multiprocessing.pool", "multiprocessing.Pool(2).map(abs, range(2))", "multiprocessing"),
    },
    "loky": {
        "loky": (_OURS, _parallel_call("backend='loky'"), "parallel_backend_loky"),
        "joblib/loky": (_JOBLIB, _parallel_call("backend='loky'"), "joblib"),
        "loky executor": (
            "from loky import get_reusable_executor",
            "list(get_reusable_executor(max_workers=2).map(abs, range(2)))",
            "loky",
        ),
    },
    "threads": {
        "threads": (_OURS, _parallel_call("backend='threads'"), "parallel_backend_threads"),
        "joblib/threads": (_JOBLIB, _parallel_call("backend='threading'"), "joblib"),
        "ThreadPoolExecutor": (
            "from concurrent.futures import ThreadPoolExecutor",
            "list(ThreadPoolExecutor(2).map(abs, range(2)))",
            "concurrent",
        ),
    },
}

_FIRST_CALL_GOALS: dict[str, tuple[Goal, ...]] = {
    "processes": (AtMost("mp", 0.025),),
    "loky": (AtMostTimes("loky", 1.0, "joblib/loky"),),
    "threads": (),
}


def rows(is_quick: bool) -> list[Row]:
    """Give them."""
    rounds = 2 if is_quick else 11
    imports = Row(
        "import",
        "import, over the bare interpreter",
        tuple(
            _entry(label, _IMPORT.format(code=code)) for label, (code, module) in _IMPORTS.items() if find_spec(module)
        ),
        (AtMost("parallel", 0.035),),
        base="multiprocessing.pool",
        rounds=rounds,
        score=_as_told,
    )
    return [imports, *(_first_call(where, rounds) for where in _FIRST_CALLS)]


def _first_call(where: str, rounds: int) -> Row:
    entries = [
        _entry(label, _FIRST_CALL.format(code=code, call=call))
        for label, (code, call, module) in _FIRST_CALLS[where].items()
        if find_spec(module)
    ]
    base = next((entry.label for entry in entries if entry.label.startswith("joblib")), None)
    return Row(
        f"first-call-{where}",
        f"the first call of two tasks in a new process, after the import, {where}",
        tuple(entries),
        _FIRST_CALL_GOALS[where],
        base=base,
        rounds=rounds,
        score=_as_told,
    )


def _as_told(seconds: float, told: float) -> float:
    return told


def _entry(label: str, program: str) -> Entry:
    is_peer = not program.startswith(_OURS) and _OURS not in program
    return Entry(label, alone(lambda: float(run_program("-c", program))), is_peer=is_peer)


def run_program(*arguments: str) -> str:
    """Run this interpreter with byte code at hand, and give what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = _byte_code_folder()
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=True,
    )
    return done.stdout


@functools.cache
def _byte_code_folder() -> str:
    """Give a folder for the byte code of all programs of this run; the first call of each, untimed, fills it.

    Sources of this repository may never have been compiled, or may not be writable, while a user's packages are
    compiled when they are installed.
    """
    folder = tempfile.mkdtemp(prefix="benchmarks-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
