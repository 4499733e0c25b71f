"""What the jobs of one call share: how they run here, and how they become bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from parallel import _outcomes, _serialize
from parallel._codec import Codec
from parallel._explain import tasks_text
from parallel._memory import CallMemory
from parallel._running import LocalCall, run_job
from parallel._task import Batch, Job, Outcome
from parallel._worker import RemoteJob
from parallel.errors import BackendContractError, TaskPicklingError

__all__ = ["CallCarrier"]


class CallCarrier(NamedTuple):
    """What the jobs of one call share; see `parallel._task.Carrier`."""

    #: For jobs that run in this process.
    local: LocalCall
    encoder: _serialize.Encoder
    #: What outcomes have gone through on other hosts.
    codec: Codec | None = None
    #: For large data; None where all of it goes through the pipe.
    memory: CallMemory | None = None
    remote: Callable[[bytes], Callable[[], bytes]] = RemoteJob

    def run(self, job: Job) -> Outcome:
        """Run the job in this process."""
        return run_job(job, self.local)

    def encode(self, batch: Batch, slot: int | None) -> bytes:
        """Turn the batch into bytes."""
        return self.encoder.encode(batch, slot)

    def decode(self, brought: object, batch: Batch, backend_name: str) -> Outcome:
        """Read the outcome of a batch; see `parallel._outcomes.decode_outcome`.

        Raises
        ------
        BackendContractError
            If it is none, or none of this batch.
        """
        memory = self.memory
        room = memory.room_of(batch.batch_id) if memory is not None else None
        warn = memory.warn if memory is not None else None
        outcome = _outcomes.decode_outcome(brought, batch, backend_name, room, self.codec, warn)
        return _checked(outcome, batch, backend_name)

    def release(self, batch_id: int, *, is_clean: bool = False) -> None:
        """Give back what a batch has used of the memory; `is_clean` if no results were in it."""
        if self.memory is not None:
            self.memory.end(batch_id, is_clean=is_clean)

    def refuse(self, job: Job) -> bool:
        """A worker cannot reach the memory: use the pipe from now on. Tell whether that is any help to the batch."""
        batch = job.batch
        if self.memory is None or not self.memory.refuse(batch.batch_id):
            return False
        if self.memory.has_written(batch.batch_id):
            # The input may have changed since what the tasks hold: what was written has not.
            sent = _serialize.tasks_of(job.payload, batch)
            if sent is not None:
                batch.tasks = sent
        return True

    def close(self) -> None:
        """Give the memory back; the limits of threads end."""
        self.local.threads.close()
        if self.memory is not None:
            self.memory.close()

    def encode_or_excuse(self, batch: Batch, slot: int | None) -> bytes:
        """Turn the batch, or why that cannot be done, into bytes."""
        try:
            return self.encoder.encode(batch, slot)
        except TaskPicklingError as error:
            return self.encoder.encode_excuse(batch, error)


def _checked(outcome: Outcome, batch: Batch, backend_name: str) -> Outcome:
    count = len(outcome.values)
    if count > len(batch) or not all(0 <= position < len(batch) for position in outcome.failures):
        problem = f"an outcome of {count} results for a batch of {len(batch)} tasks"
    elif not (count or outcome.failures or outcome.is_blind or outcome.unclear):
        problem = "an outcome without any result"
    else:
        return outcome
    indices = batch.indices
    raise BackendContractError(
        f"the backend {backend_name!r} brought {problem} ({tasks_text(indices)})",
        backend=backend_name,
        task_indices=indices,
    )
