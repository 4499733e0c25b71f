"""Runs many seeds, in several processes, and finds the smallest one that fails.

With tools of the standard library only: what tests the library must not depend on it.
"""

from __future__ import annotations

import linecache
import multiprocessing
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass

from tests.simulation.seeds import run_seed

#: Seeds that a process is given at a time: a quarter of a second, so that a failure ends the run soon.
_CHUNK = 200


@dataclass(frozen=True, slots=True)
class Failed:
    """A seed that failed, and what was wrong."""

    seed: int
    message: str


def failure_of(seed: int) -> Failed | None:
    """Run a seed; give its failure."""
    try:
        run_seed(seed)
    except Exception as error:
        return Failed(seed, describe(error))
    return None


def describe(error: BaseException) -> str:
    """Say in one line what is wrong; an assertion that says nothing is quoted."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    text = str(error) or linecache.getline(last.filename, last.lineno or 0).strip()
    return f"{type(error).__name__}: {text}"


def first_failure(seeds: range) -> Failed | None:
    """Run seeds in their order until one fails."""
    return next((failed for seed in seeds if (failed := failure_of(seed)) is not None), None)


def run_many(
    seeds: range, jobs: int, tell: Callable[[int, float], None], find: Callable[[range], Failed | None] = first_failure
) -> Failed | None:
    """Run seeds until one fails; give the smallest one that does.

    Parameters
    ----------
    seeds
        Which.
    jobs
        Number of processes; with 1, this one.
    tell
        Called now and then with how many seeds have passed, and with the seconds since the beginning.
    find
        Finds the first failure among some seeds; importable, for other processes.
    """
    chunks = [seeds[at : at + _CHUNK] for at in range(0, len(seeds), _CHUNK)]
    began, n_passed = time.monotonic(), 0
    for chunk, failed in _in_order(chunks, jobs, find):
        if failed is not None:
            return failed
        n_passed += len(chunk)
        tell(n_passed, time.monotonic() - began)
    return None


def _in_order(
    chunks: list[range], jobs: int, find: Callable[[range], Failed | None]
) -> Iterator[tuple[range, Failed | None]]:
    """Run chunks side by side, and give what they found in their order: so the first failure is the smallest seed."""
    if jobs == 1:
        yield from ((chunk, find(chunk)) for chunk in chunks)
        return
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures: list[Future[Failed | None]] = [pool.submit(find, chunk) for chunk in chunks]
        try:
            for chunk, future in zip(chunks, futures, strict=True):
                yield chunk, future.result()
        finally:
            pool.shutdown(cancel_futures=True)
