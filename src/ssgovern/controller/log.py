"""The seam behind which the cluster's metadata is agreed upon.

The embedded Raft is the default behind it; an existing etcd may take its place (an entry is a
key, `after` is a compare on the last one). What is asked of it is little: one order of entries
for everybody, durable and agreed upon by a majority before it says so, and a compare-and-set on
the end of the log, so that a controller that was replaced without noticing appends nothing.

The controller decides one thing at a time: what it decides next sees what it decided before,
because it has replayed it. Committed entries are final; they come in order, by callbacks that
whoever makes the log hands in, and may be read again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Entry:
    """A committed entry, or a snapshot in place of all entries up to its index.

    The body of an entry holds records that were decided together; an empty one is the log's
    own, and means nothing to the controller. That of a snapshot is `encode_snapshot`.
    """

    index: int
    body: bytes


class MetadataLog(Protocol):
    """The agreed order of metadata records."""

    async def append(self, body: bytes, *, after: int) -> int:
        """Commit an entry behind all records up to index `after`; return its index.

        Entries of the log's own may lie between, records may not. When it returns, the entry
        has been replayed here. Raises FencedError if another record is there or this node is
        not the controller (any more): nothing was appended; OverloadedError: nothing was
        appended, try again; UnavailableError if this node stopped being the controller
        meanwhile and it is *not known* whether the entry is committed: step down and read on.
        There is no other end to waiting while this node is the controller.
        """

    def read(self, after: int) -> Sequence[Entry] | None:
        """Return the entries behind an index that were replayed here; None: a snapshot is in
        their place, and the replayed state has to do."""
