"""Large arguments and results beside joblib and ProcessPoolExecutor, in one run: `hatch run bench-data`.

Beyond the rows of `hatch run bench`: what large arguments cost, and what memory they take. Rounds are interleaved, and
medians are of rounds: the machine may be busy, so compare ratios.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel as JoblibParallel
from joblib import delayed as joblib_delayed

from benchmarks.tasks import make_array
from parallel import Parallel, delayed

MB = 1 << 20


def read_one(array: np.ndarray[Any, Any], position: int) -> float:
    return float(array[position])


def sum_columns(holder: dict[str, Any]) -> tuple[float, int, int]:
    """Give the sum of a table, and the memory that this worker has for itself and that all share."""
    total = float(sum(holder["table"][name].sum() for name in holder["table"].columns))
    return total, read_kb("/proc/self/smaps_rollup", "Anonymous"), read_kb("/proc/meminfo", "Shmem")


def read_kb(path: str, wanted: str) -> int:
    with open(path) as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{wanted}:"))


def write_copy(array: np.ndarray[Any, Any]) -> None:
    """What one copy into shared memory costs."""
    descriptor = os.memfd_create("copy")
    data = memoryview(array).cast("B")
    while data.nbytes:
        data = data[os.write(descriptor, data) :]
    os.close(descriptor)


def measure(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()  # warm
    for _ in range(rounds):
        for name, run in runs.items():
            begin = time.perf_counter()
            result = run()
            times[name].append(time.perf_counter() - begin)
            del result
    return times


def show(title: str, times: dict[str, list[float]], base: str) -> None:
    print(f"\n{title}")
    reference = statistics.median(times[base])
    for name, values in times.items():
        median = statistics.median(values)
        print(
            f"  {name:28} {1000 * median:8.1f} ms  ({1000 * min(values):.1f} to {1000 * max(values):.1f})"
            f"  {median / reference:5.2f} x {base}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    big = np.arange(100 * MB / 8)
    with ExitStack() as stack:
        peer = stack.enter_context(JoblibParallel(n_jobs=2))
        pool = stack.enter_context(ProcessPoolExecutor(2))
        ours = {name: stack.enter_context(Parallel(n_jobs=2, backend=name)) for name in ("mp", "loky")}
        ours["futures"] = Parallel(backend="futures", executor=pool)

        runs: dict[str, Callable[[], object]] = {
            "joblib/loky": lambda: peer(joblib_delayed(make_array)(i) for i in range(20)),
            "ProcessPoolExecutor": lambda: list(pool.map(make_array, range(20))),
        }
        for name, parallel in ours.items():
            runs[name] = lambda parallel=parallel: parallel(delayed(make_array)(i) for i in range(20))  # type: ignore[misc]
        show("20 results of 10 MB", measure(runs, rounds), "joblib/loky")

        runs = {"one copy": lambda: write_copy(big)}
        for name, parallel in ours.items():
            runs[f"{name}, nothing large"] = lambda parallel=parallel: parallel(  # type: ignore[misc]
                delayed(abs)(i) for i in range(20)
            )
            runs[name] = lambda parallel=parallel: parallel(delayed(read_one)(big, i) for i in range(20))  # type: ignore[misc]
        show("an argument of 100 MB to 20 tasks", measure(runs, rounds), "one copy")

        runs = {}
        for name, parallel in ours.items():
            shared = stack.enter_context(parallel.share(big))
            runs[name] = lambda parallel=parallel, shared=shared: parallel(  # type: ignore[misc]
                delayed(read_one)(shared, i) for i in range(20)
            )
        show("the same, shared before", measure(runs, rounds), "mp")

        table = pd.DataFrame({f"c{i}": np.arange(200 * MB / 8 / 10) + i for i in range(10)})
        expected = float(sum(table[name].sum() for name in table.columns))
        print("\na dict with a DataFrame of 200 MB to 20 tasks: most memory, in copies of the table")
        for name, parallel in ours.items():
            before = parallel.map(sum_columns, [{"table": table[:1]}] * 20)
            shmem = read_kb("/proc/meminfo", "Shmem")
            after = parallel.map(sum_columns, [{"table": table}] * 20)
            assert all(total == expected for total, _, _ in after)
            own = max(own for _, own, _ in after) - min(own for _, own, _ in before)
            together = max(seen for _, _, seen in after) - shmem
            print(f"  {name:28} a worker's own {own / (200 * MB):5.2f}   shared {together / (200 * MB):5.2f}")


if __name__ == "__main__":
    main()
