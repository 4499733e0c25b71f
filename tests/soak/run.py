"""The loop: calls, one after the other, and from time to time a look at what is in use."""

from __future__ import annotations

import math
import random
import tempfile
import threading
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from shutil import rmtree
from time import monotonic

from tests.soak.kinds import Kind
from tests.soak.metrics import LIMITS, Sample, give_back_memory
from tests.soak.plan import Item, Turn
from tests.soak.trend import Verdict, judge, samples_needed

__all__ = ["SECONDS_PER_SAMPLE", "Soak", "Status", "let_threads_end", "minutes_needed", "report"]

SECONDS_PER_SAMPLE = 10.0

#: What threads of calls that were left may take to end; not a measurement: what hangs is a leak, and is counted.
ENDING_SECONDS = 5.0

#: Threads that live for as long as warm workers do.
_OF_WARM_WORKERS = (
    "ExecutorManagerThread",
    "QueueFeederThread",
    "QueueManagerThread",
    "ThreadPoolExecutor",
    "parallel-mp-io",
)


#: Of the samples, which wait for the call that is under way: what a run may be longer because of that.
_SPACING_MARGIN = 1.1


class Status(IntEnum):
    """How a run ends; what the command exits with."""

    GOOD = 0
    #: A call went wrong, or something grows.
    BAD = 1
    #: No call went wrong, and the run was too short to tell whether something grows. (2 is a wrong command line.)
    UNKNOWN = 3


@dataclass
class Soak:
    """One run.

    Parameters
    ----------
    kinds, items
        Where calls run, and which there are.
    seed
        Of the choice among them.
    measure
        Tells what is in use.
    print_line
        Takes the lines of the report.
    clock
        Monotonic seconds.
    """

    kinds: list[Kind]
    items: tuple[Item, ...]
    seed: int
    measure: Callable[[], Sample]
    print_line: Callable[[str], None]
    clock: Callable[[], float] = monotonic
    minutes: list[float] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    n_calls: int = 0
    _others: set[threading.Thread] = field(default_factory=set)
    #: How many of these ended with the error of a fault, as they may on some kinds.
    n_faults: int = 0
    #: What has yet to come of the pairs of kind and item, in some order, before each comes again.
    _upcoming: list[tuple[Kind, Item]] = field(default_factory=list)

    def run(self, seconds: float, sample_seconds: float = SECONDS_PER_SAMPLE) -> None:
        """Make calls for so long.

        Raises
        ------
        Exception
            Whatever went wrong in a call, with a note that says which.
        """
        choose = random.Random(self.seed)
        self._others = set(threading.enumerate())
        begin = self.clock()
        next_sample = begin + sample_seconds
        while self.clock() < begin + seconds:
            self._take_turn(choose)
            if self.clock() >= next_sample:
                self._sample(begin)
                next_sample += sample_seconds

    def verdicts(self) -> dict[str, Verdict]:
        """Judge each metric, by its name."""
        return {
            name: judge(self.minutes, [float(getattr(sample, name)) for sample in self.samples], limit)
            for name, limit in LIMITS.items()
        }

    def _take_turn(self, choose: random.Random) -> None:
        kind, item = self._next_pair(choose)
        folder = Path(tempfile.mkdtemp(prefix="turn-"))
        try:
            item.do(Turn(kind, random.Random(choose.getrandbits(32)), folder))
        except kind.may_raise:
            self.n_faults += 1
        except BaseException as error:
            error.add_note(f"turn {self.n_calls}: {item.name} on {kind.name}, seed {self.seed}")
            raise
        finally:
            rmtree(folder)
        self.n_calls += 1

    def _next_pair(self, choose: random.Random) -> tuple[Kind, Item]:
        """Go round all pairs: drawn one by one, some would not come up in a run of some minutes."""
        if not self._upcoming:
            self._upcoming = [(kind, item) for kind in self.kinds for item in self.items if item.suits(kind)]
            choose.shuffle(self._upcoming)
        return self._upcoming.pop()

    def _sample(self, begin: float) -> None:
        """Measure when nothing runs, and what is kept warm is there."""
        for kind in self.kinds:
            kind.rest()
        let_threads_end(self._others)
        give_back_memory()
        sample = self.measure()
        elapsed = self.clock() - begin
        self.minutes.append(elapsed / 60)
        self.samples.append(sample)
        self.print_line(f"{elapsed:6.0f} s  {self.n_calls:6d} turns  {self.n_faults:4d} faults  {sample}")


def let_threads_end(others: Container[threading.Thread]) -> None:
    """Wait until only threads are left that are there to stay, like those of `others`."""
    give_up = monotonic() + ENDING_SECONDS
    for thread in threading.enumerate():
        if (
            thread not in others
            and thread is not threading.current_thread()
            and not thread.name.startswith(_OF_WARM_WORKERS)
        ):
            thread.join(max(give_up - monotonic(), 0.0))


def minutes_needed(sample_seconds: float = SECONDS_PER_SAMPLE) -> int:
    """Tell how many minutes a run needs for samples enough to judge."""
    return math.ceil(samples_needed() * sample_seconds * _SPACING_MARGIN / 60)


def report(verdicts: dict[str, Verdict]) -> tuple[list[str], Status]:
    """Give the lines that say what became of each metric, and what that makes of the run."""
    lines, unknown, is_growing = [], [], False
    for name, verdict in verdicts.items():
        change = f"{verdict.first:.1f} to {verdict.last:.1f}, {verdict.per_minute:+.2f} per minute"
        if verdict.is_trend is None:
            unknown.append(name)
            lines.append(f"{name:20} too few samples to tell")
        elif verdict.is_trend:
            is_growing = True
            lines.append(f"{name:20} GROWS: {change}, and {LIMITS[name].per_minute:g} would be noise")
        else:
            lines.append(f"{name:20} level: {change}")
    if unknown:
        lines.append(f"TOO SHORT to judge {len(unknown)} metrics: that needs --minutes {minutes_needed()} at least")
    return lines, Status.BAD if is_growing else Status.UNKNOWN if unknown else Status.GOOD
