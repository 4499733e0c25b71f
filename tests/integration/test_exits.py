"""How programs end: in the middle of a call, by a signal, in a forked child, and with tasks that misbehave."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.programs import BACKENDS, Program, finish, without_tracker

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")

every_backend = pytest.mark.parametrize("backend", BACKENDS)
every_process_backend = pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "threads"])


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    program = Program(tmp_path)
    yield program
    program.close()


# -- where a call is made ----------------------------------------------------------------------------------------------


@every_backend
@pytest.mark.parametrize("first", ["", "make().map(quick, range(5))"], ids=["first call", "second call"])
def test_a_call_in_an_exit_handler_runs_its_tasks_in_the_caller(program: Program, backend: str, first: str) -> None:
    process = program.start(
        backend,
        f"""
atexit.register(late)
{first}
""",
        """
def late():
    print(make().map(quick, range(5)), list(make(return_as="generator").map(quick, range(5))))
""",
    )
    code, out, err = finish(process)
    assert (code, out) == (0, "[0, 1, 2, 3, 4] [0, 1, 2, 3, 4]\n")
    assert "the interpreter is exiting" in err
    assert "Traceback" not in err
    program.assert_nothing_left(process.pid)


@every_backend
def test_a_call_in_a_daemonic_process_works(program: Program, backend: str) -> None:
    process = program.start(
        backend,
        """
child = multiprocessing.get_context("fork").Process(target=call, daemon=True)
child.start()
child.join()
sys.exit(child.exitcode)
""",
        """
def call():
    print(make().map(quick, range(5)), list(make(return_as="generator").map(quick, range(5))))
""",
    )
    code, out, err = finish(process)
    assert (code, out) == (0, "[0, 1, 2, 3, 4] [0, 1, 2, 3, 4]\n")
    assert "Traceback" not in err
    if backend == "threads":
        assert err == ""
    else:
        assert "this is a daemonic process, which may not have children" in err
    program.assert_nothing_left(process.pid)


@every_backend
def test_a_call_in_a_thread_works(program: Program, backend: str) -> None:
    process = program.start(
        backend,
        """
thread = threading.Thread(target=call)
thread.start()
thread.join()
""",
        """
def call():
    print(make().map(quick, range(5)), list(make(return_as="generator").map(quick, range(5))))
""",
    )
    assert finish(process) == (0, "[0, 1, 2, 3, 4] [0, 1, 2, 3, 4]\n", "")
    program.assert_nothing_left(process.pid)


@every_backend
def test_a_call_in_a_thread_after_the_main_one_has_ended_runs_its_tasks_there(program: Program, backend: str) -> None:
    process = program.start(
        backend,
        "threading.Thread(target=call).start()",
        """
def call():
    threading.main_thread().join()
    print(make().map(quick, range(5)), list(make(return_as="generator").map(quick, range(5))))
""",
    )
    code, out, err = finish(process)
    assert (code, out) == (0, "[0, 1, 2, 3, 4] [0, 1, 2, 3, 4]\n")
    assert "the interpreter is exiting" in err
    assert "Traceback" not in err
    program.assert_nothing_left(process.pid)


@every_backend
@pytest.mark.parametrize("mode", ["list", "generator"])
def test_a_program_that_ends_while_a_daemon_thread_is_in_a_call(program: Program, backend: str, mode: str) -> None:
    process = program.start(
        backend,
        """
threading.Thread(target=call, daemon=True).start()
is_running.wait()
print("end")
""",
        f"""
is_running = threading.Event()

def tasks():
    yield delayed(slow)(0)
    yield delayed(slow)(1)
    is_running.set()
    yield delayed(slow)(2)

def call():
    list(make(return_as={mode!r})(tasks()))
""",
    )
    code, out, _ = finish(process)  # Python may or may not have the time to print what is raised in the thread
    assert (code, out) == (0, "end\n")
    program.assert_nothing_left(process.pid)


# -- Ctrl-C ------------------------------------------------------------------------------------------------------------


@every_backend
@pytest.mark.parametrize("where", ["in a list call", "in next of a generator", "in the input"])
def test_an_interrupt_of_the_caller_ends_the_call_and_the_next_one_works(
    program: Program, backend: str, where: str
) -> None:
    mode = "generator" if "generator" in where else "list"
    process = program.start(
        backend,
        f"""
with make(return_as={mode!r}) as parallel:
    try:
        list(parallel({"tasks()" if where == "in the input" else "[delayed(slow)(i) for i in range(20)]"}))
    except KeyboardInterrupt:
        print("interrupted")
    warnings.simplefilter("ignore")
    print(sum(parallel.map(quick, range(10))))
""",
        """
def tasks():
    yield delayed(slow)(0)
    yield delayed(slow)(1)
    threading.Event().wait()
""",
    )
    program.mailbox.receive(2)
    os.kill(process.pid, signal.SIGINT)
    code, out, err = finish(process)
    assert (code, out) == (0, "interrupted\n45\n"), err
    assert "Traceback" not in err
    if mode == "list":
        assert err == ""
    program.assert_nothing_left(process.pid)


@every_backend
@pytest.mark.parametrize("mode", ["list", "generator"])
def test_an_interrupt_that_nobody_catches_ends_the_program(program: Program, backend: str, mode: str) -> None:
    process = program.start(backend, f"list(make(return_as={mode!r}).map(slow, range(20)))")
    program.mailbox.receive(2)
    os.killpg(process.pid, signal.SIGINT)
    code, out, err = finish(process)
    assert (code, out) == (-signal.SIGINT, ""), err
    # A generator that was not even begun is closed, with its warning, when the traceback is let go.
    assert "\nKeyboardInterrupt\n" in err
    assert not any(said in err for said in ("Exception ignored", "Exception in thread", "Error:")), err
    program.assert_nothing_left(process.pid)


# -- a caller that forks -----------------------------------------------------------------------------------------------

FORK = """
warnings.simplefilter("ignore", DeprecationWarning)  # from Python 3.12 on there is one for a fork beside threads

def fork():
    child = os.fork()
    if child == 0:
        {leave}
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""
every_leave = pytest.mark.parametrize("leave", ["sys.exit(3)", "os._exit(3)"])


@every_backend
@every_leave
@pytest.mark.parametrize("mode", ["list", "generator"])
def test_a_fork_inside_the_input_is_nothing_to_the_call(program: Program, backend: str, leave: str, mode: str) -> None:
    process = program.start(
        backend,
        f"""
print(sum(make(return_as={mode!r})(tasks())), code)
""",
        FORK.format(leave=leave)
        + """
def tasks():
    global code
    for i in range(100):
        if i == 50:
            code = fork()
        yield delayed(quick)(i)
""",
    )
    # With a generator the fork is made by a thread, and there sys.exit ends that thread alone.
    expected = 0 if (mode, leave) == ("generator", "sys.exit(3)") else 3
    assert finish(process) == (0, f"4950 {expected}\n", "")
    program.assert_nothing_left(process.pid)


@every_backend
@every_leave
def test_a_fork_while_a_generator_lives_is_nothing_to_the_call(program: Program, backend: str, leave: str) -> None:
    process = program.start(
        backend,
        """
results = make(return_as="generator").map(quick, range(100))
first = next(results)
code = fork()
print(first + sum(results), code)
""",
        FORK.format(leave=leave),
    )
    assert finish(process) == (0, "4950 3\n", "")
    program.assert_nothing_left(process.pid)


@every_backend
@every_leave
def test_a_fork_inside_a_block_is_nothing_to_the_block(program: Program, backend: str, leave: str) -> None:
    process = program.start(
        backend,
        """
with make() as parallel:
    before = sum(parallel.map(quick, range(100)))
    code = fork()
    print(before, code, sum(parallel.map(quick, range(100))))
""",
        FORK.format(leave=leave),
    )
    assert finish(process) == (0, "4950 3 4950\n", "")
    program.assert_nothing_left(process.pid)


@every_backend
def test_a_forked_child_cannot_take_results_of_its_parents_generator(program: Program, backend: str) -> None:
    process = program.start(
        backend,
        """
results = make(return_as="generator").map(abs, range(10))
assert next(results) == 0
sys.stdout.flush()
child = os.fork()
if not child:
    try:
        next(results)
    except RuntimeError as error:
        os._exit(0 if "belongs to the parent" in str(error) else 1)
    os._exit(2)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), list(results))
""",
        FORK,
    )
    assert finish(process) == (0, "0 [1, 2, 3, 4, 5, 6, 7, 8, 9]\n", "")
    program.assert_nothing_left(process.pid)


@every_backend
def test_a_forked_child_may_make_calls_of_its_own(program: Program, backend: str) -> None:
    process = program.start(
        backend,
        """
with make() as parallel:
    before = sum(parallel.map(quick, range(100)))
    code = fork()
    print(before, code, sum(parallel.map(quick, range(100))))
""",
        FORK.format(leave="sys.exit(sum(make().map(quick, range(10))))"),
    )
    code, out, err = finish(process)
    assert (code, out) == (0, "4950 45 4950\n")
    assert without_tracker(err) == ""
    program.assert_nothing_left(process.pid)


@every_backend
def test_a_child_process_may_make_calls_of_its_own(program: Program, backend: str) -> None:
    process = program.start(
        backend,
        """
make().map(quick, range(5))
child = multiprocessing.get_context("fork").Process(target=call)
child.start()
child.join()
sys.exit(child.exitcode)
""",
        """
def call():
    print(make().map(quick, range(5)), list(make(return_as="generator").map(quick, range(5))))
""",
    )
    code, out, err = finish(process)
    assert (code, out) == (0, "[0, 1, 2, 3, 4] [0, 1, 2, 3, 4]\n")
    assert without_tracker(err) == ""
    program.assert_nothing_left(process.pid)


# -- tasks that misbehave ----------------------------------------------------------------------------------------------


@every_backend
def test_tasks_that_fork(program: Program, backend: str) -> None:
    process = program.start(
        backend,
        "print(make().map(fork, range(6)))",
        """
warnings.simplefilter("ignore", DeprecationWarning)

def fork(number):
    warnings.simplefilter("ignore", DeprecationWarning)
    child = os.fork()
    if child == 0:
        os._exit(number)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
""",
    )
    assert finish(process) == (0, "[0, 1, 2, 3, 4, 5]\n", "")
    program.assert_nothing_left(process.pid)


@every_backend
def test_a_child_that_a_task_lets_go_on_does_not_answer(program: Program, backend: str) -> None:
    process = program.start(
        backend,
        "print(make().map(fork, range(6)))",
        """
def fork(number):
    warnings.simplefilter("ignore", DeprecationWarning)
    return number if os.fork() else "the child"
""",
    )
    assert finish(process) == (0, "[0, 1, 2, 3, 4, 5]\n", "")
    program.assert_nothing_left(process.pid)


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "loky"])
@pytest.mark.parametrize("leave", ["return", "os._exit(0)"])
def test_a_child_that_a_thread_of_a_task_has_forked_does_not_answer(program: Program, backend: str, leave: str) -> None:
    process = program.start(
        backend,
        "print(make().map(work, range(6)), list(make(return_as='generator').map(work, range(6))))",
        f"""
warnings.simplefilter("ignore", DeprecationWarning)

def fork():
    warnings.simplefilter("ignore", DeprecationWarning)
    child = os.fork()
    if child == 0:
        {leave}
    os.waitpid(child, 0)

def work(number):
    thread = threading.Thread(target=fork)
    thread.start()
    thread.join()
    return number
""",
    )
    assert finish(process) == (0, "[0, 1, 2, 3, 4, 5] [0, 1, 2, 3, 4, 5]\n", "")
    program.assert_nothing_left(process.pid)


@every_backend
def test_tasks_that_start_daemon_threads(program: Program, backend: str) -> None:
    process = program.start(
        backend,
        "print(make().map(start, range(6)))",
        """
def start(number):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    return number
""",
    )
    assert finish(process) == (0, "[0, 1, 2, 3, 4, 5]\n", "")
    program.assert_nothing_left(process.pid)


@every_process_backend
def test_tasks_that_close_stdout_and_print(program: Program, backend: str) -> None:
    process = program.start(
        backend,
        "print(make(return_exceptions=True).map(close_and_print, range(4)))",
        """
def close_and_print(number):
    sys.stdout.close()
    try:
        print(number)
    except ValueError:
        return number
""",
    )
    assert finish(process) == (0, "[0, 1, 2, 3]\n", "")
    program.assert_nothing_left(process.pid)


@every_process_backend
def test_children_of_tasks_end_with_a_program_that_is_killed(program: Program, backend: str) -> None:
    process = program.start(
        backend,
        "make().map(start, range(2))",
        """
def start(number):
    code = "import threading; print(1, flush=True); threading.Event().wait()"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    child.stdout.readline()
    slow(number)
""",
    )
    program.mailbox.receive(2)
    process.kill()
    assert finish(process)[0] == -signal.SIGKILL
    program.assert_nothing_left(process.pid)


def test_a_task_of_loky_that_leaves_a_thread_does_not_hold_the_exit(program: Program) -> None:
    process = program.start("loky", "print(make().map(leave_thread, [1, 2]))", LEAVES_THREAD)
    assert finish(process) == (0, "[1, 2]\n", "")
    program.assert_nothing_left(process.pid)


#: What waits here is no daemon: an interpreter that ends waits for it.
LEAVES_THREAD = """
def leave_thread(i):
    threading.Thread(target=gate.wait).start()
    return i
"""
