"""What has to come out of a program, found with plain loops: no worker, no `parallel`.

Where the semantics leave a choice, so does this: of several tasks that fail, whichever is first in time ends a call;
an ordered generator gives what is before the failure as far as it is there. Nothing else is left open.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.fuzz.outcome import Came, Element, Failure, Note
from tests.fuzz.programs import Array, Block, Call, Flaky, Give, Lock, Look, Nested, Raise, Settings, Task, Unreadable

__all__ = ["ExpectedBlock", "Runs", "evaluate", "key_of"]

#: Exceptions that are wrapped when they are raised: they would mean something else in the caller.
EXITS = ("SystemExit", "GeneratorExit")


def key_of(trail: str, index: int, attempt: int) -> str:
    """Name one run of one task."""
    return f"{trail}/{index}.{attempt}"


@dataclass
class Runs:
    """Which runs of tasks there may be, and have to be."""

    may: set[str] = field(default_factory=set)
    must: set[str] = field(default_factory=set)
    #: Beginnings of the names of those that may run more than once for one attempt.
    may_repeat: set[str] = field(default_factory=set)


@dataclass
class _Expected:
    """What has to come of a task: a value by attempt, or one of the failures that stand."""

    values: dict[int, Any]
    failures: list[Failure]
    most_attempts: int


@dataclass
class ExpectedCall:
    """What has to come of a call."""

    call: Call
    settings: Settings
    trail: str
    tasks: list[_Expected]

    @property
    def input_failure(self) -> Failure | None:
        if self.call.input_fails_at is None:
            return None
        return Failure("InputFailed", f"input of {self.trail}", ())

    def _must_fail(self, index: int) -> bool:
        return not self.settings.return_exceptions and not self.tasks[index].values

    def _may_fail(self, index: int) -> list[Failure]:
        return [] if self.settings.return_exceptions else self.tasks[index].failures

    @property
    def _reach(self) -> int | None:
        """How many results are asked for at most; None for all."""
        return None if self.call.stop is None else self.call.stop.after

    def ways_to_fail(self) -> list[Failure]:
        """Give all failures that the call may raise."""
        if self._reach == 0:
            return []
        # With workers all that is read may fail first, however few results are asked for.
        n_run = len(self.tasks) + 1
        if self.settings.runs_in_caller and self._reach is not None:
            n_run = min(n_run, self._reach)
        found: list[Failure] = []
        for index in range(min(n_run, len(self.tasks))):
            found += map(_raised, self._may_fail(index))
            if self.settings.runs_in_caller and self._must_fail(index):
                return found
        if self.input_failure is not None and n_run > len(self.tasks):
            found.append(self.input_failure)
        return found

    def may_succeed(self) -> bool:
        """Tell whether the call may end without raising."""
        n_good = sum(not self._must_fail(index) for index in range(len(self.tasks)))
        if self._reach is not None and self._reach <= len(self.tasks):
            if self.settings.return_as == "generator_unordered" and not self.settings.runs_in_caller:
                return n_good >= self._reach
            return not any(self._must_fail(index) for index in range(self._reach))
        return n_good == len(self.tasks) and self.input_failure is None

    def problems(self, came: Came, runs: Runs) -> list[str]:
        """Compare with what came, and add to `runs` what must have run for it."""
        found = [*came.oddities]
        indices: list[int] = []
        for element in came.elements:
            index = element.index
            if index is None:  # says nothing of itself: then its place does
                index = self._index_by_place(len(indices), indices)
            if not 0 <= index < len(self.tasks):
                found.append(f"no such task: {element}")
                continue
            indices.append(index)
            found += self._element_problems(index, element, runs)
        if len(set(indices)) != len(indices):
            found.append(f"came twice: {indices}")
        is_partial = self.settings.return_as == "list" and came.end != "end"  # then what came is a dictionary
        is_in_order = self.settings.return_as in ("list", "generator") and not is_partial
        if (is_in_order or self.settings.runs_in_caller) and indices != list(range(len(indices))):
            found.append(f"out of order: {indices}")
        found += self._end_problems(came, indices)
        return [f"{self.trail}: {problem}" for problem in found]

    def _index_by_place(self, place: int, taken: list[int]) -> int:
        if self.settings.return_as != "generator_unordered":
            return place
        silent = [
            index
            for index, expected in enumerate(self.tasks)
            if index not in taken and any(failure.notes is None for failure in expected.failures)
        ]
        return silent[0] if silent else -1

    def _element_problems(self, index: int, element: Element, runs: Runs) -> list[str]:
        expected = self.tasks[index]
        attempt = element.attempt
        if isinstance(element.value, Failure):
            attempt = expected.most_attempts
            if not self.settings.return_exceptions:
                return [f"a failure in the place of a result: {element}"]
            if not any(failure.covers(element.value) for failure in expected.failures):
                return [f"task {index} failed with {element.value}, expected {expected}"]
        runs.must |= {key_of(self.trail, index, each) for each in range(1, attempt + 1)}
        if isinstance(element.value, Failure):
            return []
        if attempt not in expected.values:
            return [f"task {index} has a value after {attempt} attempts, expected {expected}"]
        value = expected.values[attempt]
        if isinstance(value, ExpectedBlock):
            return value.problems(element.value, runs)
        return [] if value == element.value else [f"task {index} gave {element.value!r}, expected {value!r}"]

    def _end_problems(self, came: Came, indices: list[int]) -> list[str]:
        n_came, n_tasks = len(indices), len(self.tasks)
        if came.end == "left":
            return [] if n_came == self._reach else [f"left after {n_came} results, not {self._reach}"]
        if came.end == "end":
            if self.input_failure is not None:
                return ["the failure of the input was lost"]
            return [] if n_came == n_tasks else [f"{n_came} results of {n_tasks}"]
        assert isinstance(came.end, Failure)
        if self._reach is not None and n_came >= self._reach:
            return [f"raised after {n_came} results, though {self._reach} were asked for"]
        if self.input_failure is not None and self.input_failure.covers(came.end):
            is_late = n_came > n_tasks or (self.settings.runs_in_caller and n_came < n_tasks)
            return [f"the input failed after {n_tasks} tasks, and {n_came} results came"] if is_late else []
        culprits = [
            index
            for index in range(n_tasks)
            if any(_raised(failure).covers(came.end) for failure in self._may_fail(index))
        ]
        if not culprits:
            return [f"raised {came.end}, which no task raises: {[self._may_fail(i) for i in range(n_tasks)]}"]
        if came.end.kind == "Frozen" and self.settings.return_as == "list":
            return []  # it takes no attribute either, so nobody can tell what had come by then
        if any(self._may_be_blamed(index, indices) for index in culprits):
            return []
        return [f"raised the failure of one of {culprits}, after the results of {indices}"]

    def _may_be_blamed(self, index: int, indices: list[int]) -> bool:
        if self.settings.runs_in_caller:
            return indices == list(range(index))
        if self.settings.return_as == "generator":
            return len(indices) <= index
        return index not in indices


@dataclass
class ExpectedBlock:
    """What has to come of a block."""

    calls: list[ExpectedCall]
    #: Whether the first failure ends it, so that what came has no failure.
    lets_through: bool

    def ways_to_fail(self) -> list[Failure]:
        """Give all failures that the block may let through."""
        found: list[Failure] = []
        if self.lets_through:
            for call in self.calls:
                found += call.ways_to_fail()
                if not call.may_succeed():
                    break
        return found

    def may_succeed(self) -> bool:
        """Tell whether anything may come of it but a failure."""
        return not self.lets_through or all(call.may_succeed() for call in self.calls)

    def problems(self, came: list[Came], runs: Runs) -> list[str]:
        """Compare with what came of each call."""
        if len(came) != len(self.calls):
            return [f"{len(came)} calls of {len(self.calls)}"]
        found: list[str] = []
        for expected, one in zip(self.calls, came, strict=True):
            found += expected.problems(one, runs)
        return found


def evaluate(block: Block, trail: str, runs: Runs, lets_through: bool = False) -> ExpectedBlock:
    """Evaluate a program one task after the other."""
    calls = []
    for number, call in enumerate(block.calls):
        here = f"{trail}c{number}"
        if any(isinstance(task, Unreadable) for task in call.tasks):
            # A batch of which one result cannot be read tells nothing of the others: they run again.
            runs.may_repeat.add(f"{here}/")
        tasks = [_evaluate_task(task, block.settings, here, index, runs) for index, task in enumerate(call.read)]
        calls.append(ExpectedCall(call, block.settings, here, tasks))
    return ExpectedBlock(calls, lets_through)


def _evaluate_task(task: Task, settings: Settings, trail: str, index: int, runs: Runs) -> _Expected:
    values: dict[int, Any] = {}
    most = settings.retries + 1
    for attempt in range(1, most + 1):
        key = key_of(trail, index, attempt)
        runs.may.add(key)
        may_succeed, value, failures = _evaluate_once(task, settings, trail, key, attempt, runs)
        if may_succeed:
            values[attempt] = value
        if not failures:
            return _Expected(values, [], attempt)
    noted: tuple[Note, ...] = (("task", index),)
    if most > 1:
        noted += (("attempt", most, most),)
    standing = [
        Failure(failure.kind, failure.text, None if failure.notes is None else failure.notes + noted)
        for failure in failures
    ]
    return _Expected(values, standing, most)


def _evaluate_once(
    task: Task, settings: Settings, trail: str, key: str, attempt: int, runs: Runs
) -> tuple[bool, Any, list[Failure]]:
    """Give whether there may be a value, which, and what failures there may be."""
    match task:
        case Give(number):
            return True, number, []
        case Look():
            return True, trail, []
        case Raise(kind):
            return False, None, [FAILURES[kind](key)]
        case Flaky(until):
            return (True, attempt, []) if attempt >= until else (False, None, [FAILURES["lookup"](key)])
        case Array(size, gives):
            index = float(key.rpartition("/")[2].partition(".")[0])
            return True, index * size if gives == "sum" else ("array", (size,), index * size), []
        case Lock() | Unreadable():
            crosses = settings.crosses_processes
            failures = [Failure("ResultPicklingError", None, () if isinstance(task, Lock) else None)]
            return crosses is not True, type(task).__name__, failures if crosses is not False else []
        case Nested(block, lets_through):
            inner = evaluate(block, f"{key}/", runs, lets_through)
            return inner.may_succeed(), inner, inner.ways_to_fail()
    raise AssertionError(task)


def _raised(failure: Failure) -> Failure:
    """Give a failure as the call raises it."""
    if failure.kind in EXITS:
        return Failure("TaskExit", f"a task raised {failure.kind}: {failure.text}", failure.notes)
    return failure


#: By the kind of `Raise`: what is raised by the run of the given name.
FAILURES: dict[str, Any] = {
    "lookup": lambda key: Failure("LookupError", key, ()),
    "os": lambda key: Failure("FileNotFoundError", f"[Errno 2] {key}: 'a file'", ()),
    "three": lambda key: Failure("ThreeArguments", f"{key} in the middle", ()),
    "keyword": lambda key: Failure("KeywordOnly", f"only {key}", ()),
    "lock": lambda key: Failure("HoldsLock", key, ()),
    "frozen": lambda key: Failure("Frozen", key, None),  # takes no notes
    "group": lambda key: Failure("ExceptionGroup", f"{key} (2 sub-exceptions)", ()),
    "exit": lambda key: Failure("SystemExit", key, ()),
    "leave": lambda key: Failure("GeneratorExit", key, ()),
}
