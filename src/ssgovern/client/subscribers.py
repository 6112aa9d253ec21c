"""Who follows a service, and how far a change of it has got. Values; pure."""

from __future__ import annotations

from dataclasses import dataclass

from ssgovern.model import LogPosition, ServiceKey
from ssgovern.wire.pb import applied_pb2


@dataclass(frozen=True, slots=True)
class Subscriber:
    """One client that follows a service."""

    session_id: str
    """In hexadecimal, as `Registry.session_id`."""
    client_name: str
    address: str
    node_id: int
    """The node it is connected to."""
    says: bool
    """It says what it has applied; clients of older versions do not."""
    position: LogPosition | None
    """What it said last that it has applied of the service; None: nothing yet."""
    behind_s: float
    """For how long it has lacked a change; 0: it lacks none that its node knows."""
    connected: bool = True
    """False: its connection was lost a moment ago."""


@dataclass(frozen=True, slots=True)
class ServiceSubscribers:
    """Who follows a service, on all nodes, in the order of session ids."""

    key: ServiceKey
    position: LogPosition | None
    """Of the last change of the service; None: it is not known."""
    subscribers: tuple[Subscriber, ...]
    unanswered: tuple[int, ...]
    """Nodes that did not answer: who is connected to them is missing."""

    def lacking(self, position: LogPosition) -> tuple[Subscriber, ...]:
        """Return those who have not said that they have applied a position."""
        return tuple(
            each for each in self.subscribers if each.position is None or each.position < position
        )


@dataclass(frozen=True, slots=True)
class Delivery:
    """How far a change of a service has got when waiting for it ended."""

    key: ServiceKey
    position: LogPosition
    complete: bool
    """Every live subscriber that says what it has applied has applied it, on every node."""
    subscribers: int
    lacking: tuple[Subscriber, ...]
    """Some of those who have not."""
    lacking_total: int
    silent: tuple[Subscriber, ...]
    """Some of those who do not say, being older; they are not waited for."""
    silent_total: int
    unanswered: tuple[int, ...]
    """Nodes that did not answer."""

    def __bool__(self) -> bool:
        return self.complete


@dataclass(frozen=True, slots=True)
class Release:
    """What became of taking an instance away without losing requests to it."""

    key: ServiceKey
    instance_id: str
    drained: Delivery | None
    """Of its being out of service; None: that was not asked for."""
    removed: bool
    """It was registered and is not any more."""
    gone: Delivery | None
    """Of its removal; None: it was not removed, or not asked for."""

    @property
    def complete(self) -> bool:
        """Whether all that was asked for is done, and known to every live subscriber."""
        return all(part is None or part.complete for part in (self.drained, self.gone)) and not (
            self.drained is None and self.gone is None
        )

    def __bool__(self) -> bool:
        return self.complete


def subscriber_from_wire(row: applied_pb2.ServiceSubscriber, node_id: int) -> Subscriber:
    """Return a subscriber as a node describes it."""
    return Subscriber(
        session_id=row.session_id.hex(),
        client_name=row.client_name,
        address=row.address,
        node_id=node_id,
        says=row.says,
        position=LogPosition(row.epoch, row.revision) if row.revision else None,
        behind_s=row.behind_ms / 1000.0,
        connected=not row.disconnected,
    )


def merged(rows: list[Subscriber]) -> tuple[Subscriber, ...]:
    """Return each session once, as the node has it that knows most of it, in order.

    One that moves between nodes, or whose client is served through another node, is on two.
    """
    best: dict[str, Subscriber] = {}
    for row in rows:
        other = best.get(row.session_id)
        if other is None or _knowledge(row) > _knowledge(other):
            best[row.session_id] = row
    return tuple(best[session_id] for session_id in sorted(best))


def _knowledge(row: Subscriber) -> tuple[bool, LogPosition, bool]:
    return (row.says, row.position or LogPosition(0, 0), row.connected)
