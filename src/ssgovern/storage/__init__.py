"""Formats and rules of what a node keeps on disk: the write-ahead log and the snapshots.

Pure but for `async` functions that await a `ssgovern.runtime.Disk` and nothing else.
"""

from ssgovern.storage.envelope import IDENTITY_BYTES
from ssgovern.storage.format import (
    ENTRY,
    EPOCH,
    MARK,
    LogEntry,
    WalRecord,
    epoch_promise,
)
from ssgovern.storage.recovery import RecoveryProgress
from ssgovern.storage.snapshot import SnapshotFile, load_snapshots, write_snapshot
from ssgovern.storage.wal import SegmentSize, Wal

__all__ = [
    "ENTRY",
    "EPOCH",
    "IDENTITY_BYTES",
    "MARK",
    "LogEntry",
    "RecoveryProgress",
    "SegmentSize",
    "SnapshotFile",
    "Wal",
    "WalRecord",
    "epoch_promise",
    "load_snapshots",
    "write_snapshot",
]
