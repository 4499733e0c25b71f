"""What users get: the built wheels, in fresh environments that hold nothing else."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from tests.wheels.conftest import Environment, MakeEnvironment, build_wheel

pytestmark = pytest.mark.wheels

BACKENDS = ("backend-futures", "backend-loky", "backend-mp", "backend-threads")

#: What ``import parallel`` must not bring along.
HEAVY = ("multiprocessing", "numpy", "loky", "concurrent.futures", "asyncio", "parallel_backend")


@pytest.fixture
def core_alone(environment: MakeEnvironment) -> Environment:
    return environment()


@pytest.fixture
def core_and_threads(environment: MakeEnvironment) -> Environment:
    return environment("backend-threads")


@pytest.fixture
def everything(environment: MakeEnvironment) -> Environment:
    return environment(*BACKENDS, extra="local")


# -- the files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", ["core", "testkit", *BACKENDS])
def test_a_wheel_is_typed_and_brings_its_license(wheels: dict[str, Path], package: str) -> None:
    names = zipfile.ZipFile(wheels[package]).namelist()
    packages = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert len(packages) == 1
    assert f"{packages.pop()}/py.typed" in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


# -- the core alone ----------------------------------------------------------------------------------------------------


def test_the_core_depends_on_four_distributions(core_alone: Environment) -> None:
    assert core_alone.run("""
        from importlib.metadata import requires
        answer = sorted(line.split(">")[0] for line in requires("parallel-core") if "extra ==" not in line)
    """) == ["cloudpickle", "importlib-metadata", "pluggy", "threadpoolctl"]


@pytest.mark.parametrize("which", ["core_alone", "everything"])
def test_importing_parallel_imports_no_backend_and_nothing_heavy(which: str, request: pytest.FixtureRequest) -> None:
    imported = request.getfixturevalue(which).run("""
        import sys, parallel
        answer = sorted(sys.modules)
    """)
    assert "parallel" in imported
    assert [name for name in imported if name.startswith(HEAVY)] == []


def test_the_core_alone_runs_sequentially(core_alone: Environment) -> None:
    assert core_alone.run("""
        import os, warnings
        from parallel import Parallel, delayed
        parallel = Parallel(n_jobs=2)
        with warnings.catch_warnings(record=True) as shown:
            warnings.simplefilter("always")
            in_this_process = set(parallel.map(lambda _: os.getpid(), "ab")) == {os.getpid()}
            values = parallel(delayed(abs)(-i) for i in range(4))
        answer = [values, in_this_process, "no other backend is installed" in str(shown[0].message)]
    """) == [[0, 1, 2, 3], True, True]


def test_asking_for_a_backend_that_is_not_installed_says_how_to_get_it(core_alone: Environment) -> None:
    text = core_alone.run("""
        from parallel import Parallel, delayed
        try:
            Parallel(n_jobs=2, backend="loky")([delayed(abs)(-1)])
        except ValueError as error:
            answer = str(error)
    """)
    assert "pip install parallel-backend-loky" in text
    assert "installed: sequential" in text


def test_asking_for_a_backend_that_nobody_knows_lists_what_is_installed(core_and_threads: Environment) -> None:
    text = core_and_threads.run("""
        from parallel import Parallel, delayed
        try:
            Parallel(n_jobs=2, backend="carrier-pigeon")([delayed(abs)(-1)])
        except ValueError as error:
            answer = str(error)
    """)
    assert "'carrier-pigeon'" in text
    assert "installed: sequential, threading, threads" in text
    assert "loky" not in text


# -- the default -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("packages", "default"),
    [
        (("backend-threads",), "parallel_backend_threads"),
        (("backend-threads", "backend-mp"), "parallel_backend_mp"),
        (BACKENDS, "parallel_backend_loky"),
    ],
)
def test_the_default_backend_is_the_best_installed_one_and_only_that_is_imported(
    environment: MakeEnvironment, packages: tuple[str, ...], default: str
) -> None:
    installed = environment(*packages, extra="local" if packages == BACKENDS else "")
    assert installed.run("""
        import os, sys, threading
        from parallel import Parallel, delayed
        places = Parallel(n_jobs=2)(delayed(lambda: (os.getpid(), threading.get_ident()))() for _ in range(4))
        assert (os.getpid(), threading.get_ident()) not in places, "ran in the caller"
        answer = [name for name in sys.modules if name.startswith("parallel_backend") and "." not in name]
    """) == [default]


# -- all of them -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("loky", "parallel_backend_loky"),
        ("mp", "parallel_backend_mp"),
        ("multiprocessing", "parallel_backend_mp"),
        ("threads", "parallel_backend_threads"),
        ("threading", "parallel_backend_threads"),
    ],
)
def test_a_name_imports_its_own_package_only_and_works(everything: Environment, name: str, module: str) -> None:
    assert everything.run(f"""
        import sys
        from parallel import Parallel
        result = Parallel(n_jobs=2, backend={name!r}).map(lambda n: n * n, range(5))
        answer = [result, [name for name in sys.modules if name.startswith("parallel_backend") and "." not in name]]
    """) == [[0, 1, 4, 9, 16], [module]]


def test_futures_wraps_an_executor(everything: Environment) -> None:
    assert everything.run("""
        import sys
        from concurrent.futures import ThreadPoolExecutor
        from parallel import Parallel
        with ThreadPoolExecutor(2) as executor:
            result = Parallel(backend="futures", executor=executor).map(lambda n: n * n, range(5))
        answer = [result, [name for name in sys.modules if name.startswith("parallel_backend") and "." not in name]]
    """) == [[0, 1, 4, 9, 16], ["parallel_backend_futures"]]


def test_python_m_parallel_says_what_is_there(everything: Environment) -> None:
    report = everything.command("-m", "parallel")
    for name in ("futures", "loky", "mp", "multiprocessing", "sequential", "threading", "threads"):
        assert f"  {name} " in report
    assert "cannot be loaded" not in report


# -- names that clash --------------------------------------------------------------------------------------------------


def test_two_distributions_with_one_name_are_an_error_that_names_both(wheels: dict[str, Path], tmp_path: Path) -> None:
    rival = tmp_path / "rival"
    rival.mkdir()
    (rival / "rival_threads.py").write_text("")
    (rival / "pyproject.toml").write_text("""
        [build-system]
        requires = ["hatchling"]
        build-backend = "hatchling.build"

        [project]
        name = "rival-threads"
        version = "1.0"

        [project.entry-points."parallel.backends"]
        threads = "rival_threads:Backend"
    """)
    wheel = build_wheel(rival, tmp_path / "dist")
    installed = Environment(tmp_path / "venv", [wheels["core"], wheels["backend-threads"], wheel])
    text = installed.run("""
        from parallel import Parallel, delayed
        try:
            Parallel(n_jobs=2, backend="threads")([delayed(abs)(-1)])
        except ValueError as error:
            answer = str(error)
    """)
    assert "'threads'" in text
    assert "parallel-backend-threads" in text
    assert "rival-threads" in text

    # The names that only one of them has, and the rest of the library, work.
    assert installed.run("""
        from parallel import Parallel
        answer = Parallel(n_jobs=2, backend="threading").map(abs, [-1, -2])
    """) == [1, 2]


def test_one_distribution_found_twice_is_no_error(core_and_threads: Environment, tmp_path: Path) -> None:
    assert core_and_threads.run(f"""
        import shutil, sys
        from importlib.metadata import distribution, entry_points
        from pathlib import Path
        site = Path(distribution("parallel-backend-threads").locate_file(""))
        for found in site.glob("parallel_backend_threads*"):
            shutil.copytree(found, Path({str(tmp_path)!r}) / found.name)
        sys.path.append({str(tmp_path)!r})
        from parallel import Parallel
        answer = Parallel(n_jobs=2, backend="threads").map(abs, [-1, -2])
    """) == [1, 2]


def test_what_is_registered_at_run_time_wins_over_an_entry_point(core_and_threads: Environment) -> None:
    assert core_and_threads.run("""
        import sys
        from concurrent.futures import ThreadPoolExecutor
        from parallel import Parallel, ParallelBackendBase, register_parallel_backend

        class Mine(ParallelBackendBase):
            supports_retrieve_callback = True
            def effective_n_jobs(self, n_jobs):
                return n_jobs
            def configure(self, n_jobs=1, parallel=None, **options):
                self.executor = ThreadPoolExecutor(n_jobs, thread_name_prefix="mine")
                return n_jobs
            def submit(self, func, callback):
                future = self.executor.submit(func)
                future.add_done_callback(callback)
                return future
            def terminate(self):
                self.executor.shutdown()

        def thread_name(_):
            import threading
            return threading.current_thread().name[:4]

        register_parallel_backend("threads", Mine)
        answer = [sorted(set(Parallel(n_jobs=2, backend="threads").map(thread_name, range(4)))),
                  "parallel_backend_threads" in sys.modules]
    """) == [["mine"], False]
