"""Programs written for joblib print the same with only the import changed.

What they are expected to print is what they print with joblib 1.6. joblib itself is not needed here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.programs import without_tracker

#: Name to program and to what it prints.
PROGRAMS: dict[str, tuple[str, str]] = {}

PROGRAMS["square roots"] = (
    """
from math import modf, sqrt
from joblib import Parallel, delayed

print(Parallel(n_jobs=1)(delayed(sqrt)(i**2) for i in range(10)))
print(Parallel(n_jobs=2)(delayed(sqrt)(i**2) for i in range(10)))
print(Parallel(n_jobs=2, prefer="threads")(delayed(sqrt)(i**2) for i in range(10)))
fractions, integers = zip(*Parallel(n_jobs=-1)(delayed(modf)(i / 2.0) for i in range(6)))
print(fractions, integers)
""",
    """\
[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]
[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]
[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]
(0.0, 0.5, 0.0, 0.5, 0.0, 0.5) (0.0, 0.0, 1.0, 1.0, 2.0, 2.0)
""",
)

PROGRAMS["sums of rows into a file"] = (
    """
import os
import shutil
import tempfile

import numpy as np
import joblib


def sum_row(samples, sums, row):
    sums[row] = samples[row, :].sum()


if __name__ == "__main__":
    folder = tempfile.mkdtemp()
    try:
        samples = np.memmap(os.path.join(folder, "samples"), dtype="float64", shape=(10, 100_000), mode="w+")
        samples[:] = np.random.RandomState(42).normal(size=samples.shape)
        for options in [{}, {"mmap_mode": "r+"}, {"max_nbytes": None}, {"backend": "multiprocessing"}]:
            sums = np.memmap(os.path.join(folder, "sums"), dtype=samples.dtype, shape=len(samples), mode="w+")
            joblib.Parallel(n_jobs=2, **options)(
                joblib.delayed(sum_row)(samples, sums, row) for row in range(len(samples))
            )
            print(np.allclose(samples.sum(axis=1), sums))
    finally:
        shutil.rmtree(folder)
""",
    "True\nTrue\nTrue\nTrue\n",
)

PROGRAMS["large arrays are read-only"] = (
    """
import numpy as np
from joblib import Parallel, delayed


def add_one(array, out=None):
    array += 1
    return array[:2].tolist()


def mean(data):
    return float(data["x"].mean()), data["x"].flags.writeable


large, small = np.zeros(500_000), np.zeros(10)
print(Parallel(n_jobs=2)(delayed(add_one)(small) for _ in range(3)))
try:
    Parallel(n_jobs=2)(delayed(add_one)(large) for _ in range(3))
except ValueError as error:
    print("ValueError:", error)
print(Parallel(n_jobs=2, mmap_mode="c")(delayed(add_one)(large) for _ in range(3)))
print(Parallel(n_jobs=2, max_nbytes=None)(delayed(add_one)(large) for _ in range(3)))
print(Parallel(n_jobs=2, max_nbytes="100M")(delayed(add_one)(large) for _ in range(3)))
print(Parallel(n_jobs=2, mmap_mode="r")(delayed(mean)({"x": large}) for _ in range(2)))
print(large[:2].tolist())
""",
    """\
[[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]
ValueError: output array is read-only
[[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]
[[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]
[[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]
[(0.0, False), (0.0, False)]
[0.0, 0.0]
""",
)

PROGRAMS["a progress bar"] = (
    """
from joblib import Parallel, delayed


class Bar:
    def __init__(self, total=None):
        self.total, self.n, self.shown = total, 0, []

    def refresh(self):
        self.shown.append((self.n, self.total))


class ProgressParallel(Parallel):
    def __init__(self, use_bar=True, total=None, *args, **kwargs):
        self._use_bar = use_bar
        self._total = total
        super().__init__(*args, **kwargs)

    def __call__(self, *args, **kwargs):
        self.bar = Bar(self._total)
        return Parallel.__call__(self, *args, **kwargs)

    def print_progress(self):
        if self._total is None:
            self.bar.total = self.n_dispatched_tasks
        self.bar.n = self.n_completed_tasks
        self.bar.refresh()


for backend in ["loky", "threading", "multiprocessing"]:
    for n_jobs in [1, 2]:
        parallel = ProgressParallel(n_jobs=n_jobs, backend=backend, batch_size=1)
        print(sum(parallel(delayed(abs)(-i) for i in range(20))), parallel.bar.n, parallel.bar.total)
        numbers = sorted({n for n, _ in parallel.bar.shown})
        print(numbers == list(range(1, 21)), parallel.n_completed_tasks, parallel.n_dispatched_tasks)
parallel = ProgressParallel(total=5, n_jobs=2)
parallel([delayed(abs)(i) for i in range(5)])
print(parallel.bar.shown[-1], parallel.n_tasks)
""",
    "190 20 20\nTrue 20 20\n" * 6 + "(5, 5) 5\n",
)

PROGRAMS["a search over parameters with estimators that are parallel themselves"] = (
    """
import copy
import itertools

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs, parallel_backend, parallel_config


class Tree:
    def __init__(self, depth, seed):
        self.depth, self.seed = depth, seed

    def fit(self, X, y):
        self.weight = float(X[self.seed :: 3].mean()) * self.depth + float(y.sum())
        return self

    def predict(self, X):
        return X[:, 0] * self.weight


def _fit_tree(tree, X, y, number, verbose=0):
    return tree.fit(X, y)


def _accumulate(predict, X, out):
    out[0] += predict(X)


class Forest:
    def __init__(self, n_trees=4, depth=1, n_jobs=None):
        self.n_trees, self.depth, self.n_jobs = n_trees, depth, n_jobs

    def fit(self, X, y):
        trees = [Tree(self.depth, seed) for seed in range(self.n_trees)]
        self.trees = Parallel(n_jobs=self.n_jobs, verbose=0, prefer="threads")(
            delayed(_fit_tree)(tree, X, y, number) for number, tree in enumerate(trees)
        )
        return self

    def predict(self, X):
        out = [np.zeros(len(X))]
        Parallel(n_jobs=self.n_jobs, verbose=0, require="sharedmem")(
            delayed(_accumulate)(tree.predict, X, out) for tree in self.trees
        )
        return out[0] / len(self.trees)


def fit_and_score(estimator, X, y, parameters, train, test):
    for name, value in parameters.items():
        setattr(estimator, name, value)
    error = estimator.fit(X[train], y[train]).predict(X[test]) - y[test]
    return parameters, round(float((error**2).mean()), 6), effective_n_jobs(None)


class Search:
    def __init__(self, estimator, grid, n_jobs=None, pre_dispatch="2*n_jobs"):
        self.estimator, self.grid, self.n_jobs, self.pre_dispatch = estimator, grid, n_jobs, pre_dispatch

    def fit(self, X, y):
        folds = [(np.arange(len(X)) % 3 != fold, np.arange(len(X)) % 3 == fold) for fold in range(3)]
        names = sorted(self.grid)
        candidates = [dict(zip(names, values)) for values in itertools.product(*(self.grid[name] for name in names))]
        parallel = Parallel(n_jobs=self.n_jobs, pre_dispatch=self.pre_dispatch)
        with parallel:
            return parallel(
                delayed(fit_and_score)(copy.deepcopy(self.estimator), X, y, parameters, train, test)
                for parameters, (train, test) in itertools.product(candidates, folds)
            )


if __name__ == "__main__":
    X, y = np.linspace(0, 1, 600).reshape(200, 3), np.linspace(-1, 1, 200)
    grid = {"depth": [1, 2], "n_trees": [2, 3]}
    plain = Search(Forest(), grid).fit(X, y)
    print(len(plain), plain[0], plain[-1])
    print(Search(Forest(n_jobs=2), grid, n_jobs=2).fit(X, y) == plain)
    for backend in ["loky", "threading", "multiprocessing"]:
        with parallel_backend(backend, n_jobs=2):
            print(Search(Forest(n_jobs=2), grid).fit(X, y) == plain)
        with parallel_config(backend=backend, n_jobs=2):
            print(Search(Forest(), grid).fit(X, y) == plain)
""",
    """\
12 ({'depth': 1, 'n_trees': 2}, 0.291742, 1) ({'depth': 2, 'n_trees': 3}, 0.331364, 1)
"""
    + "True\n" * 7,
)

PROGRAMS["generators"] = (
    """
import os
import warnings
from joblib import Parallel, delayed

warnings.simplefilter("ignore")  # of results that are computed and not used


def square(i):
    return i * i


def wait(pipe):
    with open(pipe) as opened:
        return opened.read()


total = 0
for result in Parallel(n_jobs=2, return_as="generator")(delayed(square)(i) for i in range(100)):
    total += result
print(total)

unordered = Parallel(n_jobs=2, return_as="generator_unordered")(delayed(square)(i) for i in range(100))
print(type(unordered).__name__, sorted(unordered) == [i * i for i in range(100)])

os.mkfifo("pipe")
parallel = Parallel(n_jobs=2, return_as="generator", batch_size=1)
results = parallel([delayed(square)(2), delayed(wait)("pipe")])
print(next(results))
try:
    parallel(delayed(square)(i) for i in range(3))
except RuntimeError:
    print("it is still running")
with open("pipe", "w") as pipe:
    pipe.write("done")
print(list(results))
print(list(parallel(delayed(square)(i) for i in range(3))))

for result in Parallel(n_jobs=2, return_as="generator", prefer="threads")(delayed(square)(i) for i in range(1000)):
    if result > 50:
        print("found", result)
        break
results = Parallel(n_jobs=2, return_as="generator", prefer="threads")(delayed(square)(i) for i in range(1000))
print(next(results), next(results))
results.close()
print(list(results))
print(list(Parallel(n_jobs=1, return_as="generator")(delayed(square)(i) for i in range(3))))
""",
    """\
328350
generator True
4
it is still running
['done']
[0, 1, 4]
found 64
0 1
[]
[0, 1, 4]
""",
)

PROGRAMS["errors and limits"] = (
    """
import time
import traceback
from multiprocessing import TimeoutError
from joblib import Parallel, delayed


class Refused(Exception):
    pass


def work(i):
    if i == 7:
        raise Refused(f"not {i}")
    return i


for backend in ["loky", "multiprocessing", "threading"]:
    for n_jobs in [1, 2]:
        try:
            Parallel(n_jobs=n_jobs, backend=backend)(delayed(work)(i) for i in range(20))
        except Refused as error:
            print(backend, n_jobs, error, "in work" in traceback.format_exc())


def numbers():
    yield 1
    raise LookupError("no more numbers")


try:
    Parallel(n_jobs=2)(delayed(work)(i) for i in numbers())
except LookupError as error:
    print(error)

for backend in ["loky", "multiprocessing"]:
    with Parallel(n_jobs=2, backend=backend, timeout=0.5) as parallel:
        try:
            parallel(delayed(time.sleep)(seconds) for seconds in [0, 0, 1000])
        except TimeoutError:
            print("too slow")
print(Parallel(n_jobs=2, timeout=100)(delayed(work)(i) for i in range(3)))
for wrong in [{"n_jobs": 0}, {"batch_size": 0}, {"backend": "nonsense"}, {"return_as": "set"}, {"prefer": "cats"}]:
    try:
        Parallel(**{"n_jobs": 2, **wrong})(delayed(work)(i) for i in range(3))
    except ValueError:
        print("ValueError", *wrong)
""",
    """\
loky 1 not 7 True
loky 2 not 7 True
multiprocessing 1 not 7 True
multiprocessing 2 not 7 True
threading 1 not 7 True
threading 2 not 7 True
no more numbers
too slow
too slow
[0, 1, 2]
ValueError n_jobs
ValueError batch_size
ValueError backend
ValueError return_as
ValueError prefer
""",
)

PROGRAMS["what lives in the script, which has no guard"] = (
    """
import collections
import enum
import functools
import operator
from joblib import Parallel, delayed

FACTOR = 3
Point = collections.namedtuple("Point", "x y")


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Model:
    scale = 10

    def __init__(self, offset):
        self.offset = offset

    def apply(self, x, *, power=1):
        return (x + self.offset) ** power * FACTOR

    @classmethod
    def scaled(cls, x):
        return cls.scale * x

    @staticmethod
    def negated(x):
        return -x

    def __call__(self, x):
        return x - self.offset


def outer(y):
    def inner(x):
        return x * y + FACTOR

    return inner


model = Model(5)
run = Parallel(n_jobs=2)
print(run(delayed(lambda x: x * FACTOR)(x) for x in range(4)))
print(run(delayed(outer(2))(x) for x in range(4)))
print(run(delayed(model.apply)(x, power=2) for x in range(4)))
print(run(delayed(Model.scaled)(x) for x in range(4)))
print(run(delayed(Model.negated)(x) for x in range(4)))
print(run(delayed(model)(x) for x in range(4)))
print(run(delayed(functools.partial(pow, 2))(x) for x in range(4)))
print(run(delayed(operator.attrgetter("x"))(Point(x, 0)) for x in range(4)))
print(run(delayed(Point)(x, y=1) for x in range(2)))
print(run(delayed(operator.attrgetter("name"))(colour) for colour in Colour))
print([made.offset for made in run(delayed(Model)(x) for x in range(3))])
print(run(delayed(str.upper)(text) for text in "abc"))
print([delayed(outer).__name__, delayed(Model.apply).__name__, delayed(outer)(1) == (outer, (1,), {})])
print(run([(pow, (2, 3), {}), (sorted, ([2, 1],), {"reverse": True})]))
""",
    """\
[0, 3, 6, 9]
[3, 5, 7, 9]
[75, 108, 147, 192]
[0, 10, 20, 30]
[0, -1, -2, -3]
[-5, -4, -3, -2]
[1, 2, 4, 8]
[0, 1, 2, 3]
[Point(x=0, y=1), Point(x=1, y=1)]
['RED', 'BLUE']
[0, 1, 2]
['A', 'B', 'C']
['outer', 'apply', True]
[8, [2, 1]]
""",
)

PROGRAMS["a backend of one's own"] = (
    """
from concurrent.futures import ThreadPoolExecutor
from joblib import Parallel, ParallelBackendBase, delayed, parallel_config, register_parallel_backend

log = []


class PoolBackend(ParallelBackendBase):
    supports_retrieve_callback = True
    supports_sharedmem = True
    uses_threads = True
    default_n_jobs = 2

    def __init__(self, nesting_level=None, inner_max_num_threads=None, prefix="mine", **backend_kwargs):
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads, **backend_kwargs)
        self.prefix = prefix

    def effective_n_jobs(self, n_jobs):
        return 2 if n_jobs is None or n_jobs < 0 else n_jobs

    def configure(self, n_jobs=1, parallel=None, prefer=None, require=None, **backend_kwargs):
        log.append(f"configure {n_jobs}")
        n_jobs = self.effective_n_jobs(n_jobs)
        self.parallel = parallel
        self.executor = ThreadPoolExecutor(n_jobs, thread_name_prefix=self.prefix)
        return n_jobs

    def submit(self, func, callback=None):
        future = self.executor.submit(func)
        future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, future):
        return future.result()

    def start_call(self):
        log.append("start_call")

    def stop_call(self):
        log.append("stop_call")

    def terminate(self):
        log.append("terminate")
        self.executor.shutdown()

    def abort_everything(self, ensure_ready=True):
        log.append(f"abort_everything {ensure_ready}")


def thread_name(_):
    import threading

    return threading.current_thread().name.split("_")[0]


register_parallel_backend("pool", PoolBackend)
print(Parallel(n_jobs=2, backend="pool")(delayed(pow)(i, 2) for i in range(5)), log)
log.clear()
with parallel_config(backend="pool", prefix="other"):
    print(set(Parallel()(delayed(thread_name)(i) for i in range(5))), log[0])
    log.clear()
    with Parallel(n_jobs=2) as parallel:
        print(parallel(delayed(pow)(i, 2) for i in range(5)), parallel(delayed(abs)(-i) for i in range(3)))
        try:
            parallel([delayed(divmod)(1, 0)])
        except ZeroDivisionError:
            print("failed")
print(log[:2], log[-1], "abort_everything True" in log, log.count("terminate"))
backend = PoolBackend(prefix="instance")
print(set(Parallel(n_jobs=2, backend=backend)(delayed(thread_name)(i) for i in range(5))))
register_parallel_backend("pool2", PoolBackend, make_default=True)
print(set(Parallel(n_jobs=2)(delayed(thread_name)(i) for i in range(5))))
""",
    """\
[0, 1, 4, 9, 16] ['configure 2', 'start_call', 'stop_call', 'terminate']
{'other'} configure 2
[0, 1, 4, 9, 16] [0, 1, 2]
failed
['configure 2', 'start_call'] terminate True 1
{'instance'}
{'mine'}
""",
)

PROGRAMS["several calls on the same workers"] = (
    """
import os
from joblib import Parallel, delayed


def step(center, chunk):
    return os.getpid(), sum(abs(x - center) for x in chunk)


def optimise(chunks, n_jobs):
    center, pids = 0.0, set()
    with Parallel(n_jobs=n_jobs) as parallel:
        for _ in range(10):
            found = parallel(delayed(step)(center, chunk) for chunk in chunks)
            pids |= {pid for pid, _ in found}
            center += sum(value for _, value in found) / 1000
    return round(center, 6), pids


def in_function():
    return Parallel(n_jobs=2)(delayed(len)("x" * i) for i in range(3))


if __name__ == "__main__":
    chunks = [list(range(i, 100, 4)) for i in range(4)]
    center, pids = optimise(chunks, 2)
    print(center, len(pids) <= 2, os.getpid() in pids)
    center, pids = optimise(chunks, 1)
    print(center, pids == {os.getpid()})
    print([in_function() for _ in range(3)])
    with Parallel(n_jobs=2) as parallel:
        for bad in ["x", None]:
            try:
                parallel(delayed(abs)(item) for item in [1, bad])
            except TypeError:
                print("TypeError", parallel(delayed(abs)(i) for i in [-1, -2]))
""",
    """\
35.953331 True False
35.953331 True
[[0, 1, 2], [0, 1, 2], [0, 1, 2]]
TypeError [1, 2]
TypeError [1, 2]
""",
)

PROGRAMS["what is printed"] = (
    """
import contextlib
import io
import re
from joblib import Parallel, delayed


def lines_of(**options):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        Parallel(n_jobs=2, backend="threading", **options)(delayed(abs)(i) for i in range(10))
    return out.getvalue().splitlines(), err.getvalue().splitlines()


for verbose in [0, 1, 5, 10, 11, 49, 50, 100]:
    out, err = lines_of(verbose=verbose)
    lines = out or err
    print(verbose, bool(out), bool(err), all(line.startswith("[Parallel(n_jobs=2)]: ") for line in lines))
    if verbose:
        print(bool(re.search(r"Done +10 out of +10 \\| elapsed: .* finished", lines[-1])))


def producer():
    for i in range(6):
        print(f"Produced {i}")
        yield i


print(Parallel(n_jobs=2, pre_dispatch="1.5*n_jobs")(delayed(abs)(i) for i in producer()))
print(Parallel(n_jobs=2, pre_dispatch="all")(delayed(abs)(i) for i in producer()))
print(Parallel(n_jobs=2, pre_dispatch=2, batch_size=3)(delayed(abs)(i) for i in producer()))
""",
    """\
0 False False True
1 False True True
True
5 False True True
True
10 False True True
True
11 False True True
True
49 False True True
True
50 True False True
True
100 True False True
True
"""
    + "".join(f"Produced {i}\n" for i in range(6))
    + "[0, 1, 2, 3, 4, 5]\n"
    + "".join(f"Produced {i}\n" for i in range(6))
    + "[0, 1, 2, 3, 4, 5]\n"
    + "".join(f"Produced {i}\n" for i in range(6))
    + "[0, 1, 2, 3, 4, 5]\n",
)

PROGRAMS["shared memory"] = (
    """
from joblib import Parallel, delayed, parallel_config

shared_set, counts, cache = set(), [], {}


def collect(x):
    shared_set.add(x)


def remember(key):
    cache[key] = key * key


print(Parallel(n_jobs=2, require="sharedmem")(delayed(collect)(i) for i in range(5)), sorted(shared_set))
with parallel_config(backend="loky"):
    Parallel(n_jobs=2, require="sharedmem")(delayed(counts.append)(i) for i in range(50))
print(sorted(counts) == list(range(50)))
Parallel(n_jobs=2, backend="threading")(delayed(remember)(i) for i in range(5))
print(sorted(cache.items()))
cache.clear()
Parallel(n_jobs=2, backend="loky")(delayed(remember)(i) for i in range(5))
print(cache)
try:
    Parallel(n_jobs=2, backend="loky", require="sharedmem")
except ValueError:
    print("ValueError")
""",
    """\
[None, None, None, None, None] [0, 1, 2, 3, 4]
True
[(0, 0), (1, 1), (2, 4), (3, 9), (4, 16)]
{}
ValueError
""",
)

PROGRAMS["batches"] = (
    """
from joblib import Parallel, delayed


def add(a, b=0, *more, **names):
    return a + b + sum(more) + sum(names.values())


for backend in ["loky", "multiprocessing", "threading", "sequential"]:
    for batch_size in ["auto", 1, 7, 1000]:
        results = Parallel(n_jobs=2, backend=backend, batch_size=batch_size)(
            delayed(add)(i, 1, 2, x=3) if i % 2 else delayed(add)(i) for i in range(500)
        )
        print(sum(results), end=" ")
    print(backend)
print(Parallel(n_jobs=3, batch_size=2, pre_dispatch="3*n_jobs")(delayed(str)(i) for i in range(10)))
print(Parallel(n_jobs=2)([]), Parallel(n_jobs=2)(iter(())))
""",
    """\
126250 126250 126250 126250 loky
126250 126250 126250 126250 multiprocessing
126250 126250 126250 126250 threading
126250 126250 126250 126250 sequential
['0', '1', '2', '3', '4', '5', '6', '7', '8', '9']
[] []
""",
)

PROGRAMS["settings"] = (
    """
import os
from joblib import (
    Parallel, cpu_count, delayed, effective_n_jobs, parallel_backend, parallel_config
)

print(effective_n_jobs(3), effective_n_jobs(None), effective_n_jobs(-1) == cpu_count() == effective_n_jobs())
print(Parallel().n_jobs, Parallel(n_jobs="3").n_jobs, Parallel(n_jobs=2.9).n_jobs, Parallel(2).n_jobs)
with parallel_config(n_jobs=3, verbose=5):
    print(Parallel().n_jobs, Parallel().verbose, Parallel(n_jobs=2, verbose=0).n_jobs, effective_n_jobs(None))
    with parallel_config(backend="threading", n_jobs=2):
        print(Parallel().n_jobs, Parallel().verbose)
    print(Parallel().n_jobs)
with parallel_backend("threading") as (backend, n_jobs):
    print(n_jobs, Parallel().n_jobs, backend.effective_n_jobs(n_jobs) == cpu_count())
config = parallel_config(backend="threading", n_jobs=2)
print(Parallel().n_jobs)
config.unregister()
print(Parallel().n_jobs, repr(Parallel(n_jobs=4)))

names = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ENABLE_IPC"]
with parallel_config(backend="loky", inner_max_num_threads=3):
    print(Parallel(n_jobs=2)(delayed(os.getenv)(name) for name in names))
with parallel_backend("loky", n_jobs=2, inner_max_num_threads=2):
    print(Parallel()(delayed(os.getenv)(name) for name in names))
os.environ["OMP_NUM_THREADS"] = "5"
print(Parallel(n_jobs=2)(delayed(os.getenv)("OMP_NUM_THREADS") for _ in range(2)))
for wrong in [lambda: parallel_config(backend="nonsense"), lambda: parallel_config(None, n_jobs=2, foo=1)]:
    try:
        wrong()
    except ValueError:
        print("ValueError", Parallel().n_jobs)
""",
    """\
3 1 True
1 3 2 2
3 5 2 3
2 5
3
-1 -1 True
2
1 Parallel(n_jobs=4)
['3', '3', '3', '1']
['2', '2', '2', '1']
['5', '5']
ValueError 1
ValueError 1
""",
)

PROGRAMS["calls inside tasks, and inside workers of others"] = (
    """
import multiprocessing
import os
import threading
import warnings
from joblib import Parallel, delayed, effective_n_jobs, parallel_config


def leaf(i):
    return os.getpid(), threading.get_ident()


def inner(i):
    found = Parallel(n_jobs=2)(delayed(leaf)(j) for j in range(4))
    return {pid for pid, _ in found} == {os.getpid()}, {thread for _, thread in found} == {threading.get_ident()}


def middle(i):
    default = effective_n_jobs(None), Parallel().n_jobs
    return default, set(Parallel(n_jobs=2)(delayed(inner)(j) for j in range(4)))


def in_daemon(i):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sum(Parallel(n_jobs=2)(delayed(abs)(-j) for j in range(i)))


if __name__ == "__main__":
    for backend in ["loky", "multiprocessing", "threading"]:
        print(backend, Parallel(n_jobs=2, backend=backend)(delayed(middle)(i) for i in range(2)))
    with parallel_config(backend="loky", n_jobs=2):
        print(Parallel()(delayed(middle)(i) for i in range(2)))
    with multiprocessing.Pool(2) as pool:
        print(pool.map(in_daemon, range(5)))
        pool.close()
        pool.join()
    for method in ["fork", "spawn", "forkserver"]:
        context = multiprocessing.get_context(method)
        print(method, Parallel(n_jobs=2, backend=context)(delayed(in_daemon)(i) for i in range(5)))
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(Parallel(n_jobs=2)(delayed(abs)(-i) for i in range(5))))
        for _ in range(3)
    ]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    print(found)
""",
    """\
loky [((1, 1), {(True, True)}), ((1, 1), {(True, True)})]
multiprocessing [((1, 1), {(True, True)}), ((1, 1), {(True, True)})]
threading [((1, 1), {(True, True)}), ((1, 1), {(True, True)})]
[((1, 1), {(True, True)}), ((1, 1), {(True, True)})]
[0, 0, 1, 3, 6]
fork [0, 0, 1, 3, 6]
spawn [0, 0, 1, 3, 6]
forkserver [0, 0, 1, 3, 6]
[[0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]
""",
)


def with_the_import_changed(program: str) -> str:
    return program.replace("from joblib import", "from parallel import").replace(
        "import joblib\n", "import parallel as joblib\n"
    )


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_written_for_joblib_prints_the_same(name: str, tmp_path: Path) -> None:
    program, expected = PROGRAMS[name]
    script = tmp_path / "script.py"
    script.write_text(with_the_import_changed(program), "utf-8")
    settings = ("PARALLEL_", "OMP_", "OPENBLAS_", "MKL_", "ENABLE_IPC")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(settings)}
    done = subprocess.run(
        # joblib says nothing where an inner call gets fewer workers than it has asked for.
        [sys.executable, "-W", "ignore:tasks run one after the other:RuntimeWarning", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, without_tracker(done.stderr)) == (0, "")
    assert done.stdout == expected
