"""How many threads BLAS and OpenMP use inside tasks: limits for libraries that are loaded already.

Variables of the environment are read by a library when it is loaded, so they reach new processes only. Here
threadpoolctl tells what is loaded in this process, and sets it. The pools of BLAS libraries are of the process: while
several calls run in its threads, the lowest limit counts, and when the last of them is over a library has what it had
before. OpenMP has a limit for each thread.

Looking for libraries costs most of a millisecond, so it is done again only when modules were imported meanwhile.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from importlib.machinery import ExtensionFileLoader
from typing import Any, NamedTuple

__all__ = ["CallThreads", "Caps", "caps_of", "limit_worker", "look"]

#: What says how many threads a library may have, by threadpoolctl's names of libraries.
_VARIABLES = {
    "openmp": "OMP_NUM_THREADS",
    "openblas": "OPENBLAS_NUM_THREADS",
    "mkl": "MKL_NUM_THREADS",
    "blis": "BLIS_NUM_THREADS",
}
_DEFAULT = "openmp"


class Caps(NamedTuple):
    """Most threads of the libraries in one worker.

    Attributes
    ----------
    most
        By threadpoolctl's name of the library.
    is_exact
        Whether that is what they are set to, also if they had fewer.
    """

    most: Mapping[str, int]
    is_exact: bool

    def of(self, library: Any, own: int) -> int:
        """Give what to set a library to, that had `own`."""
        most = self.most.get(library.internal_api, self.most.get(_DEFAULT))
        if most is None:
            return own
        return most if self.is_exact else min(most, own)


def caps_of(environment: Mapping[str, str], *, is_exact: bool) -> Caps:
    """Give the limits that variables of the environment stand for; what is no number stands for none."""
    most = {}
    for api, name in _VARIABLES.items():
        first = environment.get(name, "").split(",")[0].strip()  # OpenMP has one for each level
        if first.isdecimal() and int(first) > 0:
            most[api] = int(first)
    return Caps(most, is_exact)


class _Process:
    """The libraries of this process, and who limits them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        #: What threadpoolctl has found, when there were so many modules.
        self.libraries: list[Any] = []
        self.n_modules = -1
        #: What they had before anybody set them here, by path.
        self.own: dict[str, int] = {}
        #: Who limits them, by what; a worker for as long as it lives, a call in its threads.
        self.holders: dict[int, Caps] = {}
        #: Whether that was so when this process was forked: then what libraries have now is not their own.
        self.is_limited_by_parent = False
        #: Counts changes of `libraries`.
        self.version = 0

    def forget(self) -> None:
        """In a forked child: the calls are the parent's, and the lock may be held by a thread that is not here."""
        self.lock = threading.Lock()
        self.is_limited_by_parent = bool(self.holders)
        self.holders = {}


_process = _Process()
_thread = threading.local()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_process.forget)


def look() -> None:
    """Find the libraries that are loaded; a forked worker need not do it again."""
    if len(sys.modules) != _process.n_modules:
        with _process.lock:
            _look()


def limit_worker(caps: Caps) -> Callable[[], None]:
    """Limit the libraries of a worker process, which runs one batch at a time; give what undoes it."""
    if len(sys.modules) != _process.n_modules or _process.holders.get(0) is not caps:
        with _process.lock:
            _look()
            _hold(0, caps)
    before = _limit_thread(caps)

    def undo() -> None:
        with _process.lock:
            _process.holders.pop(0, None)
            _set()
        _set_back(before)

    return undo


class CallThreads:
    """The limits of one call in whose process its tasks run, in any of its threads.

    Parameters
    ----------
    caps
        The limits of each worker; None for none.
    """

    def __init__(self, caps: Caps | None) -> None:
        self._caps = caps
        self._is_over = False

    def begin_batch(self) -> list[tuple[Any, int]]:
        """A batch begins in the calling thread; give what `end_batch` wants."""
        caps = self._caps
        if caps is None:
            return []
        if len(sys.modules) != _process.n_modules or id(self) not in _process.holders:
            with _process.lock:
                _look()
                if not self._is_over:
                    _hold(id(self), caps)
        return _limit_thread(caps)

    def end_batch(self, before: list[tuple[Any, int]]) -> None:
        """The batch is over; the thread may be somebody else's."""
        _set_back(before)

    def close(self) -> None:
        """The call is over."""
        if self._caps is None:
            return
        with _process.lock:
            self._is_over = True
            if _process.holders.pop(id(self), None) is not None:
                _set()


# -- with the lock ---------------------------------------------------------------------------------------------------


def _look() -> None:
    if len(sys.modules) == _process.n_modules:
        return
    if _may_have_libraries():
        known = {library.filepath for library in _process.libraries}
        libraries = _find()
        if {library.filepath for library in libraries} != known:
            for library in libraries:
                _process.own.setdefault(library.filepath, library.get_num_threads())
            _process.libraries = libraries
            _process.version += 1
    _process.n_modules = len(sys.modules)


def _find() -> list[Any]:
    from threadpoolctl import ThreadpoolController  # 8 ms, and many programs have nothing for it to find

    try:
        return list(ThreadpoolController().lib_controllers)
    except Exception:  # there is no /proc to look into, or a library that it does not understand
        return []


def _may_have_libraries() -> bool:
    """Tell whether any module in C is loaded that is not of the standard library."""
    if _process.libraries:
        return True
    standard = os.path.dirname(os.__file__)
    for module in list(sys.modules.values()):
        if isinstance(getattr(module, "__loader__", None), ExtensionFileLoader):
            folder = os.path.dirname(getattr(module, "__file__", None) or "")
            if "site-packages" in folder or not folder.startswith(standard):
                return True
    return False


def _hold(key: int, caps: Caps) -> None:
    if not _process.holders and not _process.is_limited_by_parent:
        for library in _process.libraries:  # as somebody else may have set them since
            _process.own[library.filepath] = library.get_num_threads()
    _process.is_limited_by_parent = False
    _process.holders[key] = caps
    _set()


def _set() -> None:
    for library in _process.libraries:
        if not _is_per_thread(library):
            own = _process.own[library.filepath]
            wanted = min((caps.of(library, own) for caps in _process.holders.values()), default=own)
            if library.get_num_threads() != wanted:
                # threadpoolctl lets the first thread that sets such a library be the only one, but for this.
                release = getattr(library, "clear_controlling_thread", lambda force: None)
                release(force=True)
                library.set_num_threads(wanted)
                release(force=True)


def _is_per_thread(library: Any) -> bool:
    """Tell whether a limit is that of the thread which sets it."""
    if library.user_api == "openmp":
        return True
    # From threadpoolctl 3.8 on, which has this method.
    return getattr(library, "threading_layer", "") == "openmp" and hasattr(library, "clear_controlling_thread")


# -- of the calling thread -------------------------------------------------------------------------------------------


def _limit_thread(caps: Caps) -> list[tuple[Any, int]]:
    """Limit what has a limit for each thread, in the calling one; give what there was before."""
    if not _process.libraries:
        return []
    limit = getattr(_thread, "limit", None)
    if limit is not None and limit[0] is caps and limit[1] == _process.version:
        return []
    before = []
    for library in _process.libraries:
        if _is_per_thread(library):
            had = library.get_num_threads()
            wanted = caps.of(library, had)
            if had != wanted:
                library.set_num_threads(wanted)
                before.append((library, had))
    if not before:
        _thread.limit = caps, _process.version
    return before


def _set_back(before: list[tuple[Any, int]]) -> None:
    for library, had in before:
        library.set_num_threads(had)
