"""The plugin that docs/context.md shows, with the library that it is for."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from parallel import Parallel, register_plugin, unregister_plugin

PAGE = Path(__file__).parents[2] / "docs/context.md"


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module of the page, where workers can import it."""
    code = re.search(r"```python\n(# sklearn_context\.py\n.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert code is not None
    (tmp_path / "sklearn_context.py").write_text(code[1], "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # for workers that do not begin as a copy
    module = importlib.import_module("sklearn_context")
    register_plugin(module)
    yield module
    unregister_plugin(module)
    del sys.modules["sklearn_context"]


def configured(_: Any = None) -> Any:
    import sklearn

    return sklearn.get_config()["assume_finite"]


#: Workers with an initializer are new ones: those that are warm do not know the module's folder.
NEW: dict[str, Any] = {"initializer": abs, "initargs": (1,)}


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    "backend",
    [
        {"backend": "threads"},
        {"backend": "loky", **NEW},
        {"backend": "mp", "start_method": "fork", **NEW},
        {"backend": "mp", "start_method": "spawn", **NEW},
    ],
    ids=["threads", "loky", "mp-fork", "mp-spawn"],
)
def test_the_configuration_of_sklearn_reaches_tasks(backend: dict[str, Any]) -> None:
    import sklearn

    with Parallel(n_jobs=2, **backend) as parallel:
        for value in (True, False, True):
            with sklearn.config_context(assume_finite=value):
                assert set(parallel.map(configured, range(20))) == {value}
    assert configured() is False
