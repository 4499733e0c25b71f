"""Draws programs at random."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.fuzz.programs import (
    Array,
    Block,
    Call,
    Flaky,
    Give,
    Lock,
    Look,
    Nested,
    Raise,
    Settings,
    Stop,
    Task,
    Unreadable,
)

__all__ = ["programs"]

#: How deep calls are nested at most.
MAX_DEPTH = 3

#: Tasks of a call, and of one that is nested: there are as many workers for each of its siblings.
MAX_TASKS = 12
MAX_NESTED_TASKS = 4

#: Small, large where the settings say so, and large by default.
SIZES = (3, 500, 140_000)

#: Outermost; and inside of tasks, where new processes for each of them would take most of the time.
BACKENDS = ("threads", "loky", "mp", "futures", "sequential", None)
NESTED_BACKENDS = (*("threads", "sequential", None) * 3, *("mp", "futures") * 2, "loky")

FAILURE_KINDS = ("lookup", "os", "three", "keyword", "lock", "frozen", "group", "exit", "leave")

#: Tasks that succeed, so that calls get to their end.
CALM_TASKS: st.SearchStrategy[Task] = st.one_of(
    st.builds(Give, st.integers(-9, 9)),
    st.builds(Array, st.sampled_from(SIZES), st.sampled_from(["sum", "same", "made"])),
    st.builds(Look),
)

ANY_TASKS: st.SearchStrategy[Task] = st.one_of(
    CALM_TASKS,
    st.builds(Raise, st.sampled_from(FAILURE_KINDS)),
    st.builds(Flaky, st.integers(2, 4)),
    st.sampled_from([Lock(), Unreadable()]),
)


@st.composite
def _settings(draw: st.DrawFn, backends: tuple[str | None, ...]) -> Settings:
    names = ("backend", "n_jobs", "return_as", "batch_size", "pre_dispatch", "retries", "return_exceptions")
    return Settings(
        backend=draw(st.sampled_from(backends)),
        n_jobs=draw(st.sampled_from([2, 3, 1, -1, None])),
        return_as=draw(st.sampled_from(["list", "generator", "generator_unordered"])),
        batch_size=draw(st.sampled_from([None, "auto", 1, 3])),
        pre_dispatch=draw(st.sampled_from([None, 1, "all", "3 * n_jobs"])),
        retries=draw(st.sampled_from([0, 0, 1, 2])),
        return_exceptions=draw(st.booleans()),
        max_nbytes=draw(st.sampled_from([None, 1024])),
        in_config=frozenset(draw(st.sets(st.sampled_from(names), max_size=3))),
    )


@st.composite
def _call(draw: st.DrawFn, return_as: str, depth: int) -> Call:
    is_outermost = depth == 1
    most = MAX_TASKS if is_outermost else MAX_NESTED_TASKS
    tasks = draw(st.lists(draw(st.sampled_from([CALM_TASKS, ANY_TASKS])), max_size=most))
    if depth < MAX_DEPTH and tasks:
        # One or two, or programs would be mostly nesting.
        for position in draw(st.sets(st.integers(0, len(tasks) - 1), max_size=2)):
            tasks[position] = draw(st.builds(Nested, _block(depth + 1), st.booleans()))
    is_sized = draw(st.booleans())
    fails_at = None if is_sized else draw(st.one_of(*[st.none()] * 3, st.integers(0, len(tasks))))
    may_stop = return_as != "list"
    stops = st.builds(Stop, st.integers(0, len(tasks) + 1), st.sampled_from(["close", "drop", "raise"]))
    return Call(
        tasks=tuple(tasks),
        form=draw(st.sampled_from(["delayed", "map", "zip", "starmap"])),
        is_sized=is_sized,
        input_fails_at=fails_at,
        stop=draw(st.one_of(st.none(), stops)) if may_stop else None,
    )


@st.composite
def _block(draw: st.DrawFn, depth: int) -> Block:
    settings = draw(_settings(BACKENDS if depth == 1 else NESTED_BACKENDS))
    calls = draw(st.lists(_call(settings.return_as, depth), min_size=1, max_size=3 if depth == 1 else 2))
    return Block(settings, tuple(calls), draw(st.booleans()))


def programs() -> st.SearchStrategy[Block]:
    """Draw programs."""
    drawn: Any = _block(1)
    return drawn  # type: ignore[no-any-return]
