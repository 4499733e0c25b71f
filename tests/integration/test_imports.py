"""What comes along with an import, looked at in a fresh interpreter."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import parallel

#: Must not come along with the core.
HEAVY = {"multiprocessing", "concurrent.futures", "numpy", "loky", "pluggy", "cloudpickle", "asyncio", "socket"}

BACKENDS = {"parallel_backend_threads", "parallel_backend_loky", "parallel_backend_mp", "parallel_backend_futures"}


def modules_after(code: str) -> set[str]:
    """Which modules there are after running `code`."""
    program = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("code", ["import parallel", "from parallel import *"])
def test_importing_parallel_brings_nothing_heavy_and_no_backend(code: str) -> None:
    bare = modules_after("")  # what the interpreter itself, or a .pth file, has imported
    assert modules_after(code) & (HEAVY | BACKENDS) - bare == set()


def test_importing_parallel_brings_no_module_of_its_own_before_it_is_used() -> None:
    assert {name for name in modules_after("import parallel") if name.startswith("parallel.")} == set()


@pytest.mark.parametrize("code", ["parallel.errors.TaskExit", "parallel.backend.Job", "parallel.Parallel"])
def test_what_is_public_is_there_after_the_package_alone_is_imported(code: str) -> None:
    modules_after(f"import parallel\n{code}")


@pytest.mark.parametrize("name", parallel.__all__)
def test_what_the_package_exports_can_be_used(name: str) -> None:
    assert getattr(parallel, name).__name__ == name


def test_a_name_that_the_package_does_not_have() -> None:
    with pytest.raises(AttributeError, match="'parallel' has no attribute 'Paralel'"):
        parallel.Paralel  # noqa: B018
    assert "Parallel" in dir(parallel)


def test_importing_parallel_scans_nothing() -> None:
    found = modules_after("from parallel import *") - modules_after("")
    assert {name for name in found if name.startswith("importlib_metadata")} == set()


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("threads", "parallel_backend_threads"),
        ("loky", "parallel_backend_loky"),
        ("mp", "parallel_backend_mp"),
        ("multiprocessing", "parallel_backend_mp"),
    ],
)
def test_a_backend_by_name_imports_only_its_own_package(name: str, package: str) -> None:
    found = modules_after(f"from parallel import Parallel\nParallel(n_jobs=2, backend={name!r})")
    assert found & BACKENDS == {package}


def test_a_call_on_threads_brings_no_processes() -> None:
    found = modules_after("from parallel import Parallel\nParallel(n_jobs=2, backend='threads').map(abs, range(9))")
    assert found & {"multiprocessing", "loky", "numpy"} == set()


def test_a_sequential_call_brings_no_backend() -> None:
    found = modules_after("from parallel import Parallel\nParallel(n_jobs=1, backend='sequential').map(abs, range(9))")
    assert found & BACKENDS == set()


def test_the_testkit_does_not_bring_pytest_to_the_workers() -> None:
    assert "pytest" not in modules_after("import parallel_testkit._tasks")
