"""What programs leave behind when they end, however they end: nothing."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.programs import BACKENDS, Program, finish

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")

every_backend = pytest.mark.parametrize("backend", BACKENDS)
every_process_backend = pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "threads"])


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    program = Program(tmp_path)
    yield program
    program.close()


@every_backend
def test_a_program_that_ends_after_its_calls(program: Program, backend: str) -> None:
    process = program.start(
        backend,
        """
make().map(quick, range(100))
with make() as parallel:
    parallel.map(quick, range(100))
print(sum(make(return_as="generator").map(quick, range(100))))
""",
    )
    assert finish(process) == (0, "4950\n", "")
    program.assert_nothing_left(process.pid)


@every_backend
def test_a_program_that_ends_while_a_generator_is_half_consumed(program: Program, backend: str) -> None:
    process = program.start(
        backend,
        """
results = make(return_as="generator", pre_dispatch=1)(
    [delayed(quick)(0), *[delayed(slow)(i) for i in range(20)]]
)
print(next(results))
""",
    )
    assert finish(process) == (0, "0\n", "")
    program.assert_nothing_left(process.pid)


@every_backend
def test_a_program_that_ends_in_a_block(program: Program, backend: str) -> None:
    process = program.start(
        backend,
        """
parallel = make().__enter__()
parallel.map(quick, range(10))
sys.exit(3)
""",
    )
    assert finish(process) == (3, "", "")
    program.assert_nothing_left(process.pid)


@every_process_backend
def test_a_program_that_is_killed(program: Program, backend: str) -> None:
    process = program.start(backend, "make().map(slow, range(20))")
    program.mailbox.receive(2)  # two workers are inside tasks
    process.kill()
    assert finish(process)[0] == -signal.SIGKILL
    program.assert_nothing_left(process.pid)


@every_process_backend
def test_a_program_that_is_killed_while_its_workers_are_idle(program: Program, backend: str) -> None:
    process = program.start(
        backend,
        """
with make() as parallel:
    parallel.map(quick, range(20))
    mailbox.send("idle")
    gate.wait()
""",
    )
    program.mailbox.receive()
    process.kill()
    assert finish(process)[0] == -signal.SIGKILL
    program.assert_nothing_left(process.pid)


@every_process_backend
@pytest.mark.parametrize("mode", ["list", "generator"])
def test_one_interrupt_ends_the_call_and_the_next_one_works(program: Program, backend: str, mode: str) -> None:
    process = program.start(
        backend,
        f"""
with make(return_as={mode!r}) as parallel:
    try:
        list(parallel.map(slow, range(20)))
    except KeyboardInterrupt:
        print("interrupted")
    warnings.simplefilter("ignore")
    print(sum(parallel.map(quick, range(10))))
""",
    )
    program.mailbox.receive(2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    code, out, err = finish(process)
    assert (code, out) == (0, "interrupted\n45\n"), err
    assert "Traceback" not in err
    program.assert_nothing_left(process.pid)
