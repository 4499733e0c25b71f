"""What is defined in a notebook works in the workers: a real Jupyter kernel, driven by its client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

jupyter_client = pytest.importorskip("jupyter_client")
pytest.importorskip("ipykernel")

TIMEOUT_SECONDS = 120

#: How a cell makes its Parallel, by the name of the case.
PROCESS_BACKENDS = {
    "loky": "Parallel(n_jobs=2, backend='loky')",
    "mp-fork": "Parallel(n_jobs=2, backend='mp', start_method='fork')",
    "mp-spawn": "Parallel(n_jobs=2, backend='mp', start_method='spawn')",
    "futures": "Parallel(n_jobs=2, backend='futures', executor=ProcessPoolExecutor(2, get_context('spawn')))",
}

DEFINITIONS = """
    from concurrent.futures import ProcessPoolExecutor
    from dataclasses import dataclass
    from multiprocessing import get_context
    from os import getpid

    from parallel import Parallel, delayed

    FACTOR = 3

    @dataclass
    class Point:
        x: int

        def scaled(self, factor):
            return Point(self.x * factor)

    class Shape:
        def __init__(self, *points):
            self.points = list(points)

        def grown(self):
            return Shape(*(point.scaled(FACTOR) for point in self.points))

    class TooSmall(ValueError):
        def __init__(self, point, limit):
            super().__init__(f"{point} is below {limit}")
            self.point, self.limit = point, limit

    def triple(point):
        return point.scaled(FACTOR)

    def check(point):
        if point.x < 2:
            raise TooSmall(point, 2)
        return point

    def grow_all(drawing):
        return {name: [shape.grown() for shape in shapes] for name, shapes in drawing.items()}
"""


class Notebook:
    """A running kernel; cells are given as text."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def run(self, cell: str) -> str:
        """Run a cell and give what it printed; an error in the cell is an AssertionError here."""
        printed: list[str] = []

        def keep(message: dict[str, Any]) -> None:
            if message["msg_type"] == "stream":
                printed.append(message["content"]["text"])

        reply = self._client.execute_interactive(dedent(cell), output_hook=keep, timeout=TIMEOUT_SECONDS)["content"]
        assert reply["status"] == "ok", "\n".join(reply["traceback"])
        return "".join(printed)


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Notebook]:
    for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    manager, client = jupyter_client.manager.start_new_kernel(startup_timeout=TIMEOUT_SECONDS, cwd=str(tmp_path))
    try:
        yield Notebook(client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
        manager.cleanup_resources()


@pytest.mark.parametrize("backend", PROCESS_BACKENDS)
def test_what_a_notebook_defines_works_in_processes(notebook: Notebook, backend: str) -> None:
    notebook.run(DEFINITIONS)
    notebook.run(f"parallel = {PROCESS_BACKENDS[backend]}")

    # A function, with the global that it reads; results are instances of the notebook's own class.
    notebook.run("""
        results = parallel(delayed(triple)(Point(i)) for i in range(5))
        assert results == [Point(0), Point(3), Point(6), Point(9), Point(12)], results
        assert all(isinstance(result, Point) for result in results)
    """)

    # A lambda, in another process than this one.
    notebook.run("assert getpid() not in parallel.map(lambda _: getpid(), range(4))")

    # A bound method.
    notebook.run("assert parallel.map(Point(2).scaled, [1, 2]) == [Point(2), Point(4)]")

    # Instances deep in containers, there and back.
    notebook.run("""
        drawing = {"red": [Shape(Point(1), Point(2))], "blue": [Shape(), Shape(Point(3))]}
        (grown, again) = parallel.map(grow_all, [drawing, drawing])
        assert isinstance(grown["red"][0], Shape)
        assert all(isinstance(point, Point) for shape in grown["red"] + grown["blue"] for point in shape.points)
        assert [[point.x for point in shape.points] for shape in grown["blue"]] == [[], [9]]
    """)

    # An exception of the notebook's own, whose __init__ takes more than a message.
    notebook.run("""
        try:
            parallel.map(check, [Point(3), Point(1)])
        except TooSmall as error:
            assert (error.point, error.limit) == (Point(1), 2)
        else:
            raise AssertionError("no exception")
    """)

    # A cell that is changed and run again: warm workers must not keep the old definitions.
    notebook.run("""
        FACTOR = 5

        def triple(point):
            return [point.scaled(FACTOR)]
    """)
    notebook.run("assert parallel.map(triple, [Point(1), Point(2)]) == [[Point(5)], [Point(10)]]")


def test_progress_is_shown_in_the_notebook(notebook: Notebook) -> None:
    notebook.run(DEFINITIONS)
    assert "5" in notebook.run("""
        class Shown(Parallel):
            def print_progress(self):
                print(self.n_completed_tasks)

        results = Shown(n_jobs=2, backend="loky").map(triple, [Point(i) for i in range(5)])
    """)
