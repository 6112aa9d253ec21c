"""What a client knows of one service: its last good list and the position it stands for.

Pure: what nodes push comes in, what the caller sees as changed comes out. Invariants: the list
changes only by what a node said (never to an empty one because nothing was said); the position
never falls, unless the node is told to be another cluster's; a delta is applied only to a state
it fits, everything else that is newer is a gap and asks for a snapshot.

Several nodes may tell of one service, some behind others. What they tell is of one log, so
positions compare as pairs: within an epoch by revision, and a newer epoch is newer even if its
revision is lower, because then what was above it was cut from the log. Hence: a snapshot, delta
or `Current` from before the view's position changes nothing, and ends no waiting for currency
either (`Feed.behind`); each node's deltas follow without a gap on what it told first, so once
that is known, wherever from, its deltas fit.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from ssgovern.client.values import Change
from ssgovern.model import ORIGIN, Instance, LogPosition, ServiceKey


class Gap(Enum):
    """A push that does not fit: something before it is missing."""

    GAP = "gap"


GAP = Gap.GAP


class ServiceView:
    """The list of one service. `loaded` tells whether there ever was one."""

    __slots__ = ("_by_id", "_gap", "_ordered", "key", "loaded", "position")

    def __init__(self, key: ServiceKey) -> None:
        self.key = key
        self.position = ORIGIN
        """What the list stands for; the origin if it fits no log we know."""
        self.loaded = False
        self._by_id: dict[str, Instance] = {}
        self._ordered: tuple[Instance, ...] | None = ()
        self._gap = False

    def __repr__(self) -> str:
        return (
            f"<ServiceView {self.key} position={self.position!r} instances={len(self._by_id)}"
            f"{' gap' if self._gap else ''}>"
        )

    @property
    def instances(self) -> tuple[Instance, ...]:
        """The list, in the order of ids. The same object until it changes."""
        if self._ordered is None:
            # Kept in this order, few changes leave it nearly sorted: that is quick to sort again.
            by_id = self._by_id
            self._by_id = {each: by_id[each] for each in sorted(by_id)}
            self._ordered = tuple(self._by_id.values())
        return self._ordered

    @property
    def known(self) -> LogPosition:
        """The position to resume from; the origin: none, a snapshot is needed."""
        return ORIGIN if self._gap else self.position

    @property
    def has_gap(self) -> bool:
        """Whether the list is behind and waits for a snapshot."""
        return self._gap

    # --- what the node pushes --------------------------------------------------------------

    def on_snapshot(self, position: LogPosition, instances: Iterable[Instance]) -> Change | None:
        """Take the whole list; return what is different. What is older than ours is ignored."""
        if self.loaded and position < self.position:
            # From before what we know: a node that lags. Ours is better; its deltas will tell
            # us when it has caught up, or that there is a gap again.
            self._gap = False
            return None
        fresh = {instance.id: instance for instance in instances}
        old = self._by_id
        added = [new for new in fresh.values() if new.id not in old]
        changed = [new for new in fresh.values() if new.id in old and old[new.id] != new]
        removed = [gone for gone in old.values() if gone.id not in fresh]
        self._by_id = fresh
        self._gap = False
        return self._moved(position, added, changed, removed)

    def on_delta(
        self,
        since: int,
        position: LogPosition,
        upserted: Iterable[Instance],
        removed_ids: Iterable[str],
    ) -> Change | Gap | None:
        """Take what changed, if it fits; return what is different, or that it does not fit."""
        if self._gap or (self.loaded and self.position != ORIGIN and not position > self.position):
            # Already known, or waiting for a snapshot that will hold it.
            return None
        if since > self.position.revision or position.revision <= self.position.revision:
            self._gap = True
            return GAP
        if self.loaded and self.position == ORIGIN:
            # The list is another log's: what it should change is not what we have.
            self._gap = True
            return GAP

        by_id = self._by_id
        fresh = {instance.id: instance for instance in upserted}
        added = [new for new in fresh.values() if new.id not in by_id]
        changed = [new for new in fresh.values() if new.id in by_id and by_id[new.id] != new]
        gone_ids = [gone for gone in removed_ids if gone not in fresh and gone in by_id]
        removed = [by_id.pop(gone) for gone in dict.fromkeys(gone_ids)]
        by_id.update(fresh)
        return self._moved(position, added, changed, removed)

    def on_current(self, position: LogPosition) -> Gap | None:
        """Take that the list is that of `position`."""
        if not self.loaded or self.known == ORIGIN:
            # We did not say that we have it.
            self._gap = True
            return GAP
        self.position = max(self.position, position)
        return None

    # --- what the client itself decides ----------------------------------------------------

    def restore(self, position: LogPosition, instances: Iterable[Instance]) -> None:
        """Start from a list that was kept on disk."""
        assert not self.loaded, f"{self!r}: what a node said is newer than what was kept"
        self._by_id = {instance.id: instance for instance in instances}
        self._ordered = None
        self.position = position
        self.loaded = True

    def forget_position(self) -> None:
        """Keep the list but trust its position no more: the log it stood for is gone."""
        self.position = ORIGIN
        self._gap = False

    def _moved(
        self,
        position: LogPosition,
        added: list[Instance],
        changed: list[Instance],
        removed: list[Instance],
    ) -> Change | None:
        self.position = position
        self.loaded = True
        if not (added or changed or removed):
            return None
        self._ordered = None
        return Change(
            self.key,
            added=tuple(sorted(added, key=_id_of)),
            changed=tuple(sorted(changed, key=_id_of)),
            removed=tuple(sorted(removed, key=_id_of)),
            revision=position.revision,
        )


def _id_of(instance: Instance) -> str:
    return instance.id
