"""What docs/how-to-write-a-backend.md says, step by step, with real wheels: the files, the wheel, the kit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.wheels.conftest import ROOT, Environment, build_wheel

pytestmark = pytest.mark.wheels

#: A file's name at the beginning of a paragraph, and the block that comes next.
FILE = re.compile(r"^`([\w./]+)`\. .*?^```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_a_backend_made_from_the_page_alone_passes_the_kit(wheels: dict[str, Path], tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to-write-a-backend.md").read_text("utf-8")
    project = tmp_path / "parallel-backend-pool"
    files = dict(FILE.findall(page))
    assert sorted(files) == ["pyproject.toml", "src/parallel_backend_pool/__init__.py", "tests/test_pool.py"]
    for name, text in {**files, "README.md": "A backend.\n"}.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text, "utf-8")

    wheel = build_wheel(project, tmp_path / "dist")
    installed = Environment(tmp_path / "venv", [wheels["core"], wheels["testkit"], wheel])
    report = installed.command("-m", "pytest", "-q", "-p", "no:cacheprovider", str(project / "tests"))

    assert "conformance of TestPool" in report
    assert re.search(r"^callback contract +[1-9]\d+ +0 +0$", report, re.MULTILINE)
    assert re.search(r"^\d+ passed, \d+ skipped in ", report, re.MULTILINE)
