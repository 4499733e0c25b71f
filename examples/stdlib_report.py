"""Read the whole standard library of the running interpreter, on every installed backend, and compare the times.

Each Python source file is one task: parse it, count its functions and branches, find its longest function. The same
tasks run one after the other first, then on each backend; all must give the same answer. Try::

    python examples/stdlib_report.py
    python examples/stdlib_report.py --backends loky threads --n-jobs 4 --top 20
"""

from __future__ import annotations

import argparse
import ast
import sysconfig
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from parallel import Parallel, cpu_count

#: What counts as a branch: a place where the program may go one way or the other.
BRANCHES = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.match_case, ast.BoolOp)


@dataclass(frozen=True)
class Report:
    """What is found in one file, or the problem that kept it from being parsed."""

    module: str
    functions: int = 0
    branches: int = 0
    longest_lines: int = 0
    longest_name: str = ""
    problem: str = ""


def analyse(path: Path) -> Report:
    """Parse one file and count; the task that runs in the workers."""
    # Some of the sources hold questionable escapes. Said here because each worker process has filters of its own.
    warnings.simplefilter("ignore", SyntaxWarning)
    module = ".".join(path.relative_to(sysconfig.get_path("stdlib")).with_suffix("").parts)
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return Report(module, problem=f"{type(error).__name__}: {getattr(error, 'msg', None) or error}")
    functions, branches, longest = 0, 0, (0, "")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            functions += 1
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            longest = max(longest, (lines, f"{node.name}:{node.lineno}"))
        elif isinstance(node, BRANCHES):
            branches += 1
    return Report(module, functions, branches, *longest)


class ProgressParallel(Parallel):
    """Says how far it is whenever another quarter of the tasks is done."""

    quarters_said = 0

    def print_progress(self) -> None:
        """Called by the engine after every batch."""
        if not self.n_tasks:  # not known as long as the input is still being read
            return
        quarters = 4 * self.n_completed_tasks // self.n_tasks
        if quarters > self.quarters_said:
            self.quarters_said = quarters
            print(f"  {self.n_completed_tasks:>5} / {self.n_tasks} files", flush=True)


def installed_backends() -> list[str]:
    """Names of the backends that are installed, one for each (some have an alias)."""
    names: dict[str, str] = {}
    for entry in sorted(entry_points(group="parallel.backends"), key=lambda entry: len(entry.name)):
        names.setdefault(entry.value, entry.name)
    return sorted(names.values())


def run(backend: str, n_jobs: int, paths: Sequence[Path]) -> list[Report]:
    """Analyse all files on one backend."""
    reports: list[Report]
    if backend == "futures":  # wraps an executor that you bring
        with ProcessPoolExecutor(n_jobs) as executor:
            reports = ProgressParallel(n_jobs=n_jobs, backend=backend, executor=executor).map(analyse, paths)
    else:
        reports = ProgressParallel(n_jobs=n_jobs, backend=backend).map(analyse, paths)
    return reports


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text under a header, the first column to the left and the others to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, ["-" * width for width in widths], *rows]:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        print(row[0].ljust(widths[0]), *cells[1:])
    print()


def print_report(reports: Sequence[Report], top: int) -> None:
    """Print the modules with the most branches, and every file that could not be parsed."""
    parsed = sorted((report for report in reports if not report.problem), key=lambda report: -report.branches)
    failed = [report for report in reports if report.problem]
    print(f"\nThe {top} modules with the most branches, of {len(parsed)} parsed:\n")
    print_table(
        ["module", "functions", "branches", "longest function", "lines"],
        [
            [report.module, str(report.functions), str(report.branches), report.longest_name, str(report.longest_lines)]
            for report in parsed[:top]
        ],
    )
    print(f"All together: {sum(r.functions for r in parsed)} functions, {sum(r.branches for r in parsed)} branches.")
    print(f"{len(failed)} files could not be parsed:")
    for report in failed:
        print(f"  {report.module}: {report.problem}")


def main() -> None:
    """Run the job on every backend and compare."""
    parser = argparse.ArgumentParser(description="Report on the standard library's source, on every installed backend.")
    parser.add_argument("--backends", nargs="*", default=installed_backends(), help="default: every installed one")
    parser.add_argument("--n-jobs", type=int, default=cpu_count(), help="number of workers (default: %(default)s)")
    parser.add_argument("--top", type=int, default=10, help="modules in the table (default: %(default)s)")
    options = parser.parse_args()

    root = Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "dist-packages"}  # installed, not part of the standard library
    paths = sorted(path for path in root.rglob("*.py") if skipped.isdisjoint(path.relative_to(root).parts))
    size = sum(len(path.read_bytes()) for path in paths)  # read once here, so that no run has to wait for the disk
    print(f"{len(paths)} files, {size / 1e6:.1f} MB in {root} (without {' and '.join(sorted(skipped))})")

    answer: list[Report] = []
    times: list[tuple[str, int, float]] = []
    for backend in ["sequential", *options.backends]:
        n_jobs = 1 if backend == "sequential" else options.n_jobs
        print(f"\n{backend}, {n_jobs} worker{'s' * (n_jobs != 1)}", flush=True)
        start = time.monotonic()
        reports = run(backend, n_jobs, paths)
        times.append((backend, n_jobs, time.monotonic() - start))
        if reports != (answer or reports):
            raise SystemExit(f"{backend} gave another answer than the sequential run")
        answer = reports

    print_report(answer, options.top)
    print("\nThe same answer from all of them, in (wall time, start of the workers included):\n")
    print_table(
        ["backend", "workers", "seconds", "speed-up"],
        [
            [backend, str(n_jobs), f"{seconds:.2f}", f"{times[0][2] / seconds:.2f} x"]
            for backend, n_jobs, seconds in times
        ],
    )
    if "threads" in options.backends:
        print("Threads take turns at running Python code, so this job gains nothing from them.")


if __name__ == "__main__":
    main()
