from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from parallel import _cpu, cpu_count
from parallel._cpu import _read_cgroup_quota

NO_LIMIT = math.inf


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host of 16 CPUs and nothing that limits them."""
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(_cpu, "_cgroup_quota", lambda: NO_LIMIT)
    monkeypatch.setattr(_cpu, "_physical_cores", lambda: 8)
    monkeypatch.delenv("PARALLEL_MAX_CPUS", raising=False)
    monkeypatch.delenv("LOKY_MAX_CPU_COUNT", raising=False)


# -- the smallest limit counts -----------------------------------------------------------------------------------------


def test_without_limits_all_cpus_of_the_host_count() -> None:
    assert cpu_count() == 16


def test_the_affinity_of_the_process_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 5, 7}, raising=False)
    assert cpu_count() == 3


def test_where_there_is_no_affinity_the_host_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> set[int]:
        raise OSError

    monkeypatch.setattr(os, "sched_getaffinity", refuse, raising=False)
    assert cpu_count() == 16
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cpu_count() == 16


def test_the_quota_of_the_cgroup_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cpu, "_cgroup_quota", lambda: 4.5)
    assert cpu_count() == 5
    assert _cpu.cpu_limit() == (5, "limited by the cgroup's quota of 4.5 CPUs")


@pytest.mark.parametrize("name", ["PARALLEL_MAX_CPUS", "LOKY_MAX_CPU_COUNT"])
def test_environment_variables_count(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "4")
    assert cpu_count() == 4
    monkeypatch.setenv(name, "64")
    assert cpu_count() == 16
    monkeypatch.setenv(name, "")
    assert cpu_count() == 16


@pytest.mark.parametrize("text", ["0", "-2", "many", "1.5"])
@pytest.mark.parametrize("name", ["PARALLEL_MAX_CPUS", "LOKY_MAX_CPU_COUNT"])
def test_a_wrong_environment_variable_is_a_value_error_that_names_it(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(ValueError, match=name):
        cpu_count()


def test_there_is_always_one_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    monkeypatch.setattr(_cpu, "_cgroup_quota", lambda: 0)
    assert cpu_count() == 1


def test_physical_cores_count_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cpu_count(only_physical_cores=True) == 8
    monkeypatch.setenv("PARALLEL_MAX_CPUS", "2")
    assert cpu_count(only_physical_cores=True) == 2


def test_where_physical_cores_are_not_known_all_cpus_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cpu, "_physical_cores", lambda: None)
    assert cpu_count(only_physical_cores=True) == 16


# -- cgroups -----------------------------------------------------------------------------------------------------------


class Cgroups:
    """A file system with control groups."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "cgroup"
        self.own = folder / "own"
        self.root.mkdir()

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def quota(self, own: str) -> float:
        self.own.write_text(own)
        return _read_cgroup_quota(self.root, self.own)


@pytest.fixture
def cgroups(tmp_path: Path) -> Cgroups:
    return Cgroups(tmp_path)


@pytest.mark.parametrize(
    ("text", "quota"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 1.5),
        ("50000 100000\n", 0.5),
        ("max 100000\n", NO_LIMIT),
        ("nonsense", NO_LIMIT),
        ("100000 0", NO_LIMIT),
    ],
)
def test_version_2_quotas_count(cgroups: Cgroups, text: str, quota: float) -> None:
    cgroups.write("app/cpu.max", text)
    assert cgroups.quota("0::/app\n") == quota


def test_version_2_quotas_are_looked_for_on_the_way_up(cgroups: Cgroups) -> None:
    cgroups.write("slice/cpu.max", "300000 100000")
    cgroups.write("slice/app/cpu.max", "max 100000")
    assert cgroups.quota("0::/slice/app/deep\n") == 3


def test_in_a_container_the_quota_is_at_the_root(cgroups: Cgroups) -> None:
    cgroups.write("cpu.max", "400000 100000")
    assert cgroups.quota("0::/\n") == 4
    assert cgroups.quota("0::/docker/of/the/host\n") == 4


@pytest.mark.parametrize(("quota", "cpus"), [("250000", 2.5), ("-1", NO_LIMIT), ("", NO_LIMIT)])
def test_version_1_quotas_count(cgroups: Cgroups, quota: str, cpus: float) -> None:
    cgroups.write("cpu/app/cpu.cfs_quota_us", quota + "\n")
    cgroups.write("cpu/app/cpu.cfs_period_us", "100000\n")
    assert cgroups.quota("12:memory:/other\n4:cpu,cpuacct:/app\n") == cpus


def test_of_both_versions_the_smaller_quota_counts(cgroups: Cgroups) -> None:
    cgroups.write("cpu/cpu.cfs_quota_us", "500000")
    cgroups.write("cpu/cpu.cfs_period_us", "100000")
    cgroups.write("cpu.max", "200000 100000")
    assert cgroups.quota("1:cpu:/\n0::/\n") == 2


@pytest.mark.parametrize("own", ["", "0::/app\n", "3:cpuset:/app\n", "not a line of this kind\n"])
def test_where_nothing_is_set_there_is_no_limit(cgroups: Cgroups, own: str) -> None:
    assert cgroups.quota(own) == NO_LIMIT


def test_where_there_are_no_cgroups_there_is_no_limit(tmp_path: Path) -> None:
    assert _read_cgroup_quota(tmp_path / "none", tmp_path / "nothing") == NO_LIMIT
