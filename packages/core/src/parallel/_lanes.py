"""Which worker may take another batch. Pure.

A lane is a worker as the scheduler sees it, 0 to n_jobs-1, whatever process or thread serves it. Each may have `depth`
batches at a time. All operations take the same time for two lanes and for ten thousand.
"""

from __future__ import annotations

from collections import deque

__all__ = ["Lanes"]


class Lanes:
    """The workers of a call and how many batches each has.

    Parameters
    ----------
    count
        Number of workers.
    depth
        Most batches that one may have.
    """

    def __init__(self, count: int, depth: int) -> None:
        self._load = [0] * count
        # A token for each batch that a lane may still take; lanes that have none are in front.
        self._tokens: deque[int] = deque(list(range(count)) * depth)
        # Lanes that take nothing now, and how many of their tokens were found and put aside.
        self._closed: dict[int, int] = {}
        # Lanes that were given up, and with how many batches: all of these have to come back before it takes another.
        self._gone: dict[int, int] = {}
        self.count = count

    def next_load(self) -> int | None:
        """Tell how many batches the lane has that would take the next one; None if there is no such lane."""
        while self._tokens and self._tokens[0] in self._closed:
            self._closed[self._tokens.popleft()] += 1
        return self._load[self._tokens[0]] if self._tokens else None

    def take(self) -> int:
        """Give a batch to the lane that `next_load` spoke of."""
        lane = self._tokens.popleft()
        self._load[lane] += 1
        return lane

    def release(self, lane: int) -> None:
        """Take back a batch from a lane; one without batches will be the next."""
        self._load[lane] -= 1
        if self._load[lane] == 0:
            self._tokens.appendleft(lane)
        else:
            self._tokens.append(lane)

    def close(self, lane: int) -> None:
        """Give the lane nothing more, until it is opened again."""
        self._closed.setdefault(lane, 0)

    def open(self, lane: int) -> None:
        """Let a closed lane take batches again, unless it was given up."""
        if lane not in self._gone:
            self._tokens.extend([lane] * self._closed.pop(lane, 0))

    def give_up(self, lane: int) -> None:
        """Close a lane whose worker is stuck; what it has stays its load."""
        self._gone[lane] = self._gone.get(lane, 0) + 1
        self.close(lane)

    def regain(self, lane: int) -> None:
        """Take back a batch from a lane that was given up with it, and open the lane if that was the last."""
        self._gone[lane] -= 1
        if not self._gone[lane]:
            del self._gone[lane]
        self.release(lane)
        self.open(lane)

    def load(self, lane: int) -> int:
        """Tell how many batches a lane has."""
        return self._load[lane]

    def __repr__(self) -> str:
        return f"<Lanes {self._load}, {len(self._gone)} gone>"
