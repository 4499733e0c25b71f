from __future__ import annotations

import json
import pickle
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel import Parallel, delayed, parallel_config
from parallel._codec import Codec, check_compression, check_serializer
from parallel.backend import Job, ParallelBackendBase, run_payload
from parallel.errors import ResultPicklingError, TaskPicklingError


class FarBackend(ParallelBackendBase):
    """Sends payloads to a thread that stands for another host, and keeps what went over the wire."""

    supports_retrieve_callback = True
    wire = "bytes"
    uses_codec = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.sent: list[int] = []
        self.brought: list[int] = []

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        return 2

    def submit(self, func: Job, callback: Callable[[Any], None]) -> None:
        payload = func.payload

        def run() -> None:
            outcome = run_payload(payload)
            self.sent.append(len(payload))
            self.brought.append(len(outcome))
            callback(outcome)

        threading.Thread(target=run).start()

    def retrieve_result_callback(self, outcome: bytes) -> bytes:
        return outcome


class NearBackend(FarBackend):
    uses_codec = False


class JsonSerializer:
    """Knows data only: lists, numbers, texts."""

    def dumps(self, value: object) -> bytes:
        return json.dumps(value).encode()

    def loads(self, data: bytes | memoryview) -> Any:
        return json.loads(bytes(data))


every_compression = pytest.mark.parametrize("compression", ["zlib", "lz4", "zstd"])


@every_compression
@given(value=st.binary(max_size=300) | st.text(max_size=300) | st.lists(st.integers()), threshold=st.integers(0, 200))
def test_what_was_compressed_comes_back(compression: str, value: object, threshold: int) -> None:
    codec = Codec("cloudpickle", compression, threshold)
    assert codec.loads(codec.dumps(value)) == value


@every_compression
def test_only_what_is_large_and_gets_smaller_is_compressed(compression: str) -> None:
    codec = Codec("pickle", compression, 1000)
    assert len(codec.dumps(bytes(100_000))) < 2000
    assert len(codec.dumps(bytes(900))) > 900
    noise = b"".join(pickle.dumps(hash((i, "x"))) for i in range(1000))
    assert len(codec.compress(noise)) <= len(noise) + 1


@every_compression
def test_large_arguments_and_results_are_smaller_on_the_wire(compression: str) -> None:
    backend = FarBackend()
    parallel = Parallel(n_jobs=2, backend=backend, compression=compression, batch_size=1)
    assert parallel.map(bytes.upper, [b"a" * 1_000_000] * 3) == [b"A" * 1_000_000] * 3
    assert max(backend.sent) < 50_000
    assert max(backend.brought) < 50_000


def test_the_function_of_a_call_is_compressed_too() -> None:
    backend = FarBackend()
    text = "a" * 1_000_000
    assert Parallel(n_jobs=2, backend=backend, compression="zlib").map(lambda i: len(text) + i, range(3)) == [
        1_000_000,
        1_000_001,
        1_000_002,
    ]
    assert max(backend.sent) < 50_000


def test_the_threshold_can_be_set() -> None:
    backend = FarBackend()
    with parallel_config(compression="zlib", compression_threshold="2M"):
        assert Parallel(n_jobs=2, backend=backend).map(len, [bytes(1_000_000)]) == [1_000_000]
    assert backend.sent[0] > 1_000_000


def test_a_serializer_of_ones_own_carries_arguments_and_results() -> None:
    parallel = Parallel(n_jobs=2, backend=FarBackend(), serializer=JsonSerializer(), compression="zlib")
    # json knows no tuples.
    assert parallel(delayed(lambda pair: pair)((i, "x")) for i in range(5)) == [[i, "x"] for i in range(5)]


def test_plain_pickle_does_not_send_functions_by_value() -> None:
    parallel = Parallel(n_jobs=2, backend=FarBackend(), serializer="pickle")
    assert parallel.map(abs, [-1]) == [1]
    with pytest.raises(TaskPicklingError, match=r"task 0 .*args\[0\]"):
        parallel(delayed(callable)(lambda: 1) for _ in range(2))


def test_an_argument_that_the_serializer_refuses_is_named() -> None:
    parallel = Parallel(n_jobs=2, backend=FarBackend(), serializer=JsonSerializer())
    with pytest.raises(TaskPicklingError, match=r"task 2 .*args\[0\]"):
        parallel(delayed(bool)(value) for value in [1, "x", {1, 2}])


def test_a_result_that_the_serializer_refuses_is_named_and_the_rest_is_right() -> None:
    parallel = Parallel(n_jobs=2, backend=FarBackend(), serializer=JsonSerializer(), return_exceptions=True)
    first, error, last = parallel(delayed(eval)(text) for text in ["1", "{1, 2}", "[3]"])
    assert (first, last) == (1, [3])
    assert isinstance(error, ResultPicklingError)
    assert "task 1" in str(error)


def test_errors_of_tasks_come_through_whatever_the_serializer() -> None:
    parallel = Parallel(n_jobs=2, backend=FarBackend(), serializer=JsonSerializer())
    with pytest.raises(ZeroDivisionError):
        parallel(delayed(divmod)(1, i) for i in [1, 0])


def test_a_backend_of_this_host_uses_neither() -> None:
    backend = NearBackend()
    parallel = Parallel(n_jobs=2, backend=backend, serializer=JsonSerializer(), compression="zlib")
    assert parallel.map(len, [bytes(1_000_000)]) == [1_000_000]
    assert backend.sent[0] > 1_000_000


@pytest.mark.parametrize("serializer", ["json", None, 3, object()])
def test_a_serializer_that_is_none_is_refused(serializer: object) -> None:
    with pytest.raises(ValueError, match="serializer must be"):
        check_serializer(serializer)
    with pytest.raises(ValueError, match="serializer must be"):
        Parallel(n_jobs=2, serializer=serializer)


@pytest.mark.parametrize("compression", ["gzip", "", 3, True])
def test_a_compression_that_is_none_is_refused(compression: Any) -> None:
    with pytest.raises(ValueError, match="compression must be"):
        check_compression(compression)


def test_a_compression_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'parallel-core\[zstd\]'"):
        Parallel(n_jobs=2, compression="zstd")


def test_the_libraries_are_not_imported_before_they_are_used() -> None:
    for name in ("lz4", "zstandard"):
        sys.modules.pop(name, None)
    check_compression("lz4")
    check_compression("zstd")
    assert not {"lz4", "zstandard"} & set(sys.modules)
