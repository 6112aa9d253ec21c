"""Changes that wait for their reader.

Pure. A reader that keeps up gets every change by itself; for one that does not, changes of a
service merge, so that what is kept is bounded by the lists themselves and never by how long
the reader was away. Order is kept within a service.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from ssgovern import limits
from ssgovern.client.values import Change
from ssgovern.model import Instance, ServiceKey


class MergedChange:
    """Several changes of one service, as one."""

    __slots__ = ("_added", "_changed", "_removed", "key", "revision")

    def __init__(self, key: ServiceKey) -> None:
        self.key = key
        self.revision = 0
        self._added: dict[str, Instance] = {}
        self._changed: dict[str, Instance] = {}
        self._removed: dict[str, Instance] = {}

    def add(self, change: Change) -> None:
        """Take in a change that follows all before it."""
        added, changed, removed = self._added, self._changed, self._removed
        for new in change.added:
            # Removed and back: for who saw neither, it only changed.
            if removed.pop(new.id, None) is None:
                added[new.id] = new
            else:
                changed[new.id] = new
        for new in change.changed:
            (added if new.id in added else changed)[new.id] = new
        for gone in change.removed:
            # Added and gone: for who saw neither, nothing happened.
            if added.pop(gone.id, None) is None:
                changed.pop(gone.id, None)
                removed[gone.id] = gone
        self.revision = change.revision

    def as_change(self) -> Change:
        """Return all of it; empty if it cancelled out."""
        return Change(
            self.key,
            added=tuple(self._added.values()),
            changed=tuple(self._changed.values()),
            removed=tuple(self._removed.values()),
            revision=self.revision,
        )


class ChangeQueue:
    """Changes in the order in which they came; the older ones merged when they are too many."""

    __slots__ = ("_changes_max", "_merged", "_recent")

    def __init__(self, changes_max: int = limits.CLIENT_CHANGES_QUEUED_MAX) -> None:
        self._changes_max = changes_max
        self._merged: OrderedDict[ServiceKey, MergedChange] = OrderedDict()
        self._recent: deque[Change] = deque()

    def __len__(self) -> int:
        return len(self._merged) + len(self._recent)

    def put(self, change: Change) -> None:
        """Add the latest change."""
        self._recent.append(change)
        if len(self._recent) > self._changes_max:
            self._merge()

    def pop(self) -> Change | None:
        """Take the oldest change, or None if there is none."""
        while self._merged:
            _, merged = self._merged.popitem(last=False)
            change = merged.as_change()
            if change:
                return change
        return self._recent.popleft() if self._recent else None

    def clear(self) -> None:
        """Drop everything: the reader looks at the list itself."""
        self._merged.clear()
        self._recent.clear()

    def _merge(self) -> None:
        for change in self._recent:
            merged = self._merged.get(change.key)
            if merged is None:
                merged = self._merged[change.key] = MergedChange(change.key)
            merged.add(change)
        self._recent.clear()
