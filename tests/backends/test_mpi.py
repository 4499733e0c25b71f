"""The backend futures on an executor of a third party: MPI, which is there for every machine as wheels."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = Path(__file__).with_name("mpi_suite.py")

#: The workers import it too, under another name.
PROBE = """
from mpi4py.futures import MPIPoolExecutor

if __name__ == "__main__":
    with MPIPoolExecutor() as executor:
        print(executor.submit(abs, -1).result())
"""


@pytest.fixture
def hang_seconds() -> float:
    return 300.0  # a whole suite in one test


def launcher(folder: Path) -> list[str]:
    if importlib.util.find_spec("mpi4py") is None:
        pytest.skip("mpi4py is not installed")
    beside = Path(sys.executable).with_name("mpiexec")
    mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
    if mpiexec is None:
        pytest.skip("there is no mpiexec")
    command = [mpiexec, "-n", "3", sys.executable, "-m", "mpi4py.futures"]  # one that submits, two workers
    probe = folder / "probe.py"
    probe.write_text(PROBE, "utf-8")
    tried = subprocess.run([*command, str(probe)], capture_output=True, text=True, timeout=60, check=False)
    if tried.stdout.strip() != "1":
        pytest.skip(f"MPI does not run here: {(tried.stderr or tried.stdout).strip()[-300:]}")
    return command


def test_the_suite_on_an_executor_of_mpi(tmp_path: Path) -> None:
    command = [*launcher(tmp_path), "-m", "pytest", "-q", "-p", "no:cacheprovider", str(SUITE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    assert " passed" in done.stdout
