"""One run of the benchmark: opens who takes part in a row, measures, and keeps what came out."""

from __future__ import annotations

import gc
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from benchmarks.contenders import OpenContenders
from benchmarks.goals import Verdict, judge
from benchmarks.measuring import Measured, Run, measure
from benchmarks.row import Entry, Row

__all__ = ["Result", "as_json", "circumstances", "run", "select"]

_DISTRIBUTIONS = ("parallel-core", "joblib", "loky", "mpire", "pebble", "numpy")


@dataclass(frozen=True, slots=True)
class Result:
    """What came out of a row."""

    row: Row
    measured: Measured
    verdicts: list[Verdict]
    #: Who was left out, and why.
    notes: list[str]
    #: What the row took, with the starts of its contenders.
    seconds: float = 0.0


def select(rows: Sequence[Row], patterns: Sequence[str]) -> list[Row]:
    """Give the rows whose name has one of the patterns in it (as in a shell); all without a pattern."""
    if not patterns:
        return list(rows)
    return [row for row in rows if any(fnmatch(row.name, f"*{pattern}*") for pattern in patterns)]


def run(rows: Sequence[Row], rounds: int | None = None) -> Iterator[Result]:
    """Run the rows one after the other; `rounds` instead of each row's own number of them."""
    gc.collect()
    gc.freeze()  # what was imported is no garbage of anybody, and need not be looked at before each sample
    try:
        with OpenContenders() as contenders:
            for row in rows:
                begin = time.perf_counter()
                result = _run_row(row, contenders, rounds)
                yield replace(result, seconds=time.perf_counter() - begin)
    finally:
        gc.unfreeze()


def _run_row(row: Row, contenders: OpenContenders, rounds: int | None) -> Result:
    missing = [module for module in row.needs if not find_spec(module)]
    if missing:
        return Result(row, Measured(), judge(row.goals, {}, row.unit), [f"{', '.join(missing)} is not installed"])
    notes: list[str] = []
    entries: list[Entry] = []
    for entry in row.entries:
        absent = contenders.missing(entry.contender) if entry.contender is not None else None
        if absent is None:
            entries.append(entry)
        else:
            notes.append(f"{entry.label} left out: {absent} is not installed")
    contenders.keep({(entry.contender, entry.n_jobs) for entry in entries if entry.contender is not None})
    runs: list[Run] = []
    failures: dict[str, str] = {}
    for entry in entries:
        try:
            runs.append(_make_run(row, entry, contenders))
        except Exception as error:  # of one contender: the others go on
            failures[entry.label] = f"{type(error).__name__}: {error}"
    measured = measure(runs, rounds=rounds or row.rounds, sample_seconds=row.sample_seconds, warms_up=row.warms_up)
    measured.failures.update(failures)
    return Result(row, measured, judge(row.goals, measured.samples, row.unit), notes)


def _make_run(row: Row, entry: Entry, contenders: OpenContenders) -> Run:
    pool = contenders.get(entry.contender, entry.n_jobs) if entry.contender is not None else None
    run = Run(entry.label, lambda: entry.action(pool), accepts=row.accepts)
    return run if row.score is None else Run(run.label, run.action, row.score, run.accepts)


def circumstances() -> dict[str, Any]:
    """Tell where and when a run was made."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "command": sys.argv[1:],
        "versions": {name: found for name in _DISTRIBUTIONS if (found := _version(name)) is not None},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def as_json(where: dict[str, Any], results: Sequence[Result]) -> dict[str, Any]:
    """Give all that is known in a form that can be kept; times in seconds, sizes in bytes."""
    return {
        **where,
        "load_after": circumstances()["load"],
        "rows": [
            {
                "name": result.row.name,
                "title": result.row.title,
                "seconds": result.seconds,
                "samples": result.measured.samples,
                "failures": result.measured.failures,
                "goals": [asdict(verdict) for verdict in result.verdicts],
                "notes": result.notes,
            }
            for result in results
        ],
    }
