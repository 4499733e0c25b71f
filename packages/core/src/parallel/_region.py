"""Pieces of memory that processes of one host share, and how a peer finds them.

On Linux a region is anonymous (``memfd_create``): it has no name that could be left behind, does not depend on the size
of /dev/shm, and is gone when the last process that holds it is. A peer opens it through ``/proc/<pid>/fd/<n>``, and
knows by a random token in the region's label that it has the right one. Elsewhere, and where there is no /proc, a
region is a file in a private folder.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import mmap
import os
import sys
import weakref
from functools import cache
from typing import NamedTuple

from parallel._interpreter import process_token

__all__ = [
    "Address",
    "Folder",
    "Region",
    "aligned",
    "has_anonymous",
    "map_privately",
    "map_region",
    "open_region",
    "write_all",
]

#: Where files go: the argument of the call, then this variable, then the system's folder for temporary files.
FOLDER_VARIABLE = "PARALLEL_TEMP_FOLDER"

#: How much one system call writes; the kernel takes 2 GiB at most.
_WRITE_BYTES = 1 << 30

_O_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class Address(NamedTuple):
    """Where a peer finds a region; small, because it travels with every batch."""

    #: Whose descriptor it is; 0 for a file.
    process: int
    descriptor: int
    #: The label of anonymous memory, or the path of a file.
    name: str


def has_anonymous() -> bool:
    """Tell whether this system has memory that has no name and that a peer can open."""
    return _has_anonymous()


@cache
def _has_anonymous() -> bool:
    return hasattr(os, "memfd_create") and os.path.exists("/proc/self/fd")


class Folder:
    """A private folder (mode 0700) for the files of one owner; made when first needed.

    Parameters
    ----------
    parent
        Where to make it; None for ``PARALLEL_TEMP_FOLDER``, or else the system's folder for temporary files.
    """

    def __init__(self, parent: str | os.PathLike[str] | None = None) -> None:
        self._parent = parent
        self._path: str | None = None
        self._process = os.getpid()

    def new_file(self) -> tuple[int, str]:
        """Make a file; give its descriptor and path.

        Raises
        ------
        OSError
            If that cannot be done.
        """
        if self._path is None:
            parent = self._parent or os.environ.get(FOLDER_VARIABLE) or None
            import tempfile  # like shutil below: 5 ms, and most programs need no folder

            self._path = tempfile.mkdtemp(prefix="parallel-", dir=parent)
            _folders.add(self)
        path = os.path.join(self._path, os.urandom(8).hex())
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _O_FLAGS, 0o600), path

    def close(self) -> None:
        """Remove the folder with all that is in it."""
        path, self._path = self._path, None
        if path is not None and self._process == os.getpid():
            import shutil

            _folders.discard(self)
            shutil.rmtree(path, ignore_errors=True)


#: Folders that are to be removed when the interpreter exits, should their owner not come to it.
_folders: weakref.WeakSet[Folder] = weakref.WeakSet()


def _remove_folders() -> None:
    for folder in list(_folders):
        folder.close()


atexit.register(_remove_folders)


class Region:
    """One piece, made and held here.

    Parameters
    ----------
    label
        What it is for, as /proc shows it.
    folder
        Where to put a file if the memory cannot be anonymous; None to do without a file.

    Raises
    ------
    OSError
        If the system has no descriptor, no memory or no room left.
    """

    __slots__ = ("__weakref__", "_is_open", "address", "descriptor")

    def __init__(self, label: str, folder: Folder | None = None) -> None:
        self._is_open = False  # until there is something to close
        if folder is None or has_anonymous():
            name = f"parallel-{label}-{process_token()}-{next(_numbers)}"
            self.descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
            self.address = Address(os.getpid(), self.descriptor, name)
        else:
            self.descriptor, path = folder.new_file()
            self.address = Address(0, -1, path)
        self._is_open = True
        _regions.add(self)

    @property
    def is_open(self) -> bool:
        """Whether it is held here."""
        return self._is_open

    def close(self) -> None:
        """Give it back; who has mapped it keeps what is mapped."""
        if not self._is_open:
            return
        self._is_open = False
        _regions.discard(self)
        os.close(self.descriptor)
        if not self.address.process:
            with contextlib.suppress(OSError):  # Windows keeps a file that a worker has still mapped; see Folder.close
                os.unlink(self.address.name)

    def __del__(self) -> None:
        self.close()


_numbers = itertools.count()


#: All that are open in this process.
_regions: weakref.WeakSet[Region] = weakref.WeakSet()


def _forget() -> None:
    # In a forked child: a copy of a descriptor would keep the memory for as long as the child lives.
    for region in list(_regions):
        region._is_open = False
        with contextlib.suppress(OSError):
            os.close(region.descriptor)
    _regions.clear()
    _folders.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def open_region(address: Address) -> int | None:
    """Open a region of another process; give a descriptor, or None if it is out of reach, or gone."""
    if not address.process:
        try:
            return os.open(address.name, os.O_RDWR | _O_FLAGS)
        except OSError:
            return None
    path, label = f"/proc/{address.process}/fd/{address.descriptor}", f"/memfd:{address.name} (deleted)"
    try:
        if os.readlink(path) != label:  # in another pid namespace the path leads somewhere else, if anywhere
            return None
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        is_ours = address.process == os.getpid() and not os.path.exists("/proc/self/fd")
        return os.dup(address.descriptor) if is_ours else None
    try:
        if os.readlink(f"/proc/self/fd/{descriptor}") == label:
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def aligned(n_bytes: int) -> int:
    """Give where the next buffer begins behind so many bytes: what processors like, and more than any type needs."""
    return -(-n_bytes // 64) * 64


def write_all(descriptor: int, data: memoryview, offset: int) -> None:
    """Write bytes at an offset of a region.

    Not through a mapping: the kernel fills fresh pages straight away, and need not clear them first.

    Raises
    ------
    OSError
        If there is no room for them.
    """
    while data.nbytes:
        if hasattr(os, "pwrite"):
            count = os.pwrite(descriptor, data[:_WRITE_BYTES], offset)
        else:
            os.lseek(descriptor, offset, os.SEEK_SET)
            count = os.write(descriptor, data[:_WRITE_BYTES])
        data, offset = data[count:], offset + count


# -- mapping -----------------------------------------------------------------------------------------------------------

_ACCESS = {"r": mmap.ACCESS_READ, "c": mmap.ACCESS_COPY, "r+": mmap.ACCESS_WRITE}


def map_region(descriptor: int, mode: str) -> mmap.mmap:
    """Map a whole region; read-only with "r", for oneself with "c", for all who share it with "r+".

    Raises
    ------
    OSError, ValueError
        If that cannot be done.
    """
    return mmap.mmap(descriptor, 0, access=_ACCESS[mode])


def map_privately(descriptor: int, n_bytes: int) -> mmap.mmap:
    """Map the first `n_bytes` of a region to have them for oneself, without holding a descriptor.

    What is written there, here or in a child forked later, is seen by nobody else.

    Raises
    ------
    OSError, ValueError
        If that cannot be done.
    """
    if os.name != "posix":
        return mmap.mmap(descriptor, n_bytes, access=mmap.ACCESS_COPY)
    access = mmap.PROT_READ | mmap.PROT_WRITE
    if sys.version_info >= (3, 13):
        return mmap.mmap(descriptor, n_bytes, mmap.MAP_PRIVATE, access, trackfd=False)
    # Before, an mmap object keeps a copy of the descriptor. So let it own some addresses, and map the region there.
    memory = mmap.mmap(-1, n_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, access)
    _map_over(memory, descriptor, n_bytes)
    return memory


def _map_over(memory: mmap.mmap, descriptor: int, n_bytes: int) -> None:
    import ctypes

    libc_mmap = ctypes.CDLL(None, use_errno=True).mmap
    libc_mmap.restype = ctypes.c_void_p
    libc_mmap.argtypes = [
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_long,
    ]
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    flags = mmap.MAP_PRIVATE | 0x10  # MAP_FIXED, the same on Linux, macOS and the BSDs
    found = libc_mmap(address, n_bytes, mmap.PROT_READ | mmap.PROT_WRITE, flags, descriptor, 0)
    if found != address:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
