"""What one call shares with its workers, in both directions; used by its owner only."""

from __future__ import annotations

import os
import warnings
from typing import NamedTuple

from parallel._exports import Export, Exports, max_regions
from parallel._region import Folder, Region
from parallel._rooms import Rooms

__all__ = ["NO_SHARING", "CallMemory", "Sharing", "warn_of_pipe"]


#: After so many tasks from the first with an array on, none of which had changed, the input is trusted not to change
#: any: tasks may be read ahead.
_TRUSTED_AFTER = 16

#: More than any buffer has: nothing travels apart.
NO_LIMIT = 1 << 62


class Sharing(NamedTuple):
    """How large data travels between processes of one host.

    Attributes
    ----------
    limit
        Fewest bytes of a buffer that travels apart.
    mode
        How workers map what the caller sends: "r", "c" or "r+"; None to send nothing apart.
    """

    limit: int
    mode: str | None


#: Everything goes through the pipe.
NO_SHARING = Sharing(NO_LIMIT, None)


class CallMemory:
    """The memory of one call.

    Parameters
    ----------
    sharing
        How.
    temp_folder
        Where files go, on systems without anonymous memory.
    spare
        See `Rooms`.
    """

    def __init__(
        self,
        sharing: Sharing,
        temp_folder: str | os.PathLike[str] | None = None,
        spare: list[Region] | None = None,
    ) -> None:
        self.sharing = sharing
        self._folder = Folder(temp_folder)
        self._exports = Exports(sharing.limit, self._folder, self.warn, mode=sharing.mode)
        self._rooms = Rooms(self._folder, max_regions, spare)
        #: Whether a worker could not find something: then all is sent, also what only was the name of a file.
        self.is_refused = False
        self._has_warned = False
        self._n_begun = self._trusted_at = 0
        self._is_first_small = False
        # By batch id: what it uses, until it is over.
        self._batches: dict[int, tuple[Export | None, Region | None]] = {}
        # By batch id: what functions have sent apart that it uses.
        self._held: dict[int, list[Export]] = {}

    def must_be_single(self) -> bool:
        """Tell whether each task has to be sent alone, before the next is read.

        So it is as long as what a task holds may be changed by the user's input iterator: before anything is known,
        until some tasks with arrays were seen of which none had changed, and from the first change on. And where tasks
        have copies of their own to write to.
        """
        exports = self._exports
        if not self._n_begun and not self._is_first_small:
            return True
        if not exports.has_seen_array:
            return False
        return exports.has_seen_change or exports.is_watching or (self.sends and self.sharing.mode == "c")

    def trust(self, is_first_small: bool) -> None:
        """Take the first task for sent, because it holds nothing that is large or can be changed; or not."""
        self._is_first_small = is_first_small

    def begin(self, batch_id: int) -> tuple[Export | None, Region | None]:
        """Give what the data of a batch goes through, and room for its results; None for the pipe."""
        self._n_begun += 1
        exports = self._exports
        if not exports.has_seen_array:
            self._trusted_at = self._n_begun + _TRUSTED_AFTER
        exports.is_watching = self._n_begun < self._trusted_at
        export = self.new_export()
        if export is None and exports.is_watching:
            # What nothing travels through still sees what changes.
            export = exports.new_export(NO_LIMIT)
            export.names_files = False
        room = self._rooms.take() if self.sharing.limit < NO_LIMIT else None
        entry = self._batches[batch_id] = export, room
        return entry

    def new_export(self) -> Export | None:
        """Give what data goes through that travels apart from its batch, if only as the name of a file."""
        if self.is_refused:
            return None
        return self._exports.new_export(None if self.sends else NO_LIMIT)

    def hold(self, batch_id: int, export: Export) -> None:
        """Keep what a function has sent apart for as long as the batch may need it."""
        if batch_id in self._batches:
            self._held.setdefault(batch_id, []).append(export)
            export.n_holders += 1

    def retire(self, export: Export) -> None:
        """Give it back once no batch holds it any more; none will."""
        export.is_retired = True
        if not export.n_holders:
            export.release()

    def room_of(self, batch_id: int) -> Region | None:
        """Give the room of a batch, whose results are about to be read."""
        return self._batches.get(batch_id, (None, None))[1]

    def end(self, batch_id: int, *, is_clean: bool) -> None:
        """A batch is over; `is_clean` if its room was left empty, by a worker that is done with it."""
        export, room = self._batches.pop(batch_id, (None, None))
        for held in self._held.pop(batch_id, ()):
            held.n_holders -= 1
            if held.is_retired:
                self.retire(held)
        if export is not None:
            export.release()
        if room is not None:
            self._rooms.give_back(room, is_clean=is_clean)

    @property
    def sends(self) -> bool:
        """Whether workers map what is sent to them."""
        return self.sharing.mode is not None and not self.is_refused

    def refuse(self, batch_id: int) -> bool:
        """Send all through the pipe from now on: a worker cannot find what is shared. Tell if the batch had such."""
        self.is_refused = True
        export = self._batches.get(batch_id, (None, None))[0]
        if export is None or not export.names_files:
            return False
        self.warn("the workers cannot open it")
        return True

    def has_written(self, batch_id: int) -> bool:
        """Tell whether anything was written for a batch."""
        export = self._batches.get(batch_id, (None, None))[0]
        return export is not None and export.has_written

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
