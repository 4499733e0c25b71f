"""The worker's side of what the caller sends apart: found, mapped for the time of a batch, and put together."""

from __future__ import annotations

import os
import pickle
from typing import Any

from parallel._arrays import FileGoneError
from parallel._parcel import Packed, put_together
from parallel._region import Address, map_region, open_region

__all__ = ["OutOfReachError", "unpack"]


class OutOfReachError(Exception):
    """Something that the caller shares cannot be had here."""


def unpack(packed: bytes | Packed, mode: str | None) -> Any:
    """Unpickle a value of the caller; its large buffers are mapped as `mode` says, for as long as something uses them.

    Raises
    ------
    OutOfReachError
        If they cannot be had.
    Exception
        Whatever the unpickling of a user's object raises.
    """
    try:
        if not isinstance(packed, Packed):
            return pickle.loads(packed)  # noqa: S301 - from our own caller
        return put_together(packed, [_map(address, mode or "r") for address in packed.regions])
    except FileGoneError as error:
        raise OutOfReachError(str(error)) from error


def _map(address: Address, mode: str) -> memoryview:
    descriptor = open_region(address)
    if descriptor is None:
        raise OutOfReachError(f"no shared memory at {address}")
    try:
        return memoryview(map_region(descriptor, mode))
    except (OSError, ValueError) as error:
        raise OutOfReachError(f"shared memory cannot be mapped: {error}") from error
    finally:
        os.close(descriptor)
