from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel import Parallel
from parallel._arguments import (
    check_batch_size,
    check_max_nbytes,
    check_mmap_mode,
    check_return_as,
    check_temp_folder,
    check_timeout,
    evaluate_pre_dispatch,
)
from parallel._arithmetic import evaluate

# -- return_as, batch_size, timeout ------------------------------------------------------------------------------------


@pytest.mark.parametrize("return_as", ["list", "generator", "generator_unordered"])
def test_the_three_ways_to_return_are_taken(return_as: str) -> None:
    assert check_return_as(return_as) == return_as


@pytest.mark.parametrize("return_as", ["unordered_generator", "", None, 1, [], ["list"]])
def test_any_other_way_to_return_is_a_value_error(return_as: Any) -> None:
    with pytest.raises(ValueError, match="generator_unordered"):
        check_return_as(return_as)


@pytest.mark.parametrize(("batch_size", "size"), [("auto", None), (1, 1), (500, 500), (np.int64(3), 3), (True, 1)])
def test_a_batch_size_is_auto_or_a_positive_integer(batch_size: Any, size: int | None) -> None:
    assert check_batch_size(batch_size) == size


@pytest.mark.parametrize("batch_size", [0, -1, "x", "5", 1.5, 2.0, None, [], math.nan, np.float64(2)])
def test_any_other_batch_size_is_a_value_error(batch_size: Any) -> None:
    with pytest.raises(ValueError, match="batch_size"):
        check_batch_size(batch_size)


@pytest.mark.parametrize(
    ("timeout", "seconds"), [(None, None), (1, 1.0), (0.25, 0.25), ("3", 3.0), (math.inf, None), (np.float32(2), 2.0)]
)
def test_a_timeout_is_none_or_a_positive_number(timeout: Any, seconds: float | None) -> None:
    assert check_timeout(timeout) == seconds


@pytest.mark.parametrize("timeout", [0, -1, math.nan, "x", [], -math.inf])
def test_any_other_timeout_is_a_value_error(timeout: Any) -> None:
    with pytest.raises(ValueError, match="timeout"):
        check_timeout(timeout)


# -- pre_dispatch ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pre_dispatch", "count"),
    [
        ("all", None),
        (7, 7),
        (np.int64(7), 7),
        ("2 * n_jobs", 8),
        ("2*n_jobs", 8),
        ("n_jobs", 4),
        ("1.5 * n_jobs", 6),
        ("1.5*n_jobs + 0.9", 6),
        ("(n_jobs + 1) // 2", 2),
        ("n_jobs ** 2 - 1", 15),
        ("10 % n_jobs", 2),
        ("-n_jobs + 5", 1),
        ("+3", 3),
        (" 12 ", 12),
        (2.0, 2),
    ],
)
def test_pre_dispatch_is_all_or_a_number_or_arithmetic_in_n_jobs(pre_dispatch: Any, count: int | None) -> None:
    assert evaluate_pre_dispatch(pre_dispatch, 4) == count


@pytest.mark.parametrize(
    "pre_dispatch",
    [
        "__import__('os')",
        "n_jobs/0",
        "n_jobs % 0",
        "",
        " ",
        "-1",
        "0",
        "9**9**9",
        "2 ** 1000",
        "2 ** -n_jobs",
        "n_jobs.real",
        "n_jobs()",
        "n_jobs if 1 else 2",
        "[1][0]",
        "lambda: 1",
        "True",
        "'a' * 5",
        "1j",
        "(-8) ** 0.5",
        "1e999",
        "n_job",
        "ALL",
        "n_jobs; 1",
        "1 <",
        "1 | 2",
        "~1",
        "not 1",
        "(n_jobs := 5)",
        "\x00",
        "(" * 30 + "1" + ")" * 30,
        "1" * 61,
        "1+" * 40 + "1",
        0,
        -3,
        0.5,
        2.9,
        None,
        [],
        {},
        math.nan,
        math.inf,
    ],
)
def test_any_other_pre_dispatch_is_a_value_error(pre_dispatch: Any) -> None:
    with pytest.raises(ValueError, match="pre_dispatch"):
        evaluate_pre_dispatch(pre_dispatch, 4)


# -- arithmetic --------------------------------------------------------------------------------------------------------


@given(text=st.text(max_size=80))
def test_no_text_does_more_than_give_a_number_or_a_value_error(text: str) -> None:
    try:
        value = evaluate(text, {"n_jobs": 4})
    except ValueError:
        return
    assert isinstance(value, (int, float))
    assert not abs(value) > 1e9


OPERATORS = st.sampled_from(["+", "-", "*", "/", "//", "%", "**"])
NUMBERS = st.one_of(st.integers(0, 10**10).map(str), st.floats(0, 1e12).map(repr), st.just("n_jobs"))
EXPRESSIONS = st.recursive(
    NUMBERS,
    lambda inner: st.one_of(
        st.tuples(inner, OPERATORS, inner).map("".join), inner.map("({})".format), inner.map("-{}".format)
    ),
    max_leaves=8,
)


@given(text=EXPRESSIONS)
def test_arithmetic_gives_what_python_gives_or_is_refused(text: str) -> None:
    try:
        value = evaluate(text, {"n_jobs": 4})
    except ValueError:
        return
    assert value == eval(text, {"n_jobs": 4})
    assert abs(value) <= 1e9


def test_powers_are_refused_before_they_are_computed() -> None:
    with pytest.raises(ValueError, match="too large"):
        evaluate("999999999 ** 999999999", {})


# -- large data --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "n_bytes"),
    [
        (None, None),
        (0, 0),
        (1000, 1000),
        ("64K", 64 << 10),
        ("1M", 1 << 20),
        (" 2g ", 2 << 30),
        (np.int64(7), 7),
    ],
)
def test_max_nbytes(value: object, n_bytes: int | None) -> None:
    assert check_max_nbytes(value) == n_bytes


@pytest.mark.parametrize("value", ["", "1", "M", "1MB", "-1M", "1.5M", "1T", "²K", -1, 1.5, True, [], b"1M"])
def test_a_max_nbytes_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="max_nbytes must be"):
        check_max_nbytes(value)
    with pytest.raises(ValueError, match="max_nbytes must be"):
        Parallel(n_jobs=2, max_nbytes=value)


def test_the_threshold_of_compression_is_checked_in_the_same_way() -> None:
    with pytest.raises(ValueError, match="compression_threshold must be"):
        Parallel(n_jobs=2, compression_threshold="much")


@pytest.mark.parametrize(("value", "mode"), [("r", "r"), ("c", "c"), ("r+", "r+"), ("w+", "r+"), (None, None)])
def test_mmap_mode(value: str | None, mode: str | None) -> None:
    assert check_mmap_mode(value) == mode


@pytest.mark.parametrize("value", ["w", "", "rw", 1, False, []])
def test_a_mmap_mode_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="mmap_mode must be one of 'r', 'c', 'r\\+', 'w\\+', None"):
        Parallel(n_jobs=2, mmap_mode=value)


@pytest.mark.parametrize(
    ("value", "path"), [(None, None), ("/somewhere", "/somewhere"), (Path("/some/where"), "/some/where")]
)
def test_temp_folder(value: object, path: str | None) -> None:
    assert check_temp_folder(value) == path


@pytest.mark.parametrize("value", ["", 5, b"/tmp", []])
def test_a_temp_folder_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="temp_folder must be a path"):
        Parallel(n_jobs=2, temp_folder=value)
