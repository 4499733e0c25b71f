from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import importlib_metadata
import pytest

from parallel import Parallel, _plugins, delayed, register_parallel_backend, register_plugin, unregister_plugin
from parallel._sequential import SequentialBackend
from parallel.errors import BackendConflictError, BackendNotFoundError, ParallelError
from parallel.hookspecs import CallInfo, hookimpl
from tests.core.fakes import HereBackend

Install = Callable[..., Path]

BACKEND = """
from parallel.backend import ParallelBackendBase, resolve_n_jobs

class Backend(ParallelBackendBase):
    def effective_n_jobs(self, n_jobs):
        return resolve_n_jobs(n_jobs)
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put distributions with entry points on sys.path, where the real scan finds them and nothing else."""
    real_entry_points = importlib_metadata.entry_points
    made: list[str] = []

    def scan(group: str) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for entry_point in real_entry_points(group=group):
            if entry_point.value.split(":")[0] in made:
                found.setdefault(entry_point.name, []).append(entry_point)
        return found

    monkeypatch.setattr(_plugins, "_entry_points", functools.cache(scan))

    def make(
        distribution: str, name: str, code: str = BACKEND, group: str = "parallel.backends", folder: str = ""
    ) -> Path:
        module = f"module_of_{distribution.replace('-', '_')}".lower()
        root = tmp_path / (folder or distribution)
        metadata = root / f"{distribution.replace('-', '_')}-1.0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        value = module if group == "parallel.plugins" else f"{module}:Backend"
        (metadata / "entry_points.txt").write_text(f"[{group}]\n{name} = {value}\n")
        (root / f"{module}.py").write_text(code)
        monkeypatch.syspath_prepend(str(root))
        made.append(module)
        return root

    yield make
    for module in made:
        sys.modules.pop(module, None)
    importlib.invalidate_caches()


# -- finding a backend -------------------------------------------------------------------------------------------------


def test_an_installed_backend_is_found_by_its_name(install: Install) -> None:
    install("some-dist", "some")
    assert type(Parallel(backend="some")._backend).__module__ == "module_of_some_dist"


def test_only_the_backend_that_is_asked_for_is_imported(install: Install) -> None:
    install("wanted-dist", "wanted")
    install("broken-dist", "broken", code="raise RuntimeError('imported')")
    Parallel(backend="wanted")
    assert "module_of_broken_dist" not in sys.modules


def test_listing_what_is_installed_imports_nothing(install: Install) -> None:
    install("broken-dist", "broken", code="raise RuntimeError('imported')")
    assert _plugins.installed_backends() == {"broken": "broken-dist", "sequential": "parallel-core"}


def test_a_backend_that_cannot_be_imported_says_where_it_came_from(install: Install) -> None:
    install("broken-dist", "broken", code="raise RuntimeError('imported')")
    with pytest.raises(RuntimeError, match="imported") as caught:
        Parallel(backend="broken")
    assert "broken-dist" in caught.value.__notes__[0]


def test_the_built_in_backend_needs_no_distribution() -> None:
    assert _plugins.backend_factory("sequential") is SequentialBackend
    assert Parallel(n_jobs=4, backend="sequential")(delayed(abs)(i) for i in (-1, -2)) == [1, 2]


def test_a_backend_that_was_installed_after_the_first_question_is_found(install: Install) -> None:
    with pytest.raises(BackendNotFoundError):
        Parallel(backend="late")
    install("late-dist", "late")
    Parallel(backend="late")


# -- errors ------------------------------------------------------------------------------------------------------------


def test_an_unknown_name_lists_what_is_installed(install: Install) -> None:
    install("some-dist", "some")
    register_parallel_backend("mine", HereBackend)
    with pytest.raises(BackendNotFoundError, match="installed: mine, sequential, some") as caught:
        Parallel(backend="other")
    assert caught.value.name == "other"
    assert caught.value.installed == ("mine", "sequential", "some")
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, ParallelError)


@pytest.mark.parametrize(
    ("name", "distribution"),
    [
        ("loky", "parallel-backend-loky"),
        ("mp", "parallel-backend-mp"),
        ("multiprocessing", "parallel-backend-mp"),
        ("threads", "parallel-backend-threads"),
        ("threading", "parallel-backend-threads"),
        ("futures", "parallel-backend-futures"),
    ],
)
def test_for_a_backend_of_ours_that_is_missing_the_error_says_how_to_install_it(name: str, distribution: str) -> None:
    with pytest.raises(BackendNotFoundError, match=f"pip install {distribution}$"):
        Parallel(backend=name)


def test_for_any_other_name_the_error_says_how_backends_come_about() -> None:
    with pytest.raises(BackendNotFoundError, match="register_parallel_backend"):
        Parallel(backend="other")


def test_two_distributions_with_one_name_are_an_error_that_names_both(install: Install) -> None:
    install("first-dist", "same")
    install("second-dist", "same")
    with pytest.raises(BackendConflictError, match="first-dist, second-dist") as caught:
        Parallel(backend="same")
    assert caught.value.name == "same"
    assert caught.value.distributions == ("first-dist", "second-dist")
    assert isinstance(caught.value, ValueError)


def test_a_conflict_is_no_matter_to_those_who_ask_for_another_name(install: Install) -> None:
    install("first-dist", "same")
    install("second-dist", "same")
    install("third-dist", "third")
    Parallel(backend="third")


def test_one_distribution_that_is_found_twice_is_no_conflict(install: Install) -> None:
    install("some-dist", "some", folder="one")
    install("some-dist", "some", folder="two")
    Parallel(backend="some")


def test_one_distribution_in_two_spellings_is_no_conflict(monkeypatch: pytest.MonkeyPatch) -> None:
    class Distribution:
        def __init__(self, name: str) -> None:
            self.name = name

    class Found:
        def __init__(self, name: str) -> None:
            self.dist = Distribution(name)

        def load(self) -> type:
            return HereBackend

    found = [Found("Some.Dist"), Found("some-dist"), Found("some_dist")]
    monkeypatch.setattr(_plugins, "_entry_points", functools.cache(lambda group: {"some": found}))
    assert _plugins.backend_factory("some") is HereBackend


# -- registering -------------------------------------------------------------------------------------------------------


def test_a_registered_backend_is_found_by_its_name() -> None:
    register_parallel_backend("mine", HereBackend)
    assert type(Parallel(backend="mine")._backend) is HereBackend


def test_a_registered_backend_wins_over_an_installed_one_and_over_a_conflict(install: Install) -> None:
    install("first-dist", "same")
    install("second-dist", "same")
    register_parallel_backend("same", HereBackend)
    assert type(Parallel(backend="same")._backend) is HereBackend


def test_a_registered_backend_wins_also_when_the_installed_one_was_used_before(install: Install) -> None:
    install("some-dist", "some")
    Parallel(backend="some")
    register_parallel_backend("some", HereBackend)
    assert type(Parallel(backend="some")._backend) is HereBackend


def test_registering_again_replaces_what_was_registered() -> None:
    register_parallel_backend("mine", SequentialBackend)
    register_parallel_backend("mine", HereBackend)
    assert type(Parallel(backend="mine")._backend) is HereBackend


def test_a_factory_may_be_any_callable() -> None:
    register_parallel_backend("mine", lambda **options: HereBackend(**options))
    assert Parallel(backend="mine", colour="red")._backend.options == {"colour": "red"}


def test_a_registered_backend_becomes_the_default_only_if_it_says_so() -> None:
    register_parallel_backend("mine", HereBackend)
    assert type(Parallel()._backend) is SequentialBackend
    register_parallel_backend("mine", HereBackend, make_default=True)
    assert type(Parallel()._backend) is HereBackend


@pytest.mark.parametrize(("name", "factory"), [(5, HereBackend), (None, HereBackend), ("mine", 5), ("mine", None)])
def test_what_cannot_be_registered_is_a_type_error(name: Any, factory: Any) -> None:
    with pytest.raises(TypeError, match="of a backend is"):
        register_parallel_backend(name, factory)


# -- the default -------------------------------------------------------------------------------------------------------


def test_the_default_is_the_best_that_is_installed() -> None:
    chosen = []
    for name in ("threads", "mp", "loky"):
        chosen.append(_plugins.default_backend_name())
        register_parallel_backend(name, HereBackend)
    chosen.append(_plugins.default_backend_name())
    assert chosen == ["sequential", "threads", "mp", "loky"]


def test_a_need_that_only_other_distributions_serve_says_what_to_install() -> None:
    with pytest.raises(BackendNotFoundError, match="pip install parallel-backend-mp"):
        _plugins.require_for("multiprocessing context")


def test_a_plugin_may_choose_the_default() -> None:
    class Choosing:
        @hookimpl
        def parallel_default_backend(self) -> str:
            return "mine"

    class Undecided:
        @hookimpl
        def parallel_default_backend(self) -> None:
            return None

    register_parallel_backend("mine", HereBackend)
    register_plugin(Choosing())
    register_plugin(Undecided())
    assert type(Parallel()._backend) is HereBackend


# -- hooks -------------------------------------------------------------------------------------------------------------


class Recorder:
    """A plugin that writes down what it is told."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []
        self.calls: list[CallInfo] = []

    @hookimpl
    def parallel_call_started(self, call: CallInfo) -> None:
        self.calls.append(call)
        self.heard.append(("call started",))

    @hookimpl
    def parallel_batch_submitted(self, call: CallInfo, start: int, size: int, worker: int) -> None:
        self.heard.append(("batch submitted", start, size))

    @hookimpl
    def parallel_batch_done(self, call: CallInfo, start: int, size: int, seconds: float) -> None:
        assert seconds >= 0
        self.heard.append(("batch done", start, size))

    @hookimpl
    def parallel_task_failed(self, call: CallInfo, index: int, exception: BaseException) -> None:
        self.heard.append(("task failed", index, type(exception)))

    @hookimpl
    def parallel_call_finished(self, call: CallInfo, error: BaseException | None) -> None:
        assert call is self.calls[-1]
        self.heard.append(("call finished", type(error)))


@pytest.fixture
def recorder() -> Recorder:
    register_parallel_backend("here", HereBackend)
    plugin = Recorder()
    register_plugin(plugin)
    return plugin


def test_a_plugin_hears_of_a_call_and_its_batches(recorder: Recorder) -> None:
    Parallel(n_jobs=2, backend="here", batch_size=3).map(abs, range(5))
    assert recorder.heard[0] == ("call started",)
    assert recorder.heard[-1] == ("call finished", type(None))
    assert set(recorder.heard[1:-1]) == {
        ("batch submitted", 0, 3),
        ("batch submitted", 3, 2),
        ("batch done", 0, 3),
        ("batch done", 3, 2),
    }
    (call,) = recorder.calls
    assert (call.backend, call.n_jobs, call.n_tasks, call.return_as) == ("here", 2, 5, "list")


def test_a_plugin_hears_of_failures(recorder: Recorder) -> None:
    with pytest.raises(ZeroDivisionError):
        Parallel(n_jobs=2, backend="here", batch_size=3).map(lambda i: 1 // i, [1, 0, 1])
    assert ("task failed", 1, ZeroDivisionError) in recorder.heard
    assert recorder.heard[-1] == ("call finished", ZeroDivisionError)


def test_a_plugin_hears_nothing_more_once_it_is_unregistered(recorder: Recorder) -> None:
    unregister_plugin(recorder)
    Parallel(n_jobs=2, backend="here").map(abs, range(5))
    assert recorder.heard == []


def test_what_a_plugin_raises_ends_the_call_and_gives_the_workers_back(recorder: Recorder) -> None:
    class Broken:
        @hookimpl
        def parallel_batch_done(self) -> None:
            raise LookupError("in a plugin")

    register_plugin(Broken())
    backend = HereBackend()
    with pytest.raises(LookupError, match="in a plugin"):
        Parallel(n_jobs=2, backend=backend).map(abs, range(5))
    assert backend.log[-1] == "terminate"
    assert any(entry.startswith("abort_everything") for entry in backend.log)


def test_an_installed_plugin_is_loaded_at_the_first_call(install: Install) -> None:
    code = "heard = []\nfrom parallel.hookspecs import hookimpl\n"
    code += "@hookimpl\ndef parallel_call_started(call):\n    heard.append(call.backend)\n"
    install("plugin-dist", "my-plugin", code=code, group="parallel.plugins")
    assert "module_of_plugin_dist" not in sys.modules
    register_parallel_backend("here", HereBackend)
    Parallel(n_jobs=2, backend="here").map(abs, range(5))
    assert sys.modules["module_of_plugin_dist"].heard == ["here"]


def test_an_installed_plugin_that_cannot_be_loaded_says_where_it_came_from(install: Install) -> None:
    install("plugin-dist", "my-plugin", code="raise RuntimeError('broken')", group="parallel.plugins")
    register_parallel_backend("here", HereBackend)
    with pytest.raises(RuntimeError, match="broken") as caught:
        Parallel(n_jobs=2, backend="here").map(abs, range(5))
    assert any("plugin-dist" in note for note in caught.value.__notes__)


def test_there_is_no_relay_where_nobody_listens() -> None:
    assert _plugins.hooks() is None
