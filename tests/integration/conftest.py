"""What tests of several backends share."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from parallel import Parallel
from parallel_testkit import Gate, Mailbox, Tally
from tests.integration.local_backends import KINDS


@pytest.fixture(scope="module")
def thread_pool() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


@pytest.fixture(scope="module")
def process_pool() -> Iterator[Executor]:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("forkserver")) as executor:
        yield executor


@pytest.fixture
def options(request: pytest.FixtureRequest, kind: str) -> dict[str, Any]:
    """The arguments of `Parallel` that choose a kind of local backend."""
    pools = {"futures-threads": "thread_pool", "futures-processes": "process_pool"}
    executor = {"executor": request.getfixturevalue(pools[kind])} if kind in pools else {}
    return {**KINDS[kind], **executor}


@pytest.fixture
def make(options: dict[str, Any]) -> Callable[..., Parallel]:
    """Make a `Parallel` with two workers of a kind; arguments are those of `Parallel`."""

    def make_parallel(**arguments: Any) -> Parallel:
        return Parallel(**{"n_jobs": 2, **options, **arguments})

    return make_parallel


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    with Gate(tmp_path / "gate") as gate:
        yield gate


@pytest.fixture
def mailbox(tmp_path: Path) -> Iterator[Mailbox]:
    with Mailbox(tmp_path / "mailbox") as mailbox:
        yield mailbox


@pytest.fixture
def tally(tmp_path: Path) -> Tally:
    return Tally(tmp_path / "tally")
