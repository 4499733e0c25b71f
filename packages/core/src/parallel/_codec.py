"""How values become the bytes that travel to other hosts: a serializer, and perhaps compression.

The libraries of lz4 and zstd are imported when they are used.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

from parallel._pickling import dumps

__all__ = ["Codec", "check_compression", "check_serializer"]

#: Compression to the module that does it; each has functions `compress` and `decompress`.
_MODULES = {"zlib": "zlib", "lz4": "lz4.frame", "zstd": "zstandard"}

#: The first byte says what follows.
_PLAIN, _COMPRESSED = b"\0", b"\1"


class Codec(NamedTuple):
    """Turns values into bytes and back.

    Parameters
    ----------
    serializer
        "cloudpickle", "pickle", or an object with `dumps` and `loads`.
    compression
        "zlib", "lz4" or "zstd"; None for none.
    threshold
        Fewest bytes that are compressed.
    """

    serializer: Any = "cloudpickle"
    compression: str | None = None
    threshold: int = 0

    @property
    def is_default(self) -> bool:
        """Whether it does nothing that would not be done without it."""
        return self.serializer == "cloudpickle" and self.compression is None

    def dumps(self, value: object) -> bytes:
        """Turn a value into bytes.

        Raises
        ------
        Exception
            Whatever the serializer raises.
        """
        return self.compress(self._dumper()(value))

    def loads(self, data: bytes | bytearray | memoryview) -> Any:
        """Turn bytes back into a value.

        Raises
        ------
        Exception
            Whatever the serializer raises.
        """
        plain = self.decompress(data)
        return pickle.loads(plain) if isinstance(self.serializer, str) else self.serializer.loads(plain)  # noqa: S301

    def compress(self, data: bytes) -> bytes:
        """Make bytes fewer, if they are many and it helps."""
        if self.compression is not None and len(data) >= self.threshold:
            smaller: bytes = import_module(_MODULES[self.compression]).compress(data)
            if len(smaller) < len(data):
                return _COMPRESSED + smaller
        return _PLAIN + data

    def decompress(self, data: bytes | bytearray | memoryview) -> bytes | memoryview:
        """Undo `compress`."""
        content = memoryview(data)[1:]
        if data[:1] != _COMPRESSED:
            return content
        assert self.compression is not None
        plain: bytes = import_module(_MODULES[self.compression]).decompress(content)
        return plain

    def _dumper(self) -> Callable[[object], bytes]:
        if self.serializer == "cloudpickle":
            return dumps
        if self.serializer == "pickle":
            return _plain_dumps
        own: Callable[[object], bytes] = self.serializer.dumps
        return own


def _plain_dumps(value: object) -> bytes:
    return pickle.dumps(value, protocol=5)


def check_serializer(serializer: Any) -> Any:
    """Check `serializer`.

    Raises
    ------
    ValueError
        If it is neither a known name nor an object with `dumps` and `loads`.
    """
    if isinstance(serializer, str):
        if serializer in ("cloudpickle", "pickle"):
            return serializer
    elif callable(getattr(serializer, "dumps", None)) and callable(getattr(serializer, "loads", None)):
        return serializer
    raise ValueError(
        f"serializer must be 'cloudpickle', 'pickle' or an object with dumps and loads, not {serializer!r}"
    )


def check_compression(compression: Any) -> str | None:
    """Check `compression`, and that its library is there.

    Raises
    ------
    ValueError
        If it is neither None nor a known name.
    ImportError
        If its library is not installed.
    """
    if compression is None:
        return None
    if not isinstance(compression, str) or compression not in _MODULES:
        raise ValueError(f"compression must be None, {', '.join(map(repr, _MODULES))}, not {compression!r}")
    module = _MODULES[compression]
    from importlib.util import find_spec

    if find_spec(module.partition(".")[0]) is None:
        raise ImportError(
            f"compression={compression!r} needs the library {module.partition('.')[0]}: "
            f"pip install 'parallel-core[{compression}]'"
        )
    return compression
