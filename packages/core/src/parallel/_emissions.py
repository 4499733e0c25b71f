"""Warnings and log records of tasks: collected in a worker process, shown in the caller.

The worker has the caller's filters and levels, so what would be ignored there is not made here. What comes back goes
through the caller's own machinery: a warning is shown once per place, as Python does, with its true category, file and
line; a record goes to the handlers of the logger that it was made by.
"""

from __future__ import annotations

import contextlib
import functools
import pickle
import sys
import warnings
from collections.abc import Callable
from typing import Any

from parallel._current import Place
from parallel._failures import dumps_exception, safe_text
from parallel._pickling import dumps

__all__ = ["Collector", "record_handler", "show"]

#: Most warnings and records that a batch brings back.
MAX_ITEMS = 10_000

_WARNING, _RECORD, _DROPPED, _PACKED = range(4)


class Collector:
    """What the tasks of one worker have emitted since it was asked last."""

    def __init__(self) -> None:
        self._items: list[tuple[Any, ...]] = []
        self._n_dropped = 0
        #: Of the batch that runs.
        self.place: Place | None = None

    def warn(
        self, message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: str | None = None
    ) -> None:
        """Take a warning; in the place of `warnings.showwarning`."""
        self._add((_WARNING, message, category, filename, lineno))

    def record(self, fields: dict[str, Any]) -> None:
        """Take a log record."""
        self._add((_RECORD, fields))

    def _add(self, item: tuple[Any, ...]) -> None:
        if len(self._items) < MAX_ITEMS:
            self._items.append(item)
        else:
            self._n_dropped += 1

    def take(self) -> bytes:
        """Give all that there is as bytes, none if there is nothing."""
        if not self._items:
            return b""
        items, self._items = self._items, []
        n_dropped, self._n_dropped = self._n_dropped, 0
        if n_dropped:
            items.append((_DROPPED, n_dropped))
        try:
            data = dumps(items)
            pickle.loads(data)  # noqa: S301 - our own; what cannot be read would be lost with all the others
            return data
        except Exception:
            return dumps([_plain(item) for item in items])


def _plain(item: tuple[Any, ...]) -> tuple[Any, ...]:
    """Give an item without what cannot be pickled."""
    if _is_picklable(item):
        return item
    if item[0] == _WARNING:
        _, message, category, filename, lineno = item
        if isinstance(message, Warning) and issubclass(category, Warning):
            return _PACKED, dumps_exception(message), filename, lineno
        return _WARNING, f"{category.__name__}: {safe_text(message)}", UserWarning, filename, lineno
    return _RECORD, {name: value for name, value in item[1].items() if _is_picklable(value)}


def _is_picklable(value: object) -> bool:
    try:
        pickle.loads(dumps(value))  # noqa: S301 - our own
    except Exception:
        return False
    return True


def record_handler(collector: Collector) -> Any:
    """Make a handler that gives log records to a collector."""
    return _handler_class()(collector)


@functools.cache
def _handler_class() -> Any:
    import logging  # here: a program that does not use it is not made to import it

    class RecordHandler(logging.Handler):
        def __init__(self, collector: Collector) -> None:
            super().__init__()
            self._collector = collector

        def emit(self, record: logging.LogRecord) -> None:
            # As QueueHandler does: what the message is made of may change, or not be picklable.
            fields = dict(vars(record))
            try:
                fields["msg"], fields["args"] = record.getMessage(), None
                if record.exc_info and not record.exc_text:
                    fields["exc_text"] = logging.Formatter().formatException(record.exc_info)
            except Exception:
                self.handleError(record)
                return
            fields["exc_info"] = None
            # Of this process's own batch, also for what comes from calls and threads inside its task.
            place = self._collector.place
            fields["task_index"] = place.index if place is not None else None
            self._collector.record(fields)

    return RecordHandler


# -- in the caller -----------------------------------------------------------------------------------------------------

#: For warnings of modules that are not loaded here.
_registries: dict[str, dict[Any, Any]] = {}


def show(emitted: bytes) -> None:
    """Show what `Collector.take` gave: as if it had been emitted here. Does not raise; called by the owner."""
    with contextlib.suppress(Exception):  # of classes of the user's
        for kind, *fields in pickle.loads(emitted):  # noqa: S301 - from our own worker
            with contextlib.suppress(Exception):  # of handlers and filters of the user's
                _SHOW[kind](*fields)


def _show_warning(message: Any, category: Any, filename: str, lineno: int) -> None:
    module = _module_of(filename)
    registry: dict[Any, Any] = _registries.setdefault(module, {})
    if module in sys.modules:
        registry = vars(sys.modules[module]).setdefault("__warningregistry__", {})
    try:
        warnings.warn_explicit(message, category, filename, lineno, module, registry)
    except Warning:  # it is an error here by now; it was none for the task
        warnings.showwarning(message, category, filename, lineno)


@functools.lru_cache(maxsize=256)
def _module_of(filename: str) -> str:
    """Give the name of the module that has a file; Python's own guess where it is not loaded."""
    for name, module in list(sys.modules.items()):
        if getattr(module, "__file__", None) == filename:
            return name
    return filename.removesuffix(".py") or "<unknown>"


def _show_record(fields: dict[str, Any]) -> None:
    import logging

    record = logging.makeLogRecord(fields)
    logger = logging.getLogger(record.name if record.name != "root" else None)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)


def _show_packed(packed: bytes, filename: str, lineno: int) -> None:
    message = pickle.loads(packed)  # noqa: S301 - from our own worker
    kind = type(message) if isinstance(message, Warning) else UserWarning
    _show_warning(message if kind is not UserWarning else str(message), kind, filename, lineno)


def _show_dropped(count: int) -> None:
    text = f"a batch of tasks emitted more than {MAX_ITEMS} warnings and log records; {count} of them are not shown"
    warnings.warn(text, RuntimeWarning, stacklevel=2)


_SHOW: dict[int, Callable[..., None]] = {
    _WARNING: _show_warning,
    _RECORD: _show_record,
    _DROPPED: _show_dropped,
    _PACKED: _show_packed,
}
