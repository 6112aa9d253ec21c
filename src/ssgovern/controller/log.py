"""The seam behind which the cluster's metadata is agreed upon.

The embedded Raft is the default behind it; an existing etcd may take its place (an entry is a
key, `after` is a compare on the last one). What is asked of it is little: one order of entries
for everybody, durable and agreed upon by a majority before it says so, and a compare-and-set on
the end of the log, so that a controller that was replaced without noticing appends nothing.

The controller decides one thing at a time: what it decides next sees what it decided before,
because it has replayed it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Entry:
    """A committed entry: an encoded record and its place."""

    index: int
    body: bytes


class MetadataLog(Protocol):
    """The agreed order of metadata records."""

    async def append(self, bodies: Sequence[bytes], *, after: int) -> int:
        """Commit records, all or none, right after index `after`; return the last index.

        Raises FencedError if another controller appended there first, and UnavailableError if
        no majority answered in time. After the latter it is *not known* whether they were
        committed: step down and read on.
        """

    async def read(self, after: int) -> Sequence[Entry]:
        """Wait for committed entries behind an index and return them, in order.

        Entries behind a snapshot are gone: then nothing is returned and `snapshot` is ahead.
        """

    async def snapshot(self) -> Entry:
        """Return the newest snapshot (`decode_snapshot`) and the index it stands for."""

    async def compact(self, snapshot: Entry) -> None:
        """Keep a snapshot, after which entries up to its index may be forgotten."""
