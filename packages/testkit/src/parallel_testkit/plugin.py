"""The plugin for pytest that comes with the suite: order, bounds of time, and a table at the end.

pytest finds it by its entry point. It concerns tests of classes derived from `parallel_testkit.BackendConformance`
only, which it knows by their marks, so that a run without any pays nothing.

- Tests that look at the contract itself, the probes, run first. Once one has failed all others are skipped: hundreds
  of failures, or of tests that hang, would say nothing more.
- A test that takes longer than the attribute `hang_seconds` of its class fails there and then, and the others of the
  class are skipped. That is done by a signal, so on Windows a test that hangs, hangs.
- After the last test a table for each class: capability, passed, skipped, failed; and why tests were skipped.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections import Counter, defaultdict
from collections.abc import Generator, Iterator
from types import FrameType
from typing import Any

import pytest

__all__ = [
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_runtest_call",
    "pytest_runtest_makereport",
    "pytest_runtest_setup",
    "pytest_runtest_teardown",
    "pytest_sessionfinish",
    "pytest_terminal_summary",
    "pytest_unconfigure",
]

#: The name under which reports carry what the table needs: class, capability.
_PROPERTY = "parallel-conformance"

#: How often a test that hangs is told again: what it does about the first time may hang as well.
_AGAIN_SECONDS = 5.0

#: From the most to the least telling: of the reports of one test the table takes the first.
_OUTCOMES = ("failed", "error", "passed", "skipped")

#: With more classes than that, only those with failures get a table of their own.
_MAX_TABLES = 4


#: Why the other tests of a class are not worth running any more.
_BROKEN = pytest.StashKey[dict[type, str]]()
_STATUS = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    """Make the marks known."""
    config.addinivalue_line("markers", "capability(name): which capability of a backend a conformance test is about")
    config.addinivalue_line("markers", "probe: a conformance test that runs first")
    config.stash[_BROKEN] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let what others need run first within each class."""
    ranks = {item: (0 if item.get_closest_marker("probe") else 1) for item in items if _capability(item)}
    if not ranks:
        return
    # Where the tests of a class begin, so that classes stay in their places.
    begins: dict[type, int] = {}
    for position, item in enumerate(items):
        begins.setdefault(_class(item), position)
    order = {
        item: (begins[_class(item)], ranks[item], position) if item in ranks else (position, 0, position)
        for position, item in enumerate(items)
    }
    items.sort(key=order.__getitem__)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    """Skip what cannot tell anything new, and note what the table needs."""
    name = _capability(item)
    if name is None:
        return (yield)
    kind = _class(item)
    item.user_properties.append((_PROPERTY, [kind.__name__, name]))
    reason = item.config.stash[_BROKEN].get(kind)
    if reason is not None:
        pytest.skip(reason)
    with _bounded(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Bound how long a test may take."""
    if _capability(item) is None:
        return (yield)
    with _bounded(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    """Bound how long what comes after a test may take."""
    if _capability(item) is None:
        return (yield)
    with _bounded(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember what has failed that others need."""
    report = yield
    if report.failed:
        broken = item.config.stash[_BROKEN]
        if call.excinfo is not None and call.excinfo.errisinstance(_Hung):
            broken.setdefault(_class(item), f"not run after {item.name}, which hung")
        elif item.get_closest_marker("probe") is not None:
            broken.setdefault(_class(item), f"not worth running after {item.name}, which failed")
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the tables."""
    suites = _collect(terminalreporter.stats)
    if not suites:
        return
    for name, (table, reasons) in suites.items():
        failed = sum(row["failed"] for row in table.values())
        passed = sum(row["passed"] for row in table.values())
        if len(suites) > _MAX_TABLES and not failed:
            skipped = sum(row["skipped"] for row in table.values())
            terminalreporter.write_line(f"conformance of {name}: {passed} passed, {skipped} skipped")
            continue
        terminalreporter.section(f"conformance of {name}", "-")
        width = max(map(len, table))
        terminalreporter.write_line(f"{'capability':{width}}  passed  skipped  failed")
        for capability, row in table.items():
            line = f"{capability:{width}}  {row['passed']:6}  {row['skipped']:7}  {row['failed']:6}"
            terminalreporter.write_line(line, red=row["failed"] > 0)
        for reason, count in reasons.most_common():
            terminalreporter.write_line(f"skipped {count}: {reason}")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Remember how the run has ended."""
    session.config.stash[_STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End the process where a broken backend has left threads that would keep it from ending, for ever."""
    if not config.stash.get(_BROKEN, None) or _STATUS not in config.stash or hasattr(config, "workerinput"):
        return
    kept = [
        thread.name for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread()
    ]
    if kept:
        print(f"\nthreads that would not end: {', '.join(kept)}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[_STATUS])


# -- the table ---------------------------------------------------------------------------------------------------------

_Table = dict[str, Counter[str]]


def _collect(stats: dict[str, list[Any]]) -> dict[str, tuple[_Table, Counter[str]]]:
    """Give for each class the counts by capability, and the reasons for what was skipped."""
    tests: dict[str, tuple[list[str], str]] = {}
    reasons: dict[str, str] = {}
    for outcome in _OUTCOMES:
        for report in stats.get(outcome, ()):
            about = dict(getattr(report, "user_properties", ())).get(_PROPERTY)
            if about is not None and report.nodeid not in tests:
                tests[report.nodeid] = about, "failed" if outcome == "error" else outcome
                if outcome == "skipped":
                    reasons[report.nodeid] = _reason(report)
    suites: dict[str, tuple[_Table, Counter[str]]] = {}
    for node, ((kind, capability), outcome) in sorted(tests.items(), key=lambda entry: entry[1][0]):
        table, why = suites.setdefault(kind, (defaultdict(Counter), Counter()))
        table[capability][outcome] += 1
        if node in reasons:
            why[reasons[node]] += 1
    return suites


def _reason(report: Any) -> str:
    where = report.longrepr
    text = where[2] if isinstance(where, tuple) else str(where)
    return str(text).removeprefix("Skipped: ")


# -- tests -------------------------------------------------------------------------------------------------------------


def _capability(item: pytest.Item) -> str | None:
    mark = item.get_closest_marker("capability")
    return mark.args[0] if mark is not None and mark.args else None


def _class(item: pytest.Item) -> type:
    return getattr(item, "cls", None) or type(None)


class _Hung(BaseException):
    """A test took too long. No `Exception`, which code under test could swallow."""


def _places() -> str:
    """Tell for each thread in what it is: the innermost functions."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    lines = []
    for ident, frame in sys._current_frames().items():
        inner = [f"{place.name} ({place.filename}:{place.lineno})" for place in traceback.extract_stack(frame)[-4:]]
        lines.append(f"{names.get(ident, ident)}: {' < '.join(reversed(inner))}")
    return "\n".join(lines)


@contextlib.contextmanager
def _bounded(item: pytest.Item) -> Iterator[None]:
    """Raise in the main thread when a part of a test takes too long."""
    seconds = getattr(_class(item), "hang_seconds", None)
    if seconds is None or not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def hang(number: int, frame: FrameType | None) -> None:
        raise _Hung(
            f"{item.name} had not ended after {seconds:g} s: it hangs, or the machine is very slow (hang_seconds). "
            f"Threads are in:\n{_places()}"
        )

    before = signal.signal(signal.SIGALRM, hang)
    signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
