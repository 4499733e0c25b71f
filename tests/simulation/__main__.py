"""`python -m tests.simulation`: many seeds, one seed with all that happens in it, or the report."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

from tests.simulation.many import describe, run_many
from tests.simulation.report import BRIEF, FULL, report
from tests.simulation.seeds import run_seed
from tests.simulation.trace import trace

#: Seconds between two lines that tell how far a run is.
_TELL_EVERY = 5.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; give the exit code."""
    parser = argparse.ArgumentParser("python -m tests.simulation", description="Simulates the scheduler.")
    parser.add_argument("--seeds", type=int, default=20_000, metavar="N", help="how many worlds to run (%(default)s)")
    parser.add_argument("--first", type=int, default=0, metavar="K", help="the first seed (%(default)s)")
    parser.add_argument("--jobs", type=int, default=_cpus(), metavar="J", help="processes; by default one per CPU")
    parser.add_argument("--seed", type=int, metavar="S", help="run this one, and show everything that happens")
    parser.add_argument("--report", action="store_true", help="only what the engine costs as workers grow, in full")
    chosen = parser.parse_args(arguments)
    if not __debug__:
        parser.error("without assertions nothing is checked: not with -O")
    if chosen.seeds < 1 or chosen.jobs < 1:
        parser.error("--seeds and --jobs must be at least 1")
    if chosen.seed is not None:
        return _replay(chosen.seed)
    if chosen.report:
        report(FULL, _say)
        return 0
    code = _run(range(chosen.first, chosen.first + chosen.seeds), chosen.jobs)
    if code == 0:
        report(BRIEF, _say)
    return code


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _say(line: str) -> None:
    print(line, flush=True)


def _run(seeds: range, jobs: int) -> int:
    told_at = began = time.monotonic()

    def tell(n_passed: int, seconds: float) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= _TELL_EVERY:
            told_at = time.monotonic()
            _say(f"{n_passed:,} of {len(seeds):,} seeds passed, {n_passed / seconds:,.0f} per second")

    failed = run_many(seeds, jobs, tell)
    if failed is None:
        seconds = time.monotonic() - began
        _say(
            f"all {len(seeds):,} seeds passed in {seconds:.1f} s with {jobs} process{'es' * (jobs > 1)}: "
            f"{len(seeds) / seconds:,.0f} seeds per second"
        )
        return 0
    _say(f"seed {failed.seed} failed: {failed.message}")
    _say(f"replay it with: python -m tests.simulation --seed {failed.seed}")
    return 1


def _replay(seed: int) -> int:
    try:
        run_seed(seed, lambda world: trace(world, _say))
    except Exception as error:
        _say(f"seed {seed} failed: {describe(error)}")
        return 1
    _say(f"seed {seed} passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
