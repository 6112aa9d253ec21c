"""Formats and rules of what a node keeps on disk: the write-ahead log and the snapshots.

Pure but for `async` functions that await a `ssgovern.runtime.Disk` and nothing else.
"""

from ssgovern.storage.envelope import IDENTITY_BYTES
from ssgovern.storage.format import (
    CUT,
    ENTRY,
    EPOCH,
    MARK,
    LogEntry,
    WalRecord,
    cut_record,
    epoch_promise,
)
from ssgovern.storage.recovery import RecoveryProgress
from ssgovern.storage.snapshot import SnapshotFile, load_snapshots, write_snapshot
from ssgovern.storage.wal import SegmentSize, Wal

__all__ = [
    "CUT",
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
    "cut_record",
    "epoch_promise",
    "load_snapshots",
    "write_snapshot",
]
