"""The rules of the design that can be read off the source: who may import whom, and what must not appear anywhere.

Nothing is imported here: the files are parsed.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "packages/core/src/parallel"

#: The modules of the core, top to bottom: a module imports from lines below its own. A new file has to find its place.
CORE_LAYERS = [
    {"__main__"},
    {"__init__"},
    {"_parallel"},
    {"_explanation"},
    {"_setup"},
    {"_short"},
    {"_plan"},
    {"_generator", "_inline"},
    {"_progress"},
    {"_call"},
    {"_experience"},
    {"_scheduler"},
    {"_dispatch"},
    {"_actions", "_batching", "_lanes", "_limits", "_pending", "_results", "_states"},
    {"_share"},
    {"_config", "_lease", "_terms"},
    {"_arguments"},
    {"_plugins"},
    {"_sequential", "hookspecs"},
    {"_jobs"},
    {"backend"},
    {"_carrier"},
    {"_worker", "_warm", "_watch"},
    {"_quick"},
    {"_running"},
    {"_context"},
    {"_outcomes"},
    {"_emissions", "_serialize", "_source"},
    {"_shared"},
    {"_imports", "_kept", "_memory"},
    {"_exports", "_rooms"},
    {"_parcel"},
    {"_explain"},
    {"_codec"},
    {"_failures"},
    {"_in_flight", "_outlets", "_sight"},
    {"_board", "_cpu"},
    {
        "_arithmetic",
        "_arrays",
        "_culprit",
        "_current",
        "_delayed",
        "_inner_threads",
        "_installed",
        "_late",
        "_pickling",
        "_region",
        "_retry",
        "_settings",
        "_task",
        "_tree",
    },
    {"_variables"},
    {"_interpreter"},
    {"errors"},
]

#: All that backends, and anyone else outside, may use of the core.
PUBLIC_CORE = {"parallel", "parallel.backend", "parallel.errors", "parallel.hookspecs"}

#: Must not be imported together with the core; inside functions they may.
NOT_AT_IMPORT = {"multiprocessing", "numpy", "loky", "concurrent", "asyncio"}

#: The one module that may know the names of particular backends, and only for messages and preferences.
KNOWS_NAMES = "_plugins"

#: Strings in the core that are spelled like a backend's name and mean something else: module, string.
MEANS_SOMETHING_ELSE = {
    ("_config", "threads"),  # the hint prefer="threads"
    ("_explanation", "threads"),  # where tasks run
    ("_terms", "threads"),  # the need that _plugins has preferences for
    ("_config", "multiprocessing"),  # the module of the standard library, for multiprocessing contexts
}

MAX_LINES = 450

BACKENDS = sorted(folder for folder in ROOT.glob("packages/backend-*"))
SOURCES = sorted(ROOT.glob("packages/*/src/**/*.py"))


@dataclass(frozen=True)
class Import:
    """One imported module, or a name in it."""

    module: str
    line: int
    in_function: bool
    for_types_only: bool


def imports(path: Path) -> Iterator[Import]:
    """Every import of a file; ``from parallel import _x`` counts as one of ``parallel._x``."""
    package = path.parent.relative_to(next(parent for parent in path.parents if parent.name == "src")).parts

    def walk(node: ast.AST, in_function: bool, for_types_only: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, in_function, for_types_only)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            source = ".".join(filter(None, [base, node.module or ""]))
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield Import(inner if _is_module(inner) else source, node.lineno, in_function, for_types_only)
        for field, value in ast.iter_fields(node):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from walk(
                        child,
                        in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda),
                        for_types_only or (_is_type_checking(node) and field == "body"),
                    )

    yield from walk(ast.parse(path.read_text("utf-8")), in_function=False, for_types_only=False)


def _is_module(name: str) -> bool:
    return name.startswith("parallel.") and (CORE / f"{name.removeprefix('parallel.')}.py").exists()


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def core_module(name: str) -> str | None:
    """The name of a module of the core within it; None for any other module."""
    if name == "parallel":
        return "__init__"
    return name.removeprefix("parallel.") if name.startswith("parallel.") else None


def strings_outside_docstrings(tree: ast.Module) -> Iterator[ast.Constant]:
    """Every string literal that is not a statement of its own."""
    statements = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in statements:
            yield node


def where(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def by_path(path: Path) -> str:
    return str(path.relative_to(ROOT / "packages"))


CORE_FILES = sorted(CORE.glob("*.py"))


def test_every_module_of_the_core_has_its_place() -> None:
    placed = [module for layer in CORE_LAYERS for module in layer]
    assert sorted(placed) == sorted({path.stem for path in CORE_FILES})
    assert len(placed) == len(set(placed))
    assert not [path for path in CORE.iterdir() if path.is_dir() and path.name != "__pycache__"]


@pytest.mark.parametrize("path", CORE_FILES, ids=lambda path: path.stem)
def test_the_core_imports_downwards_only(path: Path) -> None:
    height = {module: len(CORE_LAYERS) - index for index, layer in enumerate(CORE_LAYERS) for module in layer}
    upwards = [
        f"{where(path, found.line)} imports {found.module}{' inside a function' if found.in_function else ''}"
        for found in imports(path)
        if (module := core_module(found.module)) is not None
        and height.get(module, 0) >= height.get(path.stem, 0)
        and not found.for_types_only  # names in annotations bind nobody at run time
    ]
    assert upwards == []


@pytest.mark.parametrize("path", CORE_FILES, ids=lambda path: path.stem)
def test_the_core_imports_no_backend(path: Path) -> None:
    assert [found for found in imports(path) if found.module.startswith("parallel_")] == []


@pytest.mark.parametrize("path", CORE_FILES, ids=lambda path: path.stem)
def test_the_core_brings_nothing_heavy_along(path: Path) -> None:
    at_import = [found for found in imports(path) if not found.in_function and not found.for_types_only]
    assert [found for found in at_import if found.module.split(".")[0] in NOT_AT_IMPORT] == []


def test_the_core_knows_no_particular_backend() -> None:
    names = {
        name
        for backend in BACKENDS
        for name in tomllib.loads((backend / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"][
            "parallel.backends"
        ]
    }
    assert "loky" in names
    found = [
        f"{where(path, literal.lineno)}: {literal.value!r}"
        for path in CORE_FILES
        if path.stem != KNOWS_NAMES
        for literal in strings_outside_docstrings(ast.parse(path.read_text("utf-8")))
        if literal.value in names and (path.stem, literal.value) not in MEANS_SOMETHING_ELSE
    ]
    assert found == []


def test_the_package_itself_only_re_exports() -> None:
    tree = ast.parse((CORE / "__init__.py").read_text("utf-8"))
    other = [
        ast.unparse(node).splitlines()[0]
        for node in tree.body
        if not isinstance(node, ast.Import | ast.ImportFrom)
        and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        and not (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in {"__all__", "__version__", "_HOMES"})
    ]
    assert other == ["if TYPE_CHECKING:", "def __getattr__(name: str) -> Any:", "def __dir__() -> list[str]:"]


def test_what_the_package_re_exports_when_it_is_used_is_what_type_checkers_see() -> None:
    tree = ast.parse((CORE / "__init__.py").read_text("utf-8"))
    (seen,) = [node for node in tree.body if isinstance(node, ast.If)]
    homes = {
        alias.name: node.module.removeprefix("parallel.")
        for node in seen.body
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module != "parallel"
        for alias in node.names
    }
    given = {
        ast.unparse(node.targets[0]): ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)
    }
    assert given["_HOMES"] == homes
    assert given["__all__"] == sorted(homes)


def test_private_modules_of_the_core_start_with_an_underscore() -> None:
    assert {f"parallel.{path.stem}" for path in CORE_FILES if not path.stem.startswith("_")} | {
        "parallel"
    } == PUBLIC_CORE


@pytest.mark.parametrize("package", [*BACKENDS, ROOT / "packages/testkit"], ids=lambda path: path.name)
def test_a_package_uses_only_what_is_public_of_the_core_and_no_other_backend(package: Path) -> None:
    (own,) = [folder.name for folder in (package / "src").iterdir() if (folder / "__init__.py").exists()]
    forbidden = [
        f"{where(path, found.line)} imports {found.module}"
        for path in sorted((package / "src").rglob("*.py"))
        for found in imports(path)
        if found.module.split(".")[0].startswith("parallel")
        and found.module.split(".")[0] != own
        and found.module not in PUBLIC_CORE
    ]
    assert forbidden == []


@pytest.mark.parametrize("path", SOURCES, ids=by_path)
def test_nothing_sleeps_or_reads_the_wall_clock(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    forbidden = {"sleep", "time"}
    found = [
        node.lineno
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and ast.unparse(node) in {"time.sleep", "time.time"})
        or (isinstance(node, ast.ImportFrom) and node.module == "time" and forbidden & {a.name for a in node.names})
        or (isinstance(node, ast.Import) and any(a.name == "time" and a.asname for a in node.names))
    ]
    assert found == []


@pytest.mark.parametrize("path", SOURCES, ids=by_path)
def test_no_file_is_too_long_to_read(path: Path) -> None:
    lines = path.read_text("utf-8").count("\n")
    assert lines <= MAX_LINES


def test_nothing_is_in_the_wrong_folder() -> None:
    assert {folder.name for folder in ROOT.glob("packages/*")} == {
        path.parent.name for path in ROOT.glob("packages/*/pyproject.toml")
    }
    assert sorted(path.parent.name for path in SOURCES if path.name == "__init__.py") == sorted(
        path.parent.name for path in ROOT.glob("packages/*/src/*/py.typed")
    )
