"""Who changed what, and who was refused: the newest entries, and what becomes of each.

Knows no connection and no file. Invariants: no secret is in an entry, because only what is named
here is written down; memory is bounded; refusals beyond `limits.AUDIT_REFUSALS_PER_S` are counted
and not written, so that nobody fills the audit by being refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from ssgovern import limits
from ssgovern.errors import PermissionDeniedError, SsGovernError, UnauthenticatedError
from ssgovern.service.access import Principal
from ssgovern.wire.pb import native_pb2

ANYBODY = "anybody"

Changed = tuple[str, str, str]
"""Name of a field, its value before, its value after; empty: not known, or none."""


class Audit:
    """Of one node. `on_entry` is told of each new entry."""

    def __init__(self, wall_ms: Callable[[], int]) -> None:
        self._wall_ms = wall_ms
        self._entries: deque[native_pb2.AuditEntry] = deque(maxlen=limits.AUDIT_ENTRIES_KEPT)
        self._number = 0
        self._second = 0
        self._refused = 0
        self._unwritten = 0
        self.node_id = 0
        self.lost = 0
        """Entries that are not on disk, by who keeps them there."""
        self.on_entry: Callable[[native_pb2.AuditEntry], None] = _ignore

    def restore(self, entries: Iterable[native_pb2.AuditEntry]) -> None:
        """Take what was written down in earlier lives, the oldest first."""
        for entry in entries:
            self._entries.append(entry)
            self._number = max(self._number, entry.number)

    def note(
        self,
        principal: Principal | None,
        origin: str,
        way: str,
        action: str,
        target: str = "",
        *,
        error: SsGovernError | None = None,
        detail: str = "",
        changes: Sequence[Changed] = (),
    ) -> None:
        """Write down what somebody did, or what came of trying."""
        now_ms = self._wall_ms()
        if isinstance(error, (UnauthenticatedError, PermissionDeniedError)):
            if not self._may_write_refusal(now_ms):
                return
            if self._unwritten:
                detail = f"and {self._unwritten} more refusals before it; {detail}".rstrip("; ")
                self._unwritten = 0
        self._number += 1
        most = limits.AUDIT_TEXT_CHARS_MAX
        entry = native_pb2.AuditEntry(
            number=self._number,
            time_ms=now_ms,
            who=ANYBODY if principal is None else principal.name[:most],
            origin=origin[:most],
            way=way,
            action=action[:most],
            target=target[:most],
            outcome="ok" if error is None else error.code.name.lower(),
            detail=(detail if error is None else f"{detail} {error.message}".strip())[:most],
            changes=[
                native_pb2.AuditField(name=name[:most], before=before[:most], after=after[:most])
                for name, before, after in changes[: limits.AUDIT_FIELDS_MAX]
            ],
            node_id=self.node_id,
        )
        self._entries.append(entry)
        self.on_entry(entry)

    def page(self, request: native_pb2.AuditRequest) -> native_pb2.AuditResponse:
        """Return entries, the newest first."""
        most = min(request.limit or limits.AUDIT_PAGE_MAX, limits.AUDIT_PAGE_MAX)
        found = native_pb2.AuditResponse(node_id=self.node_id)
        for entry in reversed(self._entries):
            if len(found.entries) == most:
                break
            if request.before and entry.number >= request.before:
                continue
            if request.who and entry.who != request.who:
                continue
            found.entries.append(entry)
        return found

    def _may_write_refusal(self, now_ms: int) -> bool:
        second = now_ms // 1000
        if second != self._second:
            self._second, self._refused = second, 0
        self._refused += 1
        if self._refused <= limits.AUDIT_REFUSALS_PER_S:
            return True
        self._unwritten += 1
        return False


def _ignore(_entry: native_pb2.AuditEntry) -> None:
    """Nobody keeps it."""
