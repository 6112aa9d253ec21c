"""Short spellings of records, keys and instances, for every test that needs some."""

from __future__ import annotations

from ssgovern.model import Outcome, ServiceKey, SessionId, ShardId, session_id_of
from ssgovern.registry.state import ShardState
from ssgovern.wire.codec import key_to_wire
from ssgovern.wire.pb import log_pb2, model_pb2, native_pb2

ORDERS = ServiceKey("prod", "default", "orders")
BILLING = ServiceKey("prod", "default", "billing")


def secret_of(name: str) -> bytes:
    """Return the secret of the session that a test calls `name`."""
    return name.encode().ljust(16, b"\0")


def session_of(name: str) -> SessionId:
    """Return the id of the session that a test calls `name`; "" is no session."""
    return session_id_of(secret_of(name)) if name else SessionId(b"")


def instance(
    instance_id: str = "a",
    *,
    host: str = "10.0.0.1",
    port: int = 8080,
    weight: float = 100.0,
    persistent: bool = False,
    metadata: dict[str, str] | None = None,
    **more: str | int,
) -> model_pb2.Instance:
    """Return an instance as a caller would send it."""
    return model_pb2.Instance(
        id=instance_id,
        host=host,
        port=port,
        weight=weight,
        persistent=persistent,
        metadata=metadata or {},
        **more,
    )


def registered(
    session: str,
    instance_id: str,
    *,
    key: ServiceKey = ORDERS,
    time_ms: int = 1000,
    persistent: bool = False,
    **fields: object,
) -> log_pb2.Record:
    """A registration by the session called `session`."""
    return log_pb2.Record(
        time_ms=time_ms,
        registered=log_pb2.InstanceRegistered(
            service=key_to_wire(key),
            instance=instance(instance_id, persistent=persistent, **fields),  # type: ignore[arg-type]
            session_id=session_of(session),
        ),
    )


def deregistered(
    session: str,
    instance_id: str,
    *,
    key: ServiceKey = ORDERS,
    any_owner: bool = False,
    if_revision: int = 0,
) -> log_pb2.Record:
    """A removal asked for by the session called `session`."""
    return log_pb2.Record(
        deregistered=log_pb2.InstanceDeregistered(
            service=key_to_wire(key),
            instance_id=instance_id,
            session_id=session_of(session),
            any_owner=any_owner,
            if_revision=if_revision,
        ),
    )


def updated(
    session: str,
    instance_id: str,
    change: native_pb2.InstanceChange | None = None,
    *,
    key: ServiceKey = ORDERS,
    any_owner: bool = False,
    if_revision: int = 0,
    **fields: object,
) -> log_pb2.Record:
    """An update asked for by the session called `session`; `fields` are those of the change."""
    return log_pb2.Record(
        updated=log_pb2.InstanceUpdated(
            service=key_to_wire(key),
            instance_id=instance_id,
            session_id=session_of(session),
            any_owner=any_owner,
            if_revision=if_revision,
            change=change or native_pb2.InstanceChange(**fields),  # type: ignore[arg-type]
        ),
    )


def ended(session: str) -> log_pb2.Record:
    """The end of the session called `session`."""
    return log_pb2.Record(session_ended=log_pb2.SessionEnded(session_id=session_of(session)))


def epoch_started(node_id: int = 1) -> log_pb2.Record:
    """The first entry of an epoch."""
    return log_pb2.Record(epoch_started=log_pb2.EpochStarted(node_id=node_id))


class Shard:
    """A shard's state and the position of its log."""

    def __init__(self) -> None:
        self.state = ShardState(ShardId(7))
        self.epoch = 1

    def apply(self, *records: log_pb2.Record) -> Outcome:
        """Apply records at the next revisions; return what became of the last."""
        for record in records:
            outcome = self.state.apply(self.epoch, self.state.position.revision + 1, record)
        return outcome

    @property
    def revision(self) -> int:
        return self.state.position.revision
