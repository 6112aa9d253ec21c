"""Positions in the log of one shard."""

from __future__ import annotations

from typing import NamedTuple


class LogPosition(NamedTuple):
    """`(epoch, revision)`: equal positions mean equal prefixes. `(0, 0)` is before everything."""

    epoch: int
    revision: int

    def __repr__(self) -> str:
        return f"{self.epoch}/{self.revision}"


ORIGIN = LogPosition(0, 0)
