"""Calls inside tasks, to any depth and in any mixture of backends: right, without a deadlock, within the CPUs."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from parallel import Parallel, cpu_count, delayed, register_plugin, unregister_plugin
from parallel.hookspecs import hookimpl
from parallel_testkit import run_bounded
from tests.integration.programs import Program, finish

BACKENDS = ("threads", "loky", "mp", "futures")

every_backend = pytest.mark.parametrize("backend", BACKENDS)

#: A tree of calls: as many levels as there are backends, each with two workers and three tasks.
PROGRAM = """
def tree(backends, path=()):
    if not backends:
        return [path]
    first, *rest = backends
    if first == "futures":
        with ThreadPoolExecutor(2) as executor:
            found = Parallel(n_jobs=2, backend="futures", executor=executor)(
                delayed(tree)(rest, (*path, i)) for i in range(2)
            )
    else:
        found = Parallel(n_jobs=2, backend=first)(delayed(tree)(rest, (*path, i)) for i in range(2))
    return [leaf for leaves in found for leaf in leaves]
"""

#: Every pair, and mixtures in which each backend is at each level.
MIXTURES = [
    *itertools.product(BACKENDS, repeat=2),
    ("threads", "loky", "threads", "mp"),
    ("loky", "loky", "futures", "threads"),
    ("mp", "threads", "loky", "futures"),
    ("futures", "mp", "mp", "loky"),
]


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    program = Program(tmp_path)
    yield program
    program.close()


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
@pytest.mark.parametrize("mixture", MIXTURES, ids="-".join)
def test_a_tree_of_calls(program: Program, mixture: tuple[str, ...]) -> None:
    process = program.start(
        "threads",
        f"""
found = tree({mixture!r})
print(found == list(itertools.product(range(2), repeat={len(mixture)})))
""",
        "import itertools\nfrom concurrent.futures import ThreadPoolExecutor\n" + PROGRAM,
    )
    assert finish(process) == (0, "True\n", "")
    program.assert_nothing_left(process.pid)


# -- nothing waits for itself ------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:tasks run one after the other:RuntimeWarning")
def test_every_level_uses_the_same_block() -> None:
    with Parallel(n_jobs=2, backend="threads") as parallel:

        def descend(depth: int, number: int) -> int:
            return sum(parallel.map(lambda i: descend(depth - 1, i), range(3))) if depth else number

        assert run_bounded(parallel.map, lambda i: descend(3, i), range(4)) == [27] * 4


@pytest.mark.filterwarnings("ignore:tasks run one after the other:RuntimeWarning")
@pytest.mark.parametrize("n_workers", [1, 2])
def test_every_level_uses_the_same_executor(n_workers: int) -> None:
    with ThreadPoolExecutor(n_workers) as executor:

        def descend(depth: int, number: int) -> int:
            parallel = Parallel(n_jobs=2, backend="futures", executor=executor)
            return sum(parallel.map(lambda i: descend(depth - 1, i), range(3))) if depth else number

        assert run_bounded(descend, 3, 0) == 27


def sum_of_generator(backend: str, mode: str, count: int) -> int:
    return sum(Parallel(n_jobs=2, backend=backend, return_as=mode).map(abs, range(count)))


@pytest.mark.parametrize("backend", ["threads", "loky", "mp"])
@pytest.mark.parametrize("mode", ["generator", "generator_unordered"])
def test_a_generator_inside_a_task(backend: str, mode: str) -> None:
    parallel = Parallel(n_jobs=2, backend=backend)
    found = run_bounded(parallel, [delayed(sum_of_generator)(backend, mode, count) for count in (10, 20, 30)])
    assert found == [45, 190, 435]


class Observer:
    """A plugin that makes calls of its own."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.found: list[list[int]] = []
        self.is_inside = False

    @hookimpl
    def parallel_batch_done(self, call: Any) -> None:
        if not self.is_inside:
            self.is_inside = True
            self.found.append(Parallel(n_jobs=2, backend=self.backend).map(abs, range(3)))
            self.is_inside = False


@pytest.mark.parametrize("backend", ["threads", "loky", "mp"])
def test_a_call_from_an_observer(backend: str) -> None:
    observer = Observer(backend)
    register_plugin(observer)
    try:
        assert run_bounded(Parallel(n_jobs=2, backend=backend).map, abs, range(5)) == [0, 1, 2, 3, 4]
    finally:
        unregister_plugin(observer)
    assert observer.found
    assert all(found == [0, 1, 2] for found in observer.found)


@pytest.mark.parametrize("backend", ["threads", "loky", "mp"])
def test_a_call_of_the_same_object_from_its_progress(backend: str) -> None:
    class Curious(Parallel):
        found: list[list[int]] = []  # noqa: RUF012 - one for the test

        def print_progress(self) -> None:
            if not self.found:
                self.found.append([])
                self.found.append(Parallel(n_jobs=2, backend=backend).map(abs, range(3)))

    with Curious(n_jobs=2, backend=backend) as parallel:
        assert run_bounded(parallel.map, abs, range(5)) == [0, 1, 2, 3, 4]
    assert Curious.found[1] == [0, 1, 2]


# -- the CPUs ----------------------------------------------------------------------------------------------------------


def processes_and_threads(backends: list[str]) -> set[tuple[int, int]]:
    """Give what runs at the leaves of calls that each ask for all CPUs."""
    import threading

    if not backends:
        return {(os.getpid(), threading.get_ident())}
    first, *rest = backends
    found: list[Any] = Parallel(n_jobs=-1, backend=first)(delayed(processes_and_threads)(rest) for _ in range(8))
    return set().union(*found)


@pytest.mark.parametrize("backends", [("threads", "loky", "loky"), ("loky", "threads", "mp"), ("mp", "mp", "threads")])
def test_calls_that_ask_for_all_cpus_have_no_more_than_there_are(backends: tuple[str, ...]) -> None:
    assert len(processes_and_threads(list(backends))) <= cpu_count()


def shares(n_jobs: int) -> tuple[int, list[tuple[int, int]]]:
    import parallel

    found = [parallel.explain(n_jobs=n, backend="mp") for n in (-1, n_jobs)]
    return found[0]["n_jobs"], [(one["n_jobs"], one["inner_threads"]) for one in found]


@pytest.fixture
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host of 8 CPUs, as the caller sees it."""
    monkeypatch.setattr("parallel._cpu._affinity", lambda: 8)
    monkeypatch.setattr("parallel._cpu._cgroup_quota", lambda: 8)


@every_backend
@pytest.mark.usefixtures("eight_cpus")
def test_a_task_has_its_share(backend: str) -> None:
    with ThreadPoolExecutor(2) as executor:
        options = {"executor": executor} if backend == "futures" else {}
        parallel = Parallel(n_jobs=2, backend=backend, **options)
        # Two of eight leave four; those four workers have a thread each; and so have eight, if somebody wants eight.
        assert parallel.map(shares, [8]) == [(4, [(4, 1), (8, 1)])]
        assert parallel.map(shares, [2]) == [(4, [(4, 1), (2, 2)])]


@every_backend
@pytest.mark.usefixtures("eight_cpus")
def test_most_threads_in_a_worker_may_be_said(backend: str) -> None:
    with ThreadPoolExecutor(2) as executor:
        options = {"executor": executor} if backend == "futures" else {}
        parallel = Parallel(n_jobs=2, backend=backend, inner_max_num_threads=3, **options)
        assert parallel.map(shares, [3]) == [(3, [(3, 1), (3, 1)])]
