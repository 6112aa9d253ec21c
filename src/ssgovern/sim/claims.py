"""What clients say of their doing, held against the log: true of one node and of a cluster.

Keeps the ledger and the verdict. Knows no node: who observes those is a subclass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssgovern.model import ServiceKey, shard_of
from ssgovern.sim.lease_promises import Promises
from ssgovern.sim.ledger import Ledger, LedgerEntry
from ssgovern.wire.codec import key_from_wire
from ssgovern.wire.pb import log_pb2

if TYPE_CHECKING:
    from ssgovern.sim.world import World


class Claims:
    """The judge of what clients were told. The first violation ends the run."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ledger = Ledger()
        self.violations: list[str] = []
        self.acknowledged = 0
        self.lists_may_be_old = False
        """Lists of services may come from replicas."""
        self.promises = Promises(world, self.fail)
        """What holders of leases were told."""
        self._may_register: dict[tuple[ServiceKey, str, bytes], bool] = {}

    def fail(self, text: str) -> None:
        """Note a violation and end the run."""
        self.violations.append(f"{self.world.now:.6f} {text}")
        self.world.note(f"violation: {text}")
        self.world.stop()

    def expect(self, holds: bool, text: str) -> None:
        if not holds:
            self.fail(text)

    def check_registered(self, record: log_pb2.Record, entry: LedgerEntry) -> None:
        """D2: what a committed entry registers was asked for and not taken back.

        S4: it ends no lease too early.
        """
        if record.HasField("session_ended"):
            self.promises.on_ended(record.session_ended.session_id)
        if not record.HasField("registered"):
            return
        change = record.registered
        what = (key_from_wire(change.service), change.instance.id, change.session_id)
        if not self._may_register.get(what, False):
            self.fail(
                f"D2: {what[0]} {what[1]} was registered at {entry.epoch}/{entry.revision} by "
                f"session {what[2].hex()[:8]}, which deregistered it or never asked for it"
            )

    def floor(self, key: ServiceKey) -> tuple[int, int]:
        """Return what a request that begins now must at least see: losses so far, revision."""
        return self.ledger.losses, self.ledger.revision(key)

    def may_register(self, key: ServiceKey, name: str, session_id: bytes) -> None:
        """A session asks for an instance to be registered."""
        self._may_register[key, name, session_id] = True

    def is_deregistered(
        self, key: ServiceKey, name: str, session_id: bytes, floor: tuple[int, int]
    ) -> None:
        """A node acknowledged a removal."""
        self._may_register[key, name, session_id] = False
        self.acknowledged += 1
        losses, revision = floor
        if losses != self.ledger.losses:
            return
        for entry in self.ledger.shard(key).entries[revision:]:
            change = entry.record.deregistered
            if change.instance_id == name and key_from_wire(change.service) == key:
                return
        self.fail(f"D2: the removal of {key} {name} was acknowledged and is not in the log")

    def is_committed(
        self, key: ServiceKey, name: str, revision: int, floor: tuple[int, int], kind: str
    ) -> None:
        """A node acknowledged a write at a revision; `kind` is the name of its record."""
        self.acknowledged += 1
        shard = shard_of(*key)
        for entry in self.ledger.entries_at(shard, revision):
            record = entry.record
            if record.WhichOneof("change") == kind:
                change = getattr(record, kind)
                same = key_from_wire(change.service) == key
                named = change.instance.id if kind == "registered" else change.instance_id
                if same and named == name:
                    break
        else:
            self.fail(f"C3: {kind} {key} {name} was acknowledged at {revision} and never committed")
            return
        if floor[0] == self.ledger.losses and revision <= floor[1]:
            self.fail(
                f"R1: {key} {name} was acknowledged at {revision}; when it was asked for, "
                f"{floor[1]} was committed"
            )


def difference(wanted: object, found: object) -> str:
    """Say in words how what was found is not what is right."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        missing = sorted(name for name in wanted if name not in found)
        extra = sorted(name for name in found if name not in wanted)
        other = [
            f"{name}: {found[name]!r} instead of {wanted[name]!r}"
            for name in sorted(wanted)
            if name in found and found[name] != wanted[name]
        ]
        return f"missing {missing}, too much {extra}, different {other}"
    return f"{found!r} instead of {wanted!r}"
