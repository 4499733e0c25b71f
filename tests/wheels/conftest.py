"""Real wheels, installed in fresh virtual environments.

uv does the work where there is one (hatch says where its own is); otherwise the pip of this environment.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
UV = os.environ.get("HATCH_UV") or shutil.which("uv")
TIMEOUT_SECONDS = 300

#: Nothing of the environment that runs the tests may leak into those under test.
CLEAN_ENVIRONMENT = {
    name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HATCH_", "VIRTUAL_ENV"))
}


def command(*arguments: object) -> str:
    """Run a command and give what it printed."""
    done = subprocess.run(
        [str(argument) for argument in arguments],
        cwd=ROOT,
        env=CLEAN_ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{arguments} failed:\n{done.stdout}{done.stderr}"
    return done.stdout


def build_wheel(project: Path, folder: Path) -> Path:
    """Build the wheel of a project into a folder; with uv from its source distribution, so that this is tested too."""
    before = set(folder.glob("*.whl"))
    if UV:
        command(UV, "build", "--quiet", "--out-dir", folder, project)
    else:
        command(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, project)
    (made,) = set(folder.glob("*.whl")) - before
    return made


class Environment:
    """A virtual environment with some wheels in it."""

    def __init__(self, folder: Path, requirements: Sequence[object]) -> None:
        self.python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        if UV:
            command(UV, "venv", "--quiet", "--python", sys.executable, folder)
            command(UV, "pip", "install", "--quiet", "--python", self.python, *requirements)
        else:
            command(sys.executable, "-m", "venv", folder)
            command(self.python, "-m", "pip", "install", "--quiet", *requirements)

    def run(self, code: str) -> Any:
        """Run code; give what it leaves in the variable ``answer``, through JSON."""
        script = f"{textwrap.dedent(code)}\nimport json\nprint(json.dumps(answer))"
        return json.loads(self.command("-c", script).splitlines()[-1])

    def command(self, *arguments: str) -> str:
        """Run its Python, isolated, with warnings as errors, and give what it printed."""
        return command(self.python, "-I", "-W", "error", *arguments)


MakeEnvironment = Callable[..., Environment]


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel of every package of the workspace, by the name of its folder."""
    folder = tmp_path_factory.mktemp("wheels")
    return {project.name: build_wheel(project, folder) for project in sorted(ROOT.glob("packages/*"))}


@pytest.fixture(scope="session")
def environment(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> MakeEnvironment:
    """Make an environment with the core and the packages named, once for each choice of packages."""

    @functools.cache
    def make(*packages: str, extra: str = "") -> Environment:
        core = f"{wheels['core']}[{extra}]" if extra else wheels["core"]
        # By path, never by name: an index may have something else under our names.
        return Environment(
            tmp_path_factory.mktemp("environment") / "venv", [core, *(wheels[package] for package in packages)]
        )

    return make
