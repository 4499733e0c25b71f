"""The scan of installed distributions, beside importlib_metadata, which it stands in for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import importlib_metadata
import pytest

from parallel import _installed


@pytest.fixture(autouse=True)
def _look_again() -> Iterator[None]:
    _installed.forget()
    yield
    _installed.forget()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return tmp_path


def declare(folder: Path, metadata: str, text: str, name: str = "some-dist") -> None:
    (folder / metadata).mkdir(parents=True)
    file = "PKG-INFO" if metadata.endswith(("egg-info", "EGG-INFO")) else "METADATA"
    (folder / metadata / file).write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n\nName: other\n")
    (folder / metadata / "entry_points.txt").write_text(text)


def found(group: str) -> set[tuple[str, str, str]]:
    return {(ep.name, ep.value, ep.dist.name if ep.dist else "") for ep in _installed.entry_points(group)}


def expected(group: str) -> set[tuple[str, str, str]]:
    return {(ep.name, ep.value, ep.dist.name) for ep in importlib_metadata.entry_points(group=group)}


@pytest.mark.parametrize("group", ["parallel.backends", "parallel.plugins"])
def test_what_is_installed_is_what_importlib_metadata_finds(group: str) -> None:
    assert _installed._scan() is not None
    assert found(group) == expected(group)


@pytest.mark.parametrize("metadata", ["Some_Dist-1.0.dist-info", "some_dist-1.0-py3.11.egg-info", "some_dist.egg-info"])
@pytest.mark.parametrize(
    "text",
    [
        "[parallel.backends]\none = module:name\ntwo=module.sub:a.b [extra]\n",
        "# a comment\n[console_scripts]\none = x:y\n\n[ parallel.backends ]\n  one = module\n[other]\none = z\n",
        "[parallel.plugins]\none = module\n",
        "",
    ],
)
def test_a_distribution_is_read_as_importlib_metadata_reads_it(folder: Path, metadata: str, text: str) -> None:
    declare(folder, metadata, text, "Some.Dist")
    for group in ("parallel.backends", "parallel.plugins"):
        assert found(group) == expected(group)


def test_the_first_of_two_that_have_one_name_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, spelling in enumerate(["some_dist", "Some.Dist"]):
        declare(tmp_path / str(number), f"{spelling}-1.0.dist-info", f"[parallel.backends]\none = module{number}\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "0"), str(tmp_path / "1"), *sys.path])
    assert {value for name, value, _ in found("parallel.backends") if name == "one"} == {"module0"}


def test_an_egg_is_read_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    egg = tmp_path / "some_dist-1.0.egg"
    declare(egg, "EGG-INFO", "[parallel.backends]\none = module\n")
    monkeypatch.setattr(sys, "path", [str(egg), *sys.path])
    assert found("parallel.backends") == expected("parallel.backends")
    assert ("one", "module", "some-dist") in found("parallel.backends")


def test_an_archive_on_the_path_is_left_to_importlib_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "some.zip"
    with ZipFile(archive, "w") as file:
        file.writestr("some_dist-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: some-dist\nVersion: 1.0\n")
        file.writestr("some_dist-1.0.dist-info/entry_points.txt", "[parallel.backends]\none = module\n")
    monkeypatch.setattr(sys, "path", [str(archive), *sys.path])
    assert _installed._scan() is None
    assert ("one", "module", "some-dist") in found("parallel.backends")


def test_another_finder_of_distributions_is_asked_by_importlib_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder:
        def find_spec(self, *args: Any) -> None:
            return None

        def find_distributions(self, context: Any = None) -> list[Any]:
            return []

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder()])
    assert _installed._scan() is None
    assert found("parallel.backends") == expected("parallel.backends")


def test_folders_that_are_not_there_and_files_that_cannot_be_read_are_passed_over(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "broken-1.0.dist-info").mkdir()
    (folder / "broken-1.0.dist-info" / "entry_points.txt").write_bytes(b"[parallel.backends]\none = \xff\xfe\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder / "not-there")])
    assert "one" not in {name for name, _, _ in found("parallel.backends")}


def test_an_entry_point_is_imported_with_its_attributes(folder: Path) -> None:
    declare(folder, "some_dist-1.0.dist-info", "[parallel.backends]\none = os:path.join\ntwo = os.path [x]\n")
    by_name = {ep.name: ep.load() for ep in _installed.entry_points("parallel.backends") if ep.name in ("one", "two")}
    import os

    assert by_name == {"one": os.path.join, "two": os.path}


def test_what_was_installed_meanwhile_is_found_after_forgetting(folder: Path) -> None:
    assert "late" not in {name for name, _, _ in found("parallel.backends")}
    declare(folder, "late-1.0.dist-info", "[parallel.backends]\nlate = module\n")
    assert "late" not in {name for name, _, _ in found("parallel.backends")}
    _installed.forget()
    assert "late" in {name for name, _, _ in found("parallel.backends")}
