"""What one call shares with its workers, in both directions; used by its owner only."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from parallel._exports import Export, Exports, max_regions
from parallel._parcel import Parcel
from parallel._region import Folder, Region
from parallel._rooms import Rooms

__all__ = ["NO_SHARING", "CallMemory", "FileNames", "Sharing", "warn_of_pipe"]


#: After so many tasks whose arrays had not changed, the input is trusted not to change any: tasks may be read ahead.
_TRUSTED_AFTER = 16

#: More than any buffer has: nothing travels apart.
NO_LIMIT = 1 << 62


@dataclass(frozen=True, slots=True)
class Sharing:
    """How large data travels between processes of one host.

    Attributes
    ----------
    limit
        Fewest bytes of a buffer that travels apart.
    mode
        How workers map what the caller sends: "r", "c" or "r+"; None to send nothing apart but the names of files.
    """

    limit: int
    mode: str | None


#: Everything goes through the pipe, but what is in files already.
NO_SHARING = Sharing(NO_LIMIT, None)


class FileNames(Parcel):
    """What one batch sends where nothing is shared: an array that is mapped from a file still is that file."""

    names_files = True

    def __init__(self) -> None:
        super().__init__(NO_LIMIT)

    def watch(self, values: Sequence[object]) -> None:
        """Do nothing: no copy is kept that could be out of date."""

    def release(self) -> None:
        """Do nothing: nothing was written."""


class CallMemory:
    """The memory of one call.

    Parameters
    ----------
    sharing
        How.
    temp_folder
        Where files go, on systems without anonymous memory.
    """

    def __init__(self, sharing: Sharing, temp_folder: str | os.PathLike[str] | None = None) -> None:
        self.sharing = sharing
        self._folder = Folder(temp_folder)
        self._exports = Exports(sharing.limit, self._folder, self.warn, is_changed_by_tasks=sharing.mode == "r+")
        self._rooms = Rooms(self._folder, max_regions() if sharing.limit < NO_LIMIT else 0)
        self._sends = True
        self._has_warned = False
        self._n_begun = 0
        # By batch id: what it uses, until it is over.
        self._batches: dict[int, tuple[Export | FileNames | None, Region | None]] = {}

    def must_be_single(self) -> bool:
        """Tell whether each task has to be sent alone, before the next is read.

        So it is as long as what a task holds may be changed by the user's input iterator: before anything is known,
        until some tasks with arrays were seen of which none had changed, and from the first change on. And where tasks
        have copies of their own to write to.
        """
        exports = self._exports
        if not self.shares:
            return False
        if not self._n_begun:
            return True
        if not exports.has_seen_array:
            return False
        return exports.has_seen_change or exports.is_watching or self.sharing.mode == "c"

    def begin(self, batch_id: int) -> tuple[Export | FileNames | None, Region | None]:
        """Give what the data of a batch goes through, and room for its results; None for the pipe."""
        self._n_begun += 1
        self._exports.is_watching = self._n_begun < _TRUSTED_AFTER
        entry = self._batches[batch_id] = self.new_export(), self._rooms.take()
        return entry

    def new_export(self) -> Export | FileNames | None:
        """Give what data goes through that is used by the whole call."""
        if not self._sends:
            return None
        return self._exports.new_export() if self.shares else FileNames()

    def room_of(self, batch_id: int) -> Region | None:
        """Give the room of a batch, whose results are about to be read."""
        return self._batches.get(batch_id, (None, None))[1]

    def end(self, batch_id: int, *, is_clean: bool) -> None:
        """A batch is over; `is_clean` if its room was left empty, by a worker that is done with it."""
        export, room = self._batches.pop(batch_id, (None, None))
        if export is not None:
            export.release()
        if room is not None:
            self._rooms.give_back(room, is_clean=is_clean)

    @property
    def sends(self) -> bool:
        """Whether workers look for what is sent to them elsewhere, if only in the files of arrays."""
        return self._sends

    @property
    def shares(self) -> bool:
        """Whether workers map what was written for them."""
        return self._sends and self.sharing.mode is not None

    def refuse(self, batch_id: int) -> bool:
        """Send all through the pipe from now on: a worker cannot find something. Tell if the batch had such."""
        self._sends = False
        return self._batches.get(batch_id, (None, None))[0] is not None

    def close(self) -> None:
        """The call is over; results keep what they have."""
        for batch_id in list(self._batches):
            self.end(batch_id, is_clean=False)
        self._exports.close()
        self._rooms.close()
        self._folder.close()

    def warn(self, reason: str) -> None:
        """Say, once for the call, that large data goes through the pipe."""
        if not self._has_warned:
            self._has_warned = True
            warn_of_pipe(reason)


def warn_of_pipe(reason: str) -> None:
    """Say that large data goes where it should not have to."""
    warnings.warn(
        f"large data travels through the pipe to the workers, because it cannot be shared: {reason}",
        RuntimeWarning,
        stacklevel=2,
    )
