"""What can be read of services over HTTP: from committed state into documents.

Each function answers one operation and refuses to know paths, headers and sockets. What this
node holds is read here, at once; the rest is asked of its primary. What costs time is limited
by the page: nothing here walks all that a node holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import NamedTuple, Protocol

from ssgovern import limits
from ssgovern.api.http import asks, bodies
from ssgovern.api.http.answers import Answer
from ssgovern.api.http.asked import Asked
from ssgovern.api.http.desk import Desk
from ssgovern.errors import (
    InvalidArgumentError,
    NotFoundError,
    RevisionConflictError,
    ShardMovedError,
    ShardUnavailableError,
)
from ssgovern.model import LogPosition, ServiceKey, check_name, shard_of, valid_key
from ssgovern.registry.state import Entry, is_available
from ssgovern.wire.codec import key_to_wire
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import model_pb2, native_pb2

STATUS_NAMES: tuple[bodies.StatusName, ...] = ("up", "starting", "stopping", "down")


class Encoded(Protocol):
    """Instances as they are on the wire, in an order that holds as long as the revision."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[bytes]: ...


class List(NamedTuple):
    """A service as it is somewhere at some revision."""

    key: ServiceKey
    position: LogPosition
    """The revision is that of the service's last change; 0: none is known."""
    encoded: Encoded

    @property
    def tag(self) -> str:
        """What is equal as long as the list is."""
        return f"{self.position.epoch}.{self.position.revision}"


def key_of(asked: Asked) -> ServiceKey:
    """Return the service that a path names. Raises InvalidArgumentError."""
    path = asked.path
    return valid_key(path["namespace"], path["group"], path["service"])


def is_here(desk: Desk, key: ServiceKey, *, fresh: bool = False) -> bool:
    """Tell whether a service is read here; `fresh`: with all that was acknowledged."""
    try:
        desk.backend.registry.placement.check_read(shard_of(*key), replica_too=not fresh)
    except (ShardMovedError, ShardUnavailableError):
        return False
    return True


def position_here(desk: Desk, key: ServiceKey) -> LogPosition:
    """Return the position of a service's last change, where it is read here."""
    state = desk.backend.registry.state_of(key)
    service = state.services.get(key)
    return LogPosition(state.position.epoch, 0 if service is None else service.revision)


async def instances(desk: Desk, asked: Asked) -> Answer:
    """Return a page of the instances of a service.

    As this node's copy of its shard has them, which may be a moment behind its primary's; the
    revision says how far it is.
    """
    query = asked.query
    assert isinstance(query, asks.InstancesQuery), "the operation says what is asked"
    key = key_of(asked)
    if is_here(desk, key, fresh=query.fresh):
        return page_here(desk, key, query)
    found = await _asked_of_primary(desk, key)
    encoded = [each.SerializeToString() for each in found.instances]
    position = LogPosition(found.epoch, found.service_revision)
    return page_of(List(key, position, encoded), query)


async def _asked_of_primary(desk: Desk, key: ServiceKey) -> native_pb2.GetResponse:
    return await desk.backend.gateway.call(
        MessageType.GET,
        native_pb2.GetRequest(service=key_to_wire(key)),
        native_pb2.GetResponse,
        repeatable=True,
        key=key,
    )


async def position_there(desk: Desk, key: ServiceKey) -> LogPosition:
    """Return the position of a service's last change, where its primary is."""
    found = await _asked_of_primary(desk, key)
    return LogPosition(found.epoch, found.service_revision)


def page_here(desk: Desk, key: ServiceKey, query: asks.InstancesQuery) -> Answer:
    """Return a page of what this node holds."""
    position = position_here(desk, key)
    state = desk.backend.registry.state_of(key)
    service = state.services.get(key)
    usual = query.model_fields_set <= {"fresh", "after", "wait"}
    tag = f"{position.epoch}.{position.revision}"
    if usual:
        kept = desk.pages.get(key, tag)
        if kept is not None:
            return Answer(kept, f"{tag}.0.{query.page_size}")
    entries = {} if service is None else service.instances
    shown = _Entries(entries)
    answer = page_of(List(key, position, shown), query)
    if usual:
        assert not isinstance(answer.body, bytes), "just made"
        encoded = answer.body.model_dump_json().encode()
        desk.pages.put(key, tag, encoded)
        return Answer(encoded, answer.tag)
    return answer


class _Entries:
    """The instances of a service in here, seen as what they are on the wire."""

    __slots__ = ("_by_id",)

    def __init__(self, by_id: Mapping[str, Entry]) -> None:
        self._by_id = by_id

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[bytes]:
        return (entry.encoded for entry in self._by_id.values())


def page_of(shown: List, query: asks.InstancesQuery) -> Answer:
    """Return the page of a list that a query asks for.

    Instances come in the order in which they are kept, which holds as long as the revision:
    sorting would cost a service of a hundred thousand instances with every page.
    """
    first = _first_of(query.page_token, shown.tag)
    found: list[bodies.Instance] = []
    looked_at = first
    wanted = _Filter(query)
    for encoded in islice(shown.encoded, first, None):
        if len(found) == query.page_size or looked_at - first == limits.HTTP_SCAN_MAX:
            break
        looked_at += 1
        message = model_pb2.Instance.FromString(encoded)
        if wanted.takes_all or wanted.takes(message):
            found.append(instance_body(message))
    more = looked_at < len(shown.encoded)
    # What is in the state was checked when it came: checking it again doubles the cost.
    page = bodies.InstancePage.model_construct(
        namespace=shown.key.namespace,
        group=shown.key.group,
        service=shown.key.service,
        epoch=shown.position.epoch,
        revision=shown.position.revision,
        total=len(shown.encoded),
        instances=found,
        next_page_token=f"{shown.tag}.{looked_at}" if more else None,
    )
    return Answer(page, f"{shown.tag}.{first}.{query.page_size}")


class _Filter:
    """Which instances are wanted."""

    def __init__(self, query: asks.InstancesQuery) -> None:
        self._query = query
        self._pairs = dict(pair.partition("=")[::2] for pair in query.metadata)
        self.takes_all = not (
            query.model_fields_set
            & {"zone", "version", "healthy", "enabled", "available", "metadata"}
        )

    def takes(self, message: model_pb2.Instance) -> bool:
        query = self._query
        return (
            (not query.zone or message.zone == query.zone)
            and (not query.version or message.version == query.version)
            and query.healthy in (None, not message.unhealthy)
            and query.enabled in (None, not message.out_of_service)
            and query.available in (None, is_available(message))
            and all(message.metadata.get(key) == value for key, value in self._pairs.items())
        )


def _first_of(token: str, tag: str) -> int:
    """Return where a page begins."""
    if not token:
        return 0
    of, _, first = token.rpartition(".")
    if not (first.isascii() and first.isdigit() and len(first) <= 9 and of.count(".") == 1):
        raise InvalidArgumentError("page_token is none that was given out", field="page_token")
    if of != tag:
        raise RevisionConflictError(
            "the service changed between two pages: begin with the first again", field="page_token"
        )
    return int(first)


def instance_body(message: model_pb2.Instance) -> bodies.Instance:
    """Return an instance as it is sent."""
    return bodies.Instance(
        id=message.id,
        host=message.host,
        port=message.port,
        weight=message.weight,
        status=STATUS_NAMES[message.status],
        healthy=not message.unhealthy,
        enabled=not message.out_of_service,
        available=is_available(message),
        ephemeral=not message.persistent,
        lease_ms=message.lease_ms,
        zone=message.zone,
        version=message.version,
        metadata=dict(sorted(message.metadata.items())),
        revision=message.revision,
        registered_at_ms=message.registered_at_ms,
    )


# --- one instance -------------------------------------------------------------------------


async def instance(desk: Desk, asked: Asked) -> Answer:
    """Return one instance; its tag is its revision, for If-Match."""
    query = asked.query
    assert isinstance(query, asks.InstanceQuery), "the operation says what is asked"
    key, instance_id = key_of(asked), asked.path["id"]
    check_name("instance id", instance_id)
    found = await find_instance(desk, key, instance_id, fresh=query.fresh)
    if found is None:
        raise no_such_instance(key, instance_id)
    body = bodies.InstanceAnswer(instance=instance_body(found))
    return Answer(body, str(found.revision))


async def find_instance(
    desk: Desk, key: ServiceKey, instance_id: str, *, fresh: bool
) -> model_pb2.Instance | None:
    """Return an instance of a service, from here or from its primary; None: there is none."""
    if is_here(desk, key, fresh=fresh):
        service = desk.backend.registry.state_of(key).services.get(key)
        entry = None if service is None else service.instances.get(instance_id)
        return None if entry is None else model_pb2.Instance.FromString(entry.encoded)
    found = await _asked_of_primary(desk, key)
    return next((each for each in found.instances if each.id == instance_id), None)


def no_such_instance(key: ServiceKey, instance_id: str) -> NotFoundError:
    """Return the error of who names an instance that is not there."""
    return NotFoundError(
        f"no instance {instance_id!r} in service {key.service!r}", instance_id=instance_id
    )
