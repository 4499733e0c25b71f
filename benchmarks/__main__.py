"""``python -m benchmarks``, or ``hatch run bench``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from benchmarks.rows import all_rows
from benchmarks.session import as_json, circumstances, run, select
from benchmarks.table import render, summary


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="parallel side by side with its peers, in one run. The machine may be busy: compare ratios.",
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds and smaller work: under two minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep all samples in this file")
    parser.add_argument(
        "--only", action="append", default=[], metavar="PATTERN", help="only rows with this in their name; repeatable"
    )
    parser.add_argument("--rounds", type=_positive, metavar="N", help="so many rounds of each row")
    parser.add_argument("--list", action="store_true", help="name the rows, and run none")
    options = parser.parse_args(arguments)
    rows = select(all_rows(is_quick=options.quick), options.only)
    if not rows:
        parser.error(f"no row is named like {', '.join(options.only)}; --list names them all")
    if options.list:
        width = max(len(row.name) for row in rows)
        for row in rows:
            print(f"{row.name:{width}}  {row.title}")
        return 0
    where = circumstances()
    print(f"Python {where['python']}, {where['cpus']} CPUs, load {where['load']}, {where['versions']}", flush=True)
    begin = time.perf_counter()
    results = []
    for result in run(rows, options.rounds):
        results.append(result)
        notes = [*result.notes, f"took {result.seconds:.1f} s"]
        print(f"\n{render(result.row, result.measured, result.verdicts, notes)}", flush=True)
        if options.json is not None:  # after each row, so that a run that is stopped is not lost
            options.json.write_text(json.dumps(as_json(where, results), indent=1) + "\n", "utf-8")
    verdicts = [(result.row.name, verdict) for result in results for verdict in result.verdicts]
    print(f"\n{summary(verdicts)}, in {time.perf_counter() - begin:.0f} s")
    return 1 if any(result.measured.failures for result in results) else 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
