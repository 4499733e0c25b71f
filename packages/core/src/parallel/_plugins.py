"""Finds backends and plugins by entry points, and keeps what was registered at run time.

Nothing is scanned before the first question, and only the backend that is asked for is imported.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from parallel import _installed
from parallel.backend import ParallelBackendBase
from parallel.errors import BackendConflictError, BackendNotFoundError

if TYPE_CHECKING:
    import pluggy

    from parallel._installed import EntryPoint

__all__ = [
    "BUILT_IN",
    "backend_factory",
    "default_backend_name",
    "hooks",
    "installed_backends",
    "make_backend",
    "names_for",
    "plugin_manager",
    "register_parallel_backend",
    "register_plugin",
    "require_for",
    "unregister_plugin",
]

BACKEND_GROUP = "parallel.backends"
PLUGIN_GROUP = "parallel.plugins"

#: The one backend that the core brings along.
BUILT_IN = "sequential"

#: Names known to be ours and the distribution to install for them: the only place that knows backends by name, and
#: only for messages and preferences. Nothing here is imported.
KNOWN_DISTRIBUTIONS = {
    "threads": "parallel-backend-threads",
    "threading": "parallel-backend-threads",
    "loky": "parallel-backend-loky",
    "mp": "parallel-backend-mp",
    "multiprocessing": "parallel-backend-mp",
    "futures": "parallel-backend-futures",
}

#: What to take when nobody says, for each kind of need: the first that is installed, else the built-in one.
PREFERENCES: dict[str, tuple[str, ...]] = {
    "default": ("loky", "mp", "threads"),
    "threads": ("threads",),
    "processes": ("loky", "mp"),
    "multiprocessing context": ("mp",),
}

BackendFactory = Callable[..., ParallelBackendBase]

# Registered at run time; both are only ever replaced item by item, which is atomic.
_registered: dict[str, BackendFactory] = {}
_loaded: dict[str, BackendFactory] = {}
_default: list[str] = []


def register_parallel_backend(name: str, factory: BackendFactory, make_default: bool = False) -> None:
    """Make a backend available under a name, in this process, from now on.

    A registered backend wins over one that is found by its entry point. Distributions declare an entry point in the
    group ``parallel.backends`` instead of calling this.

    Parameters
    ----------
    name : str
        What `Parallel(backend=...)` and `parallel_config` take.
    factory : callable
        Gives an instance of `ParallelBackendBase` when called with the backend's options; usually the class.
    make_default : bool, default False
        Whether calls that name no backend use this one.

    Raises
    ------
    TypeError
        If `name` is not a string or `factory` cannot be called.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a backend is a string, not {name!r}")
    if not callable(factory):
        raise TypeError(f"the factory of a backend is a class or a function, not {factory!r}")
    _registered[name] = factory
    if make_default:
        _default[:] = [name]


@functools.cache
def _entry_points(group: str) -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for entry_point in _installed.entry_points(group):
        found.setdefault(entry_point.name, []).append(entry_point)
    return found


def _distribution(entry_point: EntryPoint) -> str:
    distribution = entry_point.dist
    return str(distribution.name) if distribution is not None else entry_point.value


def _single(name: str, candidates: list[EntryPoint]) -> EntryPoint:
    """Give the entry point; one distribution found twice on sys.path counts once, two distributions are an error."""
    owners = {_installed.normalized(_distribution(found)): _distribution(found) for found in candidates}
    if len(owners) > 1:
        names = tuple(sorted(owners.values()))
        raise BackendConflictError(
            f"the backend {name!r} is provided by {len(names)} installed distributions: {', '.join(names)}; "
            "uninstall all but one of them, or choose with register_parallel_backend",
            name=name,
            distributions=names,
        )
    return candidates[0]


def installed_backends() -> dict[str, str]:
    """Map the name of every backend that can be had to where it comes from, without importing any of them."""
    found = {BUILT_IN: "parallel-core"}
    for name, candidates in _entry_points(BACKEND_GROUP).items():
        found[name] = " and ".join(sorted({_distribution(candidate) for candidate in candidates}))
    for name in _registered:
        found[name] = "register_parallel_backend"
    return dict(sorted(found.items()))


def backend_factory(name: str) -> BackendFactory:
    """Give the factory of a backend by its name; imports that backend's module and no other.

    Raises
    ------
    BackendNotFoundError
        If nobody provides the name: lists what is installed, and the command that installs it where that is known.
    BackendConflictError
        If two distributions provide it.
    ImportError
        If the module of the backend cannot be imported; a note names the distribution.
    """
    factory = _registered.get(name) or _loaded.get(name)
    if factory is not None:
        return factory
    if name == BUILT_IN:
        from parallel._sequential import SequentialBackend

        return SequentialBackend
    candidates = _entry_points(BACKEND_GROUP).get(name)
    if candidates is None:
        # Something may have been installed since the scan (a notebook runs for days).
        _installed.forget()
        _entry_points.cache_clear()
        candidates = _entry_points(BACKEND_GROUP).get(name)
    if candidates is None:
        raise _not_found(name)
    entry_point = _single(name, candidates)
    try:
        loaded: BackendFactory = entry_point.load()
    except Exception as error:
        error.add_note(f"while loading the backend {name!r} of the distribution {_distribution(entry_point)}")
        raise
    _loaded[name] = loaded
    return loaded


def make_backend(factory: BackendFactory, name: str, options: dict[str, Any]) -> ParallelBackendBase:
    """Make a backend with options of the user's.

    Raises
    ------
    TypeError
        If the factory does not know one of them, or gives something else.
    """
    try:
        backend = factory(**options)
    except TypeError as error:
        wrong = _unknown_options(factory, options)
        if not wrong:
            raise
        names, known = wrong
        raise TypeError(f"the backend {name!r} knows no option {names}; it knows {known}") from error
    if not isinstance(backend, ParallelBackendBase):
        raise TypeError(f"the factory of the backend {name!r} gave {backend!r}, not a ParallelBackendBase")
    return backend


def _unknown_options(factory: Callable[..., Any], options: dict[str, Any]) -> tuple[str, str] | None:
    """Give the options that a factory does not take, and those that it does; None if that cannot be told."""
    import inspect  # here: it is slow to import, and this is an error

    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return None
    unknown = [option for option in options if option not in parameters]
    known = list(parameters)
    return (", ".join(unknown), ", ".join(known) or "none") if unknown else None


def _not_found(name: str) -> BackendNotFoundError:
    installed = tuple(installed_backends())
    text = f"there is no backend {name!r}; installed: {', '.join(installed)}."
    distribution = KNOWN_DISTRIBUTIONS.get(name)
    if distribution is not None:
        text += f" To get it: pip install {distribution}"
    else:
        text += (
            " A backend is installed as a distribution with an entry point in the group 'parallel.backends', or"
            " registered with register_parallel_backend."
        )
    return BackendNotFoundError(text, name=name, installed=installed)


def names_for(need: str) -> tuple[str, ...]:
    """Give the installed backends for a need, a key of `PREFERENCES`, best first; the built-in one ends the list."""
    installed = _entry_points(BACKEND_GROUP)
    wanted = PREFERENCES[need]
    return (*(name for name in wanted if name in _registered or name in installed), BUILT_IN)


def require_for(need: str) -> str:
    """Give the best installed backend for a need that the built-in one cannot serve.

    Raises
    ------
    BackendNotFoundError
        If there is none; it says what to install.
    """
    name = names_for(need)[0]
    if name == BUILT_IN:
        raise _not_found(PREFERENCES[need][0])
    return name


def default_backend_name() -> str:
    """Give the backend of calls that name none: the registered default, a plugin's choice, else the best installed."""
    if _default:
        return _default[0]
    relay = hooks()
    if relay is not None:
        chosen = relay.parallel_default_backend()
        if chosen is not None:
            return str(chosen)
    return names_for("default")[0]


@functools.cache
def plugin_manager() -> pluggy.PluginManager:
    """Give the plugin manager, with the plugins of the group ``parallel.plugins`` loaded.

    Blocks at its first use for as long as importing the plugins takes.
    """
    import pluggy

    from parallel import hookspecs

    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    for name, candidates in _entry_points(PLUGIN_GROUP).items():
        entry_point = candidates[0]
        try:
            plugin = entry_point.load()
        except Exception as error:
            error.add_note(f"while loading the plugin {name!r} of the distribution {_distribution(entry_point)}")
            raise
        manager.register(plugin, name=name)
    return manager


def register_plugin(plugin: object, name: str | None = None) -> None:
    """Register a plugin in this process: a module or an object with implementations marked `hookspecs.hookimpl`.

    Parameters
    ----------
    plugin : object
        The plugin.
    name : str, optional
        What to call it.
    """
    plugin_manager().register(plugin, name=name)


def unregister_plugin(plugin: object) -> None:
    """Take back what `register_plugin` did."""
    plugin_manager().unregister(plugin)


def hooks() -> Any:
    """Give the relay that calls the plugins' hooks, or None if there is no plugin: then pluggy is not even imported."""
    if plugin_manager.cache_info().currsize == 0 and not _entry_points(PLUGIN_GROUP):
        return None
    manager = plugin_manager()
    return manager.hook if manager.get_plugins() else None
