from __future__ import annotations

import multiprocessing
import pickle
import subprocess
import sys
from typing import Any

import pytest

from parallel import errors

FACTS: dict[str, dict[str, Any]] = {
    "BackendError": {"backend": "b", "task_indices": range(3, 5)},
    "BackendContractError": {"backend": "b", "task_indices": range(3, 5)},
    "WorkerLostError": {"backend": "b", "task_indices": range(3, 5), "exit_code": 1, "signal": 9},
    "BackendNotFoundError": {"name": "n", "installed": ("a", "b")},
    "BackendConflictError": {"name": "n", "distributions": ("a", "b")},
    "TaskPicklingError": {"task_index": 3, "path": "args[0]"},
    "ResultPicklingError": {"path": "result[0]"},
    "TaskTimeoutError": {
        "task_index": 3,
        "function": "f",
        "backend": "b",
        "limit_seconds": 1.0,
        "ran_seconds": 1.5,
    },
    "CallTimeoutError": {"backend": "b", "limit_seconds": 1.0, "ran_seconds": 1.5},
    "TaskExit": {"attempts": 2},
    "ParallelError": {},
}


def make(name: str) -> errors.ParallelError:
    made: errors.ParallelError = getattr(errors, name)("what happened", **FACTS[name])
    return made


def test_every_error_is_listed_here() -> None:
    assert set(errors.__all__) == {*FACTS, "RemoteTraceback"}


@pytest.mark.parametrize("name", FACTS)
def test_an_error_survives_pickling_with_all_its_facts(name: str) -> None:
    error = make(name)
    error.add_note("a note")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert copy.args == ("what happened",)
    assert {fact: getattr(copy, fact) for fact in FACTS[name]} == FACTS[name]
    assert copy.__notes__ == ["a note"]


@pytest.mark.parametrize("name", FACTS)
def test_an_error_shows_its_message_and_nothing_else(name: str) -> None:
    error = make(name)
    assert str(error) == error.message == "what happened"


@pytest.mark.parametrize("name", FACTS)
def test_every_error_can_be_caught_as_a_parallel_error(name: str) -> None:
    assert isinstance(make(name), errors.ParallelError)
    assert isinstance(make(name), Exception)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("TaskTimeoutError", (TimeoutError, multiprocessing.TimeoutError)),
        ("CallTimeoutError", (TimeoutError, multiprocessing.TimeoutError)),
        ("TaskPicklingError", (pickle.PicklingError,)),
        ("ResultPicklingError", (pickle.PicklingError,)),
        ("BackendNotFoundError", (ValueError,)),
        ("BackendConflictError", (ValueError,)),
        ("BackendError", (RuntimeError,)),
        ("WorkerLostError", (RuntimeError, errors.BackendError)),
        ("BackendContractError", (RuntimeError, errors.BackendError)),
    ],
)
def test_errors_can_be_caught_as_what_programs_expect(name: str, kinds: tuple[type, ...]) -> None:
    assert all(isinstance(make(name), kind) for kind in kinds)


def test_facts_that_are_not_given_have_a_value_all_the_same() -> None:
    error = errors.WorkerLostError("what happened")
    assert (error.backend, error.task_indices, error.exit_code, error.signal) == ("", range(0), None, None)
    assert errors.TaskExit("what happened").attempts == 1


def test_a_class_that_is_made_on_first_use_is_made_once() -> None:
    assert errors.TaskTimeoutError is errors.TaskTimeoutError
    assert errors.CallTimeoutError is errors.CallTimeoutError


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="NoSuchError"):
        errors.NoSuchError  # noqa: B018


def test_a_remote_traceback_shows_its_text() -> None:
    remote = errors.RemoteTraceback("Traceback ...\n")
    assert str(remote) == '\n"""\nTraceback ...\n"""'
    assert pickle.loads(pickle.dumps(remote)).text == "Traceback ...\n"


def test_importing_the_errors_does_not_import_multiprocessing_and_the_timeout_errors_do() -> None:
    code = (
        "import sys\n"
        "import parallel.errors\n"
        "print('multiprocessing' in sys.modules)\n"
        "parallel.errors.TaskTimeoutError\n"
        "print('multiprocessing' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
