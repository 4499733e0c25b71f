"""Large data to worker processes and back: right, the caller's own, and nothing left."""

from __future__ import annotations

import errno
import gc
import multiprocessing
import os
import pickle
import resource
import signal
import tempfile
import threading
import warnings
import weakref
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from parallel import Parallel, delayed
from parallel._rooms import MAX_SPARE
from parallel.errors import TaskTimeoutError
from parallel_testkit import LeakCheck
from tests.files import open_files
from tests.integration import sharing_tasks as tasks
from tests.integration.programs import Program, finish, members_of

pytestmark = pytest.mark.skipif(not LeakCheck.is_available, reason="only on Linux can a process see what it holds")

LIMIT = 10_000
N_BYTES = 80_000

KINDS: dict[str, dict[str, Any]] = {
    "mp-fork": {"backend": "mp", "start_method": "fork"},
    "mp-spawn": {"backend": "mp", "start_method": "spawn"},
    "mp-forkserver": {"backend": "mp", "start_method": "forkserver"},
    "loky": {"backend": "loky"},
    "futures": {"backend": "futures"},
}
every_kind = pytest.mark.parametrize("kind", KINDS)
#: Where a worker can be ended alone.
every_killing_kind = pytest.mark.parametrize("kind", ["mp-fork", "mp-forkserver", "loky"])


@pytest.fixture
def hang_seconds() -> float:
    return 180.0


@pytest.fixture(scope="module")
def executor() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("forkserver")) as executor:
        yield executor


@pytest.fixture
def arguments(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Arguments of `Parallel` for the kind of workers of a test."""
    kind = request.node.callspec.params["kind"]
    extra = {"executor": request.getfixturevalue("executor")} if kind == "futures" else {}
    return {"n_jobs": 2, "max_nbytes": LIMIT, "batch_size": 1, **KINDS[kind], **extra}


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give the folder for temporary files; see to it that a test leaves nothing but warm workers."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    if "kind" in getattr(getattr(request.node, "callspec", None), "params", {}):
        Parallel(**request.getfixturevalue("arguments")).map(abs, range(20))
    check = LeakCheck(folder)
    yield folder
    check.assert_nothing_left()


def large(number: float = 1.0) -> Any:
    return np.full(N_BYTES // 8, number)


def mapped() -> int:
    gc.collect()
    return tasks.held()[2]


# -- values and flags --------------------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("max_nbytes", [0, 1, "64K", None])
def test_every_limit_gives_the_same(arguments: dict[str, Any], kind: str, max_nbytes: Any) -> None:
    values = [large(), bytes(N_BYTES), bytearray(N_BYTES), np.arange(3), b"", np.zeros(0), {"a": [large(2.0)]}, None]
    results = Parallel(**{**arguments, "max_nbytes": max_nbytes}).map(tasks.give, values)
    assert results[1:3] == values[1:3]
    assert [type(result) for result in results] == [type(value) for value in values]
    assert (results[0] == values[0]).all()
    assert results[3].tolist() == [0, 1, 2]
    assert (results[4], results[5].size, results[7]) == (b"", 0, None)
    assert (results[6]["a"][0] == 2.0).all()


@every_kind
@pytest.mark.parametrize(("mode", "writable"), [("r", False), ("c", True), ("r+", True), ("w+", True), (None, True)])
def test_the_mode_says_whether_shared_arguments_can_be_written(
    arguments: dict[str, Any], kind: str, mode: Any, writable: bool
) -> None:
    parallel = Parallel(**arguments, mmap_mode=mode)
    results = parallel.map(tasks.see, [large(), large()[::2], np.arange(3)])
    assert [seen for _, seen in results[::2]] == [writable, True]
    assert all(value.flags.writeable for value, _ in results)
    assert (results[1][0] == large()[::2]).all()


@pytest.mark.parametrize("n_items", [20_000, 1_000_000])
@pytest.mark.parametrize(("mode", "seen"), [("c", [1.0] * 4), ("r+", [1.0, 2.0, 3.0, 4.0])])
@pytest.mark.parametrize("kind", ["mp-fork", "loky"])
def test_what_a_task_writes_is_for_itself_or_for_all_tasks(
    arguments: dict[str, Any], kind: str, mode: str, seen: list[float], n_items: int
) -> None:
    array = np.zeros(n_items)
    assert Parallel(**arguments, mmap_mode=mode, pre_dispatch=1).map(tasks.count_up, [array] * 4) == seen
    assert array[0] == 0.0


@pytest.fixture(scope="module")
def warm() -> Iterator[Parallel]:
    """One pool for all examples; everything is large."""
    with Parallel(2, "mp", start_method="forkserver", max_nbytes=1, batch_size=2) as parallel:
        yield parallel


dtypes = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?"),
    hnp.complex_number_dtypes(endianness="?"),
    hnp.byte_string_dtypes(max_len=5),
    hnp.unicode_string_dtypes(max_len=5, endianness="?"),
    hnp.datetime64_dtypes(endianness="="),
    hnp.timedelta64_dtypes(endianness="="),
    hnp.array_dtypes(hnp.integer_dtypes(), allow_subarrays=True),
    st.just(np.dtype("V7")),
)


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    """Draw an array of some bytes, and perhaps a view of it."""
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
    dtype = draw(dtypes)
    value: Any = np.ones(shape, dtype, order=draw(st.sampled_from("CF")))
    if dtype.kind in "iufcmM":
        value[...] = np.arange(value.size).reshape(shape).astype(dtype)
    if value.ndim and draw(st.booleans()):
        value = np.asarray(value[draw(hnp.basic_indices(value.shape))])
    match draw(st.integers(0, 4)):
        case 0:
            value = value.T
        case 1:
            value = np.broadcast_to(value, (2, *value.shape))
        case 2 if value.ndim and value.shape[-1] > 1:
            value = np.lib.stride_tricks.sliding_window_view(value, 2, axis=-1)
        case 3:
            value = value.view()
            value.flags.writeable = False
    return value


@settings(max_examples=60, deadline=None)
@given(st.lists(arrays(), min_size=1, max_size=6))
def test_any_array_is_there_as_a_plain_pickle_would_have_it(warm: Parallel, values: list[Any]) -> None:
    plain = pickle.loads(pickle.dumps(values, 5))
    seen = warm.map(tasks.flags_of, values)
    results = warm.map(tasks.give, values)
    for value, expected, arrived, result in zip(values, plain, seen, results, strict=True):
        assert arrived[5] == tasks.flags_of(result)[5] == tasks.flags_of(expected)[5]
        if value.flags.c_contiguous or value.flags.f_contiguous:
            assert arrived == tasks.flags_of(result) == tasks.flags_of(expected)
            assert result.flags.writeable


SUBCLASSES: dict[str, Any] = {
    "masked": np.ma.array(np.arange(5000.0), mask=[True, False] * 2500, fill_value=7),
    "matrix": np.ones((100, 100)).view(np.matrix),
    "records": np.ones(5000, [("a", "i8"), ("b", "f8")]).view(np.recarray),
    "objects": np.array([large(), "text", None], dtype=object),
    "text": np.array(["text"] * 5000),
}


@every_kind
def test_other_arrays_of_numpy(arguments: dict[str, Any], kind: str) -> None:
    names = list(SUBCLASSES)
    found = dict(zip(names, Parallel(**arguments).map(tasks.give, SUBCLASSES.values()), strict=True))
    for name in names:
        assert type(found[name]) is type(SUBCLASSES[name])
        assert found[name].dtype == SUBCLASSES[name].dtype
    assert (found["masked"].mask == SUBCLASSES["masked"].mask).all()
    assert found["masked"].fill_value == 7
    assert (found["masked"].data == SUBCLASSES["masked"].data).all()
    assert (found["objects"][0] == large()).all()
    for name in ("matrix", "records", "text"):
        assert found[name].tobytes() == SUBCLASSES[name].tobytes()


def frame() -> pd.DataFrame:
    n = 3000
    return pd.DataFrame(
        {
            "number": np.arange(n),
            "fraction": np.linspace(0, 1, n),
            "text": [f"item {i}" for i in range(n)],
            "kind": pd.Categorical(["x", "y", "z"] * (n // 3)),
            "time": pd.date_range("2020", periods=n, tz="UTC"),
            "maybe": pd.array([1, None] * (n // 2), dtype="Int64"),
            "arrow": pd.array(["a", None] * (n // 2), dtype="string[pyarrow]"),
            "object": [{"i": i} for i in range(n)],
        }
    )


@every_kind
def test_a_frame_with_columns_of_all_kinds(arguments: dict[str, Any], kind: str) -> None:
    value = frame()
    parallel = Parallel(**arguments)
    (result,) = parallel.map(tasks.give, [value])
    pd.testing.assert_frame_equal(result, value)
    part = value.iloc[100:2000:3]
    (result,) = parallel.map(tasks.give, [part])
    pd.testing.assert_frame_equal(result, part)
    numbers = value[["number", "fraction", "kind"]]
    assert (
        parallel.map(tasks.describe_frame, [{"frame": numbers}] * 3) == [tasks.describe_frame({"frame": numbers})] * 3
    )


@every_kind
def test_tables_and_their_slices(arguments: dict[str, Any], kind: str) -> None:
    table = pa.table({"a": np.arange(9000), "b": [f"item {i}" for i in range(9000)], "c": pa.array([None, 1.5] * 4500)})
    values = [table, table.slice(17, 5000), pa.concat_tables([table, table.slice(5)])]
    parallel = Parallel(**arguments)
    assert all(found.equals(value) for found, value in zip(parallel.map(tasks.give, values), values, strict=True))
    assert parallel.map(tasks.describe_table, values) == [tasks.describe_table(value) for value in values]


@every_kind
def test_functions_bring_large_data_along(arguments: dict[str, Any], kind: str) -> None:
    parallel = Parallel(**arguments)
    weights, text = np.arange(10_000.0), b"x" * N_BYTES
    expected = [(float(i), N_BYTES) for i in range(30)]
    assert parallel.map(tasks.Model(weights, text), range(30)) == expected
    assert parallel.map(lambda i: (float(weights[i]), len(text)), range(30)) == expected
    assert parallel.map(tasks.Model(weights[::2], "x" * N_BYTES), range(30)) == [(2.0 * i, N_BYTES) for i in range(30)]
    assert parallel.map(partial(tasks.first, weights), range(5)) == [0.0] * 5


@pytest.mark.parametrize("kind", ["mp-forkserver", "loky"])
def test_views_of_anything(arguments: dict[str, Any], kind: str, tmp_path: Path) -> None:
    file = np.memmap(tmp_path / "file", "f8", "w+", shape=(300, 300))
    file[:] = np.arange(90_000).reshape(300, 300)
    records: Any = np.ones(9000, [("a", "f8"), ("b", "f8")]).view(np.recarray)
    records.a = np.arange(9000.0)
    values = [
        np.lib.stride_tricks.sliding_window_view(np.arange(5000.0), 20),
        np.lib.stride_tricks.as_strided(np.arange(5000.0), (1000, 300), (16, 8)),
        np.broadcast_to(np.arange(300.0), (100, 300)),
        np.asarray(file)[::2, ::3],
        file[::-1],
        np.asarray(records.a),
        np.asarray(np.array(file).view(np.matrix))[:, ::2],
        np.arange(90_000.0).reshape(30, 30, 100).transpose(1, 0, 2),
        np.frombuffer(bytes(N_BYTES + 3), "f8", offset=3),
    ]
    for mode in ("r", "c"):
        results = Parallel(**arguments, mmap_mode=mode).map(tasks.give, values)
        assert all(np.array_equal(result, value) for result, value in zip(results, values, strict=True))


# -- arrays that are mapped from a file --------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("mode", ["r", "r+", "c", "w+"])
def test_mapped_files(arguments: dict[str, Any], kind: str, mode: Any, tmp_path: Path) -> None:
    np.arange(20_000.0).tofile(tmp_path / "file")
    value = np.memmap(tmp_path / "file", "f8", mode, shape=20_000)
    if mode == "w+":
        value[:] = np.arange(20_000.0)
    views = [value, value[1000:], value.reshape(100, 200).T, value[::-1], value[:3]]
    results = Parallel(**arguments).map(tasks.give, views)
    assert all(np.array_equal(result, view) for result, view in zip(results, views, strict=True))


@every_kind
@pytest.mark.parametrize("max_nbytes", [LIMIT, None])
@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_mapped_file_that_goes_during_the_call(
    arguments: dict[str, Any], kind: str, max_nbytes: int | None, is_replaced: bool, tmp_path: Path
) -> None:
    name = tmp_path / "file"
    value = np.memmap(name, "f8", "w+", shape=20_000)
    value[:] = 3.0
    model = tasks.Model(value, b"")

    def input_of(make_task: Any) -> Iterator[Any]:
        for i in range(12):
            if i == 5 and name.exists():
                name.rename(tmp_path / "old")
                if is_replaced:
                    np.zeros(20_000).tofile(name)
            yield make_task(i)

    parallel = Parallel(**{**arguments, "max_nbytes": max_nbytes})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "large data travels through the pipe.*cannot open it")
        assert parallel(input_of(lambda _: delayed(tasks.first)(value))) == [3.0] * 12
        (tmp_path / "old").replace(name)
        assert parallel(input_of(lambda i: delayed(model)(i))) == [(3.0, 0)] * 12


# -- data that changes -------------------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("n_items", [100, 20_000, 1_000_000])
def test_what_is_changed_between_two_calls_is_seen_changed(arguments: dict[str, Any], kind: str, n_items: int) -> None:
    array = np.zeros(n_items)
    with Parallel(**arguments) as parallel:
        for i in range(3):
            array[0] = i
            assert parallel.map(tasks.first, [array] * 3) == [i] * 3
            assert parallel.map(partial(tasks.first, array), range(3)) == [i] * 3


@every_kind
@pytest.mark.parametrize("n_items", [20_000, 1_000_000])
@pytest.mark.parametrize("return_as", ["list", "generator"])
def test_a_generator_may_refill_its_array(arguments: dict[str, Any], kind: str, n_items: int, return_as: str) -> None:
    array = np.zeros(n_items)

    def refill() -> Iterator[Any]:
        for i in range(20):
            array[:] = i
            yield array

    results = list(Parallel(**arguments, return_as=return_as).map(tasks.ends, refill()))
    assert results == [(i, i, i) for i in range(20)]


# -- memory ------------------------------------------------------------------------------------------------------------


@every_kind
def test_live_results_hold_no_descriptor_and_are_safe_from_a_fork(arguments: dict[str, Any], kind: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with Parallel(**arguments) as parallel:
        within = len(os.listdir("/proc/self/fd"))
        results = parallel.map(partial(tasks.make, 16_000), range(2000))
        assert len(os.listdir("/proc/self/fd")) == within
    assert len(os.listdir("/proc/self/fd")) <= before
    results[5][:] = -1
    child = os.fork()
    if child == 0:
        for result in results:
            result[:] = 99
        os._exit(0)
    os.waitpid(child, 0)
    assert all((result == (i if i != 5 else -1)).all() for i, result in enumerate(results))


@every_kind
def test_many_calls_leave_nothing_mapped_and_no_descriptor(arguments: dict[str, Any], kind: str) -> None:
    array = large()
    with Parallel(**arguments) as parallel:
        before = {pid: n for pid, n, _ in parallel.map(tasks.held, range(30))}
        n_mine, n_mapped_here = tasks.held()[1], mapped()
        for _ in range(100):
            assert len(parallel.map(partial(tasks.add, array), range(4))) == 4
        assert mapped() == n_mapped_here
        assert tasks.held()[1] <= n_mine
        for pid, n_descriptors, n_mapped in parallel.map(tasks.held, range(30)):
            assert n_mapped == 0
            assert n_descriptors <= before.get(pid, n_descriptors)


@pytest.mark.parametrize("kind", ["mp-forkserver", "loky"])
def test_dropped_results_are_given_back_without_the_garbage_collector(arguments: dict[str, Any], kind: str) -> None:
    with Parallel(**arguments) as parallel:
        before = mapped()
        gc.disable()
        try:
            results = parallel.map(partial(tasks.make, N_BYTES), range(20))
            assert tasks.held()[2] > before
            del results
            assert tasks.held()[2] == before
        finally:
            gc.enable()


@pytest.mark.parametrize("kind", ["mp-forkserver"])
def test_a_part_of_something_large_does_not_keep_all_of_it(arguments: dict[str, Any], kind: str) -> None:
    with Parallel(**arguments) as parallel:
        (result,) = parallel.map(lambda i: np.zeros(800_000)[i : i + 100_000], [0])
        size = 0
        with open("/proc/self/maps") as lines:
            for line in lines:
                if "parallel-results" in line:
                    begin, end = (int(number, 16) for number in line.split()[0].split("-"))
                    size += end - begin
        assert result.nbytes <= size < 2 * result.nbytes


# -- refusals ----------------------------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize(
    ("call", "number"), [("memfd_create", errno.EMFILE), ("memfd_create", errno.ENOMEM), ("pwrite", errno.ENOSPC)]
)
def test_what_the_system_refuses_goes_through_the_pipe_with_one_warning(
    arguments: dict[str, Any], kind: str, call: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise OSError(number, os.strerror(number))

    array, text = large(), b"x" * N_BYTES
    with Parallel(**arguments) as parallel:
        parallel.map(abs, range(20))
        with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", RuntimeWarning)
            patch.setattr(os, call, refuse)
            results = parallel(delayed(tasks.add)(array, i) for i in range(8))
            assert parallel.map(lambda i: (array[i], len(text)), range(8)) == [(1.0, N_BYTES)] * 8
    assert all((result == 1.0 + i).all() for i, result in enumerate(results))
    shared = [str(warning.message) for warning in caught if warning.category is RuntimeWarning]
    assert len(shared) == 2  # one for each call
    assert all("cannot be shared" in text for text in shared)


@every_kind
def test_results_without_room_come_through_the_pipe_with_one_warning(
    arguments: dict[str, Any], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with Parallel(**arguments) as parallel:
        parallel.map(abs, range(20))
        with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", RuntimeWarning)
            patch.setattr(os, "memfd_create", refuse)
            results = parallel(delayed(np.full)(N_BYTES // 8, float(i)) for i in range(8))
    assert all((result == i).all() and result.flags.writeable for i, result in enumerate(results))
    (warning,) = [str(warning.message) for warning in caught if warning.category is RuntimeWarning]
    assert "no memory for results" in warning


#: How a program starts that has few descriptors.
FEW = """
import numpy as np, resource
from tests.integration import sharing_tasks as tasks
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
"""

IN_PROGRAMS = pytest.mark.parametrize("backend", ["loky", "mp-fork", "mp-forkserver"])


@pytest.fixture
def program(tmp_path: Path, nothing_left: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]))
    (tmp_path / "program").mkdir()
    program = Program(tmp_path / "program")
    yield program
    program.close()


@IN_PROGRAMS
def test_few_descriptors_are_enough(program: Program, backend: str) -> None:
    process = program.start(
        backend,
        """
warnings.simplefilter("error")
arrays = [np.full(10_000, i, float) for i in range(100)]
with make(max_nbytes=10_000) as parallel:
    for _ in range(3):
        results = parallel(delayed(tasks.add)(array, 1) for array in arrays)
        assert all((result == i + 1).all() for i, result in enumerate(results))
    kept = parallel.map(tasks.give, arrays * 5)
print(sum(result[0] for result in kept))
""",
        FEW,
    )
    assert finish(process) == (0, "24750.0\n", "")
    program.assert_nothing_left(process.pid)


def shared_memory(processes: Iterable[int | str]) -> set[str]:
    """Give the names of what processes have mapped that was made for sharing."""
    found = set()
    for process in processes:
        try:
            lines = Path(f"/proc/{process}/maps").read_text().splitlines()
        except OSError:  # it has ended
            continue
        found |= {line.split(None, 5)[5] for line in lines if "memfd:parallel-data" in line}
    return found


@pytest.mark.parametrize(
    "backend", [*IN_PROGRAMS.args[1], "backend='futures', executor=concurrent.futures.ProcessPoolExecutor(2)"]
)
def test_nothing_is_left_of_what_a_killed_program_shared(program: Program, backend: str) -> None:
    process = program.start(
        backend,
        """
array = np.ones(1_000_000)
def stuck(array):
    mailbox.send(os.getpid())
    gate.wait()
make()(delayed(stuck)(array) for _ in range(4))
""",
        "import concurrent.futures, numpy as np",
    )
    program.mailbox.receive(2)
    shared = shared_memory(members_of(process.pid))
    assert shared
    process.kill()
    assert finish(process)[0] == -signal.SIGKILL
    program.assert_nothing_left(process.pid)
    assert not shared & shared_memory(path.name for path in Path("/proc").glob("[0-9]*"))
    assert list(program.temp.glob("parallel-*")) == []


def test_workers_without_address_space_read_what_they_cannot_map(monkeypatch: pytest.MonkeyPatch) -> None:
    def limit_memory(_: int) -> None:
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (300 << 20), used + (300 << 20)))

    sparse = np.zeros(50 << 20, "u1")
    with Parallel(2, "mp", start_method="fork", batch_size=1) as parallel:
        parallel.map(limit_memory, range(20))
        assert parallel.map(len, [sparse] * 10) == [50 << 20] * 10


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def files_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller believes that it has no anonymous memory; workers go where an address leads."""
    monkeypatch.setattr("parallel._region.has_anonymous", lambda: False)


@every_kind
@pytest.mark.usefixtures("files_only")
@pytest.mark.parametrize("where", ["argument", "environment", "system"])
def test_files_are_in_a_private_folder_and_gone_after_the_call(
    arguments: dict[str, Any],
    kind: str,
    where: str,
    nothing_left: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = nothing_left if where == "system" else tmp_path / "files"
    folder.mkdir(exist_ok=True)
    if where == "environment":
        monkeypatch.setenv("PARALLEL_TEMP_FOLDER", str(folder))
    temp_folder = str(folder) if where == "argument" else None
    array = large()
    with Parallel(**arguments, temp_folder=temp_folder) as parallel:
        for modes in parallel(delayed(tasks.modes_below)(str(folder), array) for _ in range(4)):
            own = [mode for mode in modes if mode in ((True, 0o700), (False, 0o600))]
            assert (True, 0o700) in own
            assert (False, 0o600) in own
        results = parallel(delayed(tasks.add)(array, i) for i in range(10))
        with pytest.raises(ZeroDivisionError):
            parallel(delayed(tasks.fail_at)(3, array, i) for i in range(10))
        assert [path for path in folder.iterdir() if path.name.startswith("parallel-")] == []
    assert all((result == 1.0 + i).all() for i, result in enumerate(results))
    assert all(result.flags.writeable for result in results)


@pytest.mark.parametrize("kind", ["mp-forkserver", "loky", "futures"])
@pytest.mark.usefixtures("files_only")
def test_a_folder_that_cannot_be_used_costs_a_warning(arguments: dict[str, Any], kind: str, tmp_path: Path) -> None:
    array = large()
    parallel = Parallel(**arguments, temp_folder=str(tmp_path / "nowhere"))
    with pytest.warns(RuntimeWarning, match="cannot be shared") as caught:
        results = parallel(delayed(tasks.add)(array, i) for i in range(10))
    assert len(caught) == 1
    assert all((result == 1.0 + i).all() for i, result in enumerate(results))


@pytest.mark.parametrize("kind", ["mp-forkserver"])
@pytest.mark.usefixtures("files_only")
def test_a_large_result_through_files_can_be_written_and_is_safe_from_a_fork(
    arguments: dict[str, Any], kind: str
) -> None:
    (result,) = Parallel(**arguments).map(tasks.give, [large()])
    result[0] = 5.0
    child = os.fork()
    if child == 0:
        result[1] = 5.0
        os._exit(0)
    os.waitpid(child, 0)
    assert result[:2].tolist() == [5.0, 1.0]


# -- faults ------------------------------------------------------------------------------------------------------------


@every_killing_kind
def test_a_worker_that_is_killed_with_shared_data_costs_nothing(
    arguments: dict[str, Any], kind: str, tmp_path: Path
) -> None:
    before, array = mapped(), large()
    parallel = Parallel(**arguments, retries=3)
    results = parallel(delayed(tasks.kill_once)(str(tmp_path / "marker"), array, i) for i in range(10))
    assert all((result == 1.0 + i).all() for i, result in enumerate(results))
    del results, parallel
    assert mapped() == before


@every_killing_kind
@pytest.mark.parametrize("mode", ["list", "generator_unordered"])
def test_a_task_that_passes_its_limit_with_shared_data_costs_its_own_result(
    arguments: dict[str, Any], kind: str, mode: str
) -> None:
    before, array = mapped(), large()
    parallel = Parallel(**arguments, timeout=1.0, return_exceptions=True, return_as=mode)
    results = list(parallel(delayed(tasks.hang_at)(2, array, i) for i in range(6)))
    errors = [result for result in results if isinstance(result, BaseException)]
    assert [type(error) for error in errors] == [TaskTimeoutError]
    arrived = sorted(float(result[0]) for result in results if not isinstance(result, BaseException))
    assert arrived == [1.0, 2.0, 4.0, 5.0, 6.0]
    del results, errors, parallel
    assert mapped() == before


@every_kind
def test_failures_beside_large_results(arguments: dict[str, Any], kind: str) -> None:
    array = large()
    results = Parallel(**{**arguments, "batch_size": 4}, return_exceptions=True)(
        delayed(tasks.fail_at)(5, array, i) for i in range(12)
    )
    assert isinstance(results[5], ZeroDivisionError)
    assert all((result == 1.0 + i).all() for i, result in enumerate(results) if i != 5)


def leave_a_generator(arguments: dict[str, Any], array: Any) -> None:
    with Parallel(**arguments, return_as="generator") as parallel:
        results = parallel(delayed(tasks.add)(array, i) for i in range(100))
        assert (next(results) == 1.0).all()
        results.close()


@every_kind
def test_a_generator_that_is_left_gives_everything_back(arguments: dict[str, Any], kind: str) -> None:
    before, array = mapped(), large()
    with pytest.warns(RuntimeWarning, match="closed before its end"):  # it comes with the end of the block
        leave_a_generator(arguments, array)
    # An executor's thread may be at what was on its way; behind this there is nothing any more.
    assert Parallel(**arguments).map(abs, range(10)) == list(range(10))
    assert mapped() == before


@every_kind
def test_what_cannot_be_sent_back_costs_its_own_result(arguments: dict[str, Any], kind: str) -> None:
    results = Parallel(**{**arguments, "batch_size": 3}, return_exceptions=True)(
        delayed(lambda i: [np.full(5000, i), threading.Lock() if i == 1 else None])(i) for i in range(6)
    )
    assert isinstance(results[1], Exception)
    assert all((result[0] == i).all() for i, result in enumerate(results) if i != 1)


# -- how much is on its way --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_nbytes", [None, 1000])
def test_arrays_that_are_made_one_by_one_are_not_all_in_memory_at_a_time(max_nbytes: int | None) -> None:
    alive: dict[int, Any] = {}
    most = 0

    def arrays() -> Iterator[Any]:
        nonlocal most
        for number in range(300):
            array = np.full(125_000, float(number))
            alive[number] = weakref.ref(array, lambda _, number=number: alive.pop(number))
            most = max(most, len(alive))
            yield delayed(len)(array)

    results = Parallel(n_jobs=2, backend="mp", max_nbytes=max_nbytes)(arrays())
    assert results == [125_000] * 300
    # A batch of 16 MB waits, and two for each worker are on their way; what is behind is freed as it comes back.
    assert most <= 6 * 16


def test_a_block_keeps_rooms_until_its_end() -> None:
    before = open_files()
    with Parallel(n_jobs=2, backend="mp") as parallel:
        parallel.map(abs, range(10))
        inside = open_files()
        assert before < inside <= before + MAX_SPARE
        assert [array.sum() for array in parallel.map(np.full, [100_000] * 20, [1.0] * 20)] == [100_000.0] * 20
        parallel.map(abs, range(10))
        assert open_files() <= before + MAX_SPARE
    assert open_files() == before
