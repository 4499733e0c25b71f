"""What the jobs of one call share: how they run here, and how they become bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from parallel import _serialize
from parallel._task import Batch, Job, Outcome
from parallel._worker import CallHeader, RemoteJob, run_job
from parallel.errors import TaskPicklingError

__all__ = ["CallCarrier"]


@dataclass(frozen=True, slots=True)
class CallCarrier:
    """What the jobs of one call share; see `parallel._task.Carrier`."""

    header: CallHeader
    encoder: _serialize.Encoder
    remote: Callable[[bytes], Callable[[], bytes]] = RemoteJob

    def run(self, job: Job) -> Outcome:
        """Run the job in this process."""
        return run_job(job, self.header)

    def encode(self, batch: Batch, slot: int | None) -> bytes:
        """Turn the batch into bytes."""
        return self.encoder.encode(batch, slot)

    def encode_or_excuse(self, batch: Batch, slot: int | None) -> bytes:
        """Turn the batch, or why that cannot be done, into bytes."""
        try:
            return self.encoder.encode(batch, slot)
        except TaskPicklingError as error:
            return self.encoder.encode_excuse(batch, error)
