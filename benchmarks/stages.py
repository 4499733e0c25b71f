"""Rows of single stages of a call, each alone: what to look at when a whole call is slower than it should be.

These use private modules of the core, and go where those go. There is nothing to reach: what is marked as plain says
what Python itself takes for the same.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from itertools import chain
from typing import Any

from benchmarks import links
from benchmarks.row import Entry, Row, alone
from benchmarks.tasks import noop
from benchmarks.units import MICROSECONDS, NANOSECONDS, Unit
from parallel import delayed
from parallel._actions import Submit
from parallel._batching import AdaptiveBatching, Batching, FixedBatching
from parallel._board import new_slot
from parallel._outcomes import decode_outcome, encode_outcome
from parallel._quick import run_columns
from parallel._results import OrderedResults, Results
from parallel._running import NEVER, Run, remote_failure, run_args, run_calls
from parallel._scheduler import Scheduler
from parallel._serialize import Encoder
from parallel._settings import Settings
from parallel._setup import ListSink
from parallel._source import Source
from parallel._task import Batch, Job, Kind, Outcome
from parallel._worker import CallHeader, RemoteJob, run_payload
from parallel.backend import ParallelBackendBase

__all__ = ["rows"]

_SAMPLE_SECONDS = 0.02

#: Tasks of the batch that is pickled, run and brought back.
_BATCH = 1_000

_N_JOBS = 2


def rows(is_quick: bool) -> list[Row]:
    """Give them."""
    rounds = 3 if is_quick else 9
    return [
        _reading(rounds),
        _scheduler(rounds),
        _pickling(rounds),
        _unpickling(rounds),
        _loop(rounds),
        _outcome(rounds),
        _delivery(rounds),
        _one(rounds),
        _pipe(rounds),
        _inbox(rounds),
        *(_callback(backend, rounds) for backend in _BACKENDS),
    ]


def _row(
    name: str,
    title: str,
    rounds: int,
    actions: dict[str, Callable[[], object]],
    *,
    each: float = 1,
    unit: Unit,
    needs: tuple[str, ...] = (),
) -> Row:
    """Make a row whose values are a call's time divided by `each`."""
    return Row(
        f"stage-{name}",
        title,
        tuple(Entry(label, alone(action)) for label, action in actions.items()),
        unit=unit,
        rounds=rounds,
        sample_seconds=_SAMPLE_SECONDS,
        score=lambda seconds, _: seconds / each,
        compares=False,
        needs=needs,
    )


# -- from the input, and to the caller ---------------------------------------------------------------------------------


def _reading(rounds: int) -> Row:
    items = range(_BATCH)
    calls = _batch(Kind.CALLS).tasks

    def read(source: Source) -> object:
        exhausted, n_read = False, 0
        while not exhausted:
            tasks, exhausted, _ = source.read(_BATCH)
            n_read += len(tasks)
        return n_read

    return _row(
        "reading",
        "reading the input: time per task",
        rounds,
        {
            "a generator of delayed": lambda: read(Source.of_calls(delayed(noop)(item) for item in items)),
            "a list of delayed": lambda: read(Source.of_calls(calls)),
            "map, a generator": lambda: read(Source.of_map(noop, ((item for item in items),))),
            "map, a range": lambda: read(Source.of_map(noop, (items,))),
            "plain: a list of the generator": lambda: list(delayed(noop)(item) for item in items),  # noqa: C400
        },
        each=_BATCH,
        unit=NANOSECONDS,
    )


def _delivery(rounds: int) -> Row:
    fragments = [list(range(at, at + 100)) for at in range(0, 10 * _BATCH, 100)]

    def deliver(results: Results) -> object:
        sink = ListSink()
        for number, fragment in enumerate(fragments):
            for start, values in results.add(100 * number, fragment):
                sink.deliver(start, values)
        return sink.take()

    return _row(
        "delivery",
        "ordering fragments of 100 results and collecting them: time per task",
        rounds,
        {
            "to a list": lambda: deliver(OrderedResults()),
            "plain: a list of all": lambda: list(chain.from_iterable(fragments)),
        },
        each=10 * _BATCH,
        unit=NANOSECONDS,
    )


# -- the scheduler ---------------------------------------------------------------------------------------------------


def _scheduler(rounds: int) -> Row:
    sizes: dict[str, Callable[[], Batching]] = {
        "batches of 1": partial(FixedBatching, 1),
        "batches of 64": partial(FixedBatching, 64),
        "adaptive, tasks of 1 ms": partial(AdaptiveBatching, _N_JOBS),
    }
    return Row(
        "stage-scheduler",
        "the scheduler, in a world where every batch comes back at once: time per event",
        tuple(
            Entry(label, alone(lambda batching=batching: _run_world(batching(), 64 * 200)))  # type: ignore[misc]
            for label, batching in sizes.items()
        ),
        unit=MICROSECONDS,
        rounds=rounds,
        sample_seconds=_SAMPLE_SECONDS,
        score=lambda seconds, n_events: seconds / n_events,
        compares=False,
    )


def _run_world(batching: Batching, n_tasks: int) -> int:
    """Run a call without workers, and give how many events the scheduler had."""
    scheduler = Scheduler(
        n_jobs=_N_JOBS, batching=batching, results=OrderedResults(), pre_dispatch=2 * _N_JOBS, total=n_tasks
    )
    now, n_events, n_left = 0.0, 0, n_tasks
    waiting: list[Batch] = []
    while not scheduler.is_over:
        wanted = min(scheduler.wanted(), n_left)
        if wanted or (not n_left and not waiting):
            n_left -= wanted
            actions = scheduler.on_input([None] * wanted, not n_left, now)
        else:
            batch = waiting.pop(0)
            seconds = 1e-3 * len(batch)
            now += seconds
            actions = scheduler.on_outcome(batch.batch_id, [None] * len(batch), {}, seconds, now)
        n_events += 1
        waiting += [action.batch for action in actions if isinstance(action, Submit)]
    return n_events


# -- there and back as bytes -----------------------------------------------------------------------------------------


def _encoder() -> Encoder:
    return Encoder(CallHeader(nested=Settings(), stop_on_failure=True))


def _batch(kind: Kind) -> Batch:
    if kind is Kind.CALLS:
        return Batch(0, 0, [(noop, (item,), {}) for item in range(_BATCH)])
    return Batch(0, 0, list(range(_BATCH)), kind, noop)


def _pickling(rounds: int) -> Row:
    encoder, items, calls = _encoder(), _batch(Kind.ITEMS), _batch(Kind.CALLS)
    return _row(
        "pickling",
        f"pickling a batch of {_BATCH:,}: time per task",
        rounds,
        {
            "of map": lambda: encoder.encode(items),
            "of delayed": lambda: encoder.encode(calls),
            "plain: pickle the arguments": lambda: pickle.dumps(items.tasks, protocol=5),
        },
        each=_BATCH,
        unit=NANOSECONDS,
    )


def _unpickling(rounds: int) -> Row:
    payloads = {kind: _encoder().encode(_batch(kind)) for kind in (Kind.ITEMS, Kind.CALLS)}
    plain = pickle.dumps(list(range(_BATCH)), protocol=5)
    return _row(
        "worker",
        f"all that a worker process does with a batch of {_BATCH:,}, from bytes to bytes: time per task",
        rounds,
        {
            "of map": lambda: run_payload(payloads[Kind.ITEMS]),
            "of delayed": lambda: run_payload(payloads[Kind.CALLS]),
            "plain: unpickle, map, pickle": lambda: pickle.dumps(list(map(noop, pickle.loads(plain))), protocol=5),
        },
        each=_BATCH,
        unit=NANOSECONDS,
    )


def _loop(rounds: int) -> Row:
    items, calls = range(_BATCH), _batch(Kind.CALLS).tasks

    def run(slot: Any = None, context: Context | None = None) -> Run:
        return Run(True, 1.0, NEVER, remote_failure, 0, slot, [], context)

    return _row(
        "loop",
        f"the worker's loop over a batch of {_BATCH:,}: time per task",
        rounds,
        {
            "in a process": lambda: run_columns(noop, [items], run()),
            "with the clock": lambda: run_args(noop, zip(items, strict=True), run()),
            "with the clock, rows": lambda: run_calls(calls, run()),
            "with starts noted": lambda: run_args(noop, zip(items, strict=True), run(new_slot())),
            "in a thread": lambda: run_calls(calls, run(context=copy_context())),
            "plain: a list comprehension": lambda: [noop(item) for item in items],
        },
        each=_BATCH,
        unit=NANOSECONDS,
    )


def _outcome(rounds: int) -> Row:
    batch = _batch(Kind.ITEMS)
    values = list(range(_BATCH))
    plain = pickle.dumps(values, protocol=5)
    encoded = encode_outcome(Outcome(values, {}, 0.0), 0, str)
    return _row(
        "outcome",
        f"the outcome of a batch of {_BATCH:,} integers: time per task",
        rounds,
        {
            "to bytes": lambda: encode_outcome(Outcome(values, {}, 0.0), 0, str),
            "from bytes": lambda: decode_outcome(encoded, batch, ""),
            "plain: to bytes": lambda: pickle.dumps(values, protocol=5),
            "plain: from bytes": lambda: pickle.loads(plain),
        },
        each=_BATCH,
        unit=NANOSECONDS,
    )


def _one(rounds: int) -> Row:
    batch = Batch(0, 0, [0], Kind.ITEMS, noop)
    encoder = _encoder()
    payload = encoder.encode(batch)
    encoded = run_payload(payload)
    return _row(
        "one",
        "what a batch of one task takes where its size does not matter",
        rounds,
        {
            "to bytes": lambda: encoder.encode(batch),
            "to bytes, the first of a call": lambda: _encoder().encode(batch),
            "in the worker": lambda: run_payload(payload),
            "from bytes": lambda: decode_outcome(encoded, batch, ""),
        },
        unit=MICROSECONDS,
    )


# -- between processes and threads -----------------------------------------------------------------------------------


def _linked(opens: Callable[[], Any]) -> Callable[[], object]:
    """Make an action out of a context manager that gives one, opened at the first call and left to the end."""
    opened: list[Callable[[], object]] = []

    def action() -> object:
        if not opened:
            opened.append(links.open_until_exit(opens()))
        return opened[0]()

    return action


def _pipe(rounds: int) -> Row:
    return _row(
        "pipe",
        "200 bytes to another process and back",
        rounds,
        {
            "frames of mp": _linked(links.frames),
            "multiprocessing.Pipe": _linked(links.connection),
            "plain: a pair of sockets": _linked(links.sockets),
        },
        unit=MICROSECONDS,
        needs=("parallel_backend_mp",),
    )


def _inbox(rounds: int) -> Row:
    return _row(
        "inbox",
        "an event to another thread and back, through queue.SimpleQueue",
        rounds,
        {"there and back": _linked(links.inboxes), "plain: put and get in one thread": links.own_inbox()},
        unit=MICROSECONDS,
    )


class _Carrier:
    """What a job needs of its call, with nothing behind it."""

    def __init__(self) -> None:
        self._payload = _encoder().encode(Batch(0, 0, [0], Kind.ITEMS, noop))

    def run(self, job: Job) -> Outcome:
        return Outcome([None], {}, 0.0)

    def encode(self, batch: Batch, slot: int | None) -> bytes:
        return self._payload

    encode_or_excuse = encode

    @property
    def remote(self) -> Callable[[bytes], Callable[[], bytes]]:
        return RemoteJob


def _mp() -> ParallelBackendBase:
    from parallel_backend_mp import MpBackend

    return MpBackend()


def _loky() -> ParallelBackendBase:
    from parallel_backend_loky import LokyBackend

    return LokyBackend()


def _threads() -> ParallelBackendBase:
    from parallel_backend_threads import ThreadsBackend

    return ThreadsBackend()


#: Backend to what makes it, and its module.
_BACKENDS: dict[str, tuple[Callable[[], ParallelBackendBase], str]] = {
    "mp": (_mp, "parallel_backend_mp"),
    "loky": (_loky, "parallel_backend_loky"),
    "threads": (_threads, "parallel_backend_threads"),
}


def _callback(name: str, rounds: int) -> Row:
    makes, module = _BACKENDS[name]
    carrier = _Carrier()
    return _row(
        f"callback-{name}",
        f"one job through the backend {name} alone: from `submit` until its callback has put the event",
        rounds,
        {name: _linked(lambda: links.backend(makes(), lambda: Job(Batch(0, 0, [0], Kind.ITEMS, noop), carrier)))},
        unit=MICROSECONDS,
        needs=(module,),
    )
