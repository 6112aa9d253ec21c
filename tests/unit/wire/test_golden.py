"""The bytes of every message, for ever: what is on a wire or a disk somewhere must stay readable.

Each file under `golden/` holds one frame (or one log record, or one snapshot chunk) in hex. A
change to an existing file is a change of the protocol or of the disk format.
"""

from __future__ import annotations

from pathlib import Path

import access_messages
import applied_messages
import cluster_messages
import observing_messages
import pytest
from builders import deregistered, ended, epoch_started, instance, registered, updated
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from ssgovern.wire.codec import encode
from ssgovern.wire.frames import FrameReader, Kind, MessageType, encode_frame
from ssgovern.wire.pb import (
    access_pb2,
    applied_pb2,
    log_pb2,
    metadata_pb2,
    model_pb2,
    native_pb2,
    peer_pb2,
)

GOLDEN = Path(__file__).parent / "golden"

KEY = cluster_messages.KEY
FULL = instance(
    "10.0.0.1:8080",
    zone="z1",
    version="1.2.3",
    metadata={"lane": "gray", "b": "2", "a": "1"},
    persistent=True,
    weight=2.5,
    status=2,
    unhealthy=1,
    out_of_service=1,
    revision=300,
    registered_at_ms=1_700_000_000_000,
)
LEASED = instance("a", lease_ms=300)
ERROR = native_pb2.Error(
    code=2, retry=1, message="too many", fields={"limit": "10", "field": "metadata"}
)
CHANGE = native_pb2.InstanceChange(
    weight=0.0,
    status=model_pb2.STATUS_UP,
    out_of_service=False,
    metadata_set={"b": "2", "a": "1"},
    metadata_remove=["x"],
    metadata_clear=True,
)
ID = cluster_messages.ID
LEASE = native_pb2.Lease(session_id=ID, session_secret=ID[::-1], ttl_ms=15_000)

REQUESTS: dict[MessageType, Message] = {
    MessageType.HELLO: native_pb2.HelloRequest(
        version_min=1,
        version_max=3,
        role=native_pb2.ROLE_PEER,
        client_name="sdk/1.0",
        session_id=ID,
        session_secret=ID[::-1],
    ),
    MessageType.HEARTBEAT: native_pb2.HeartbeatRequest(),
    MessageType.GOODBYE: native_pb2.GoodbyeRequest(),
    MessageType.REGISTER: native_pb2.RegisterRequest(
        registrations=[native_pb2.Registration(service=KEY, instance=FULL)] * 2
    ),
    MessageType.DEREGISTER: native_pb2.DeregisterRequest(
        service=KEY, instance_id="a", any_owner=True, if_revision=7
    ),
    MessageType.UPDATE: native_pb2.UpdateRequest(
        service=KEY, instance_id="a", any_owner=True, if_revision=7, change=CHANGE
    ),
    MessageType.RENEW: native_pb2.RenewRequest(
        renewals=[native_pb2.Renewal(service=KEY, session_id=ID, session_secret=ID[::-1])] * 2
    ),
    MessageType.GET: native_pb2.GetRequest(service=KEY),
    MessageType.LIST_SERVICES: native_pb2.ListServicesRequest(
        namespace="prod", group="g", prefix="o", page_size=10, page_token="g o"
    ),
    MessageType.SUBSCRIBE: native_pb2.SubscribeRequest(
        pattern=native_pb2.Pattern(namespace="prod", group="g", prefix="o"),
        known=[native_pb2.KnownService(service=KEY, epoch=1, revision=2)],
    ),
    MessageType.UNSUBSCRIBE: native_pb2.UnsubscribeRequest(subscription_id=3),
    MessageType.STATUS: native_pb2.StatusRequest(),
    MessageType.READ_SHARD: native_pb2.ReadShardRequest(shard=255, number=300),
    **cluster_messages.REQUESTS,
    **access_messages.REQUESTS,
    **applied_messages.REQUESTS,
    **observing_messages.REQUESTS,
    MessageType.NAMESPACES: native_pb2.NamespacesRequest(prefix="p", after="prod", page_size=100),
}

RESPONSES: dict[MessageType, Message] = {
    MessageType.HELLO: native_pb2.HelloResponse(
        version=1,
        cluster_id=ID,
        node_id=2,
        node_name="n2",
        resumed=True,
        session_ttl_ms=5000,
        heartbeat_interval_ms=1000,
        map_version=9,
    ),
    MessageType.HEARTBEAT: native_pb2.HeartbeatResponse(map_version=9),
    MessageType.GOODBYE: native_pb2.GoodbyeResponse(),
    MessageType.REGISTER: native_pb2.RegisterResponse(
        results=[
            native_pb2.RegisterResult(instance_id="a", epoch=1, revision=2),
            native_pb2.RegisterResult(instance_id="b", error=ERROR),
        ]
    ),
    MessageType.DEREGISTER: native_pb2.DeregisterResponse(epoch=1, revision=2, removed=True),
    MessageType.UPDATE: native_pb2.UpdateResponse(epoch=1, revision=2, instance=FULL),
    MessageType.RENEW: native_pb2.RenewResponse(
        results=[
            native_pb2.RenewResult(known=True, ttl_ms=15_000),
            native_pb2.RenewResult(error=ERROR),
        ]
    ),
    MessageType.GET: native_pb2.GetResponse(
        epoch=1, revision=302, instances=[FULL, FULL], service_revision=301
    ),
    MessageType.LIST_SERVICES: native_pb2.ListServicesResponse(
        services=[native_pb2.ServiceSummary(service=KEY, instances=3, available=2, revision=300)],
        next_page_token="g o",
    ),
    MessageType.SUBSCRIBE: native_pb2.SubscribeResponse(subscription_id=3),
    MessageType.UNSUBSCRIBE: native_pb2.UnsubscribeResponse(),
    MessageType.STATUS: native_pb2.StatusResponse(
        **{
            field.name: (
                f"{field.name}"
                if field.type == field.TYPE_STRING
                else ID
                if field.type == field.TYPE_BYTES
                else field.number
            )
            for field in native_pb2.StatusResponse.DESCRIPTOR.fields
        }
    ),
    MessageType.READ_SHARD: native_pb2.ReadShardResponse(
        epoch=9, revision=300, instances=2, chunk=ID, done=True
    ),
    **cluster_messages.RESPONSES,
    **access_messages.RESPONSES,
    **applied_messages.RESPONSES,
    **observing_messages.RESPONSES,
    MessageType.NAMESPACES: native_pb2.NamespacesResponse(namespaces=["prod", "测试"], more=True),
}

PUSHES: dict[MessageType, Message] = {
    MessageType.SNAPSHOT: native_pb2.Snapshot(
        service=KEY, epoch=1, revision=300, instances=[FULL, FULL]
    ),
    MessageType.DELTA: native_pb2.Delta(
        service=KEY, epoch=1, since=2, revision=300, upserted=[FULL], removed=["b", "c"]
    ),
    MessageType.CURRENT: native_pb2.Current(service=KEY, epoch=1, revision=300),
    **cluster_messages.PUSHES,
    **applied_messages.PUSHES,
}

OTHER_REQUESTS: dict[str, tuple[MessageType, Message]] = {
    "subscribe-service": (
        MessageType.SUBSCRIBE,
        native_pb2.SubscribeRequest(
            service=KEY, known=[native_pb2.KnownService(service=KEY, epoch=1, revision=2)]
        ),
    ),
    # What clients of a cluster say besides; the bytes of those before them stay as they were.
    "hello-forward": (MessageType.HELLO, native_pb2.HelloRequest(session_id=ID, forward=True)),
    "get-replica": (MessageType.GET, native_pb2.GetRequest(service=KEY, replica_too=True)),
    "list-services-shards": (
        MessageType.LIST_SERVICES,
        native_pb2.ListServicesRequest(namespace="prod", shards=cluster_messages.MAP_BITS),
    ),
    "subscribe-shards": (
        MessageType.SUBSCRIBE,
        native_pb2.SubscribeRequest(
            pattern=native_pb2.Pattern(namespace="prod"), shards=cluster_messages.MAP_BITS
        ),
    ),
    # What is asked on behalf of a lease.
    "register-lease": (
        MessageType.REGISTER,
        native_pb2.RegisterRequest(
            registrations=[native_pb2.Registration(service=KEY, instance=LEASED)], lease=LEASE
        ),
    ),
    "deregister-lease": (
        MessageType.DEREGISTER,
        native_pb2.DeregisterRequest(service=KEY, instance_id="a", lease=LEASE),
    ),
    "update-lease": (
        MessageType.UPDATE,
        native_pb2.UpdateRequest(service=KEY, instance_id="a", lease=LEASE, change=CHANGE),
    ),
    **cluster_messages.OTHERS,
    **access_messages.OTHERS,
}

RECORDS: dict[str, log_pb2.Record] = {
    "registered": registered("s", "a", metadata={"b": "2", "a": "1"}),
    "deregistered": deregistered("s", "a", any_owner=True, if_revision=7),
    "updated": updated("s", "a", CHANGE, any_owner=True, if_revision=7),
    "session_ended": ended("s"),
    "epoch_started": epoch_started(3),
}

CHUNK = log_pb2.SnapshotChunk(
    epoch_starts=[log_pb2.EpochStart(epoch=1, revision=1), log_pb2.EpochStart(epoch=2, revision=9)],
    services=[
        log_pb2.SnapshotService(
            service=KEY,
            revision=300,
            instances=[
                log_pb2.SnapshotInstance(
                    id="a", session_id=ID, persistent=True, instance=encode(FULL)
                )
            ],
            out_of_service=["a", "gone"],
        )
    ],
)


def _cases() -> dict[str, tuple[Message, bytes]]:
    """Return, by file name, each message and its bytes as they go out."""
    cases: dict[str, tuple[Message, bytes]] = {}
    for kind, messages in (
        (Kind.REQUEST, REQUESTS),
        (Kind.RESPONSE, RESPONSES),
        (Kind.PUSH, PUSHES),
    ):
        for type_, message in messages.items():
            name = f"{kind.name}-{type_.name}".lower().replace("_", "-")
            request_id = 0 if kind is Kind.PUSH else 7
            cases[name] = message, encode_frame(kind, type_, request_id, encode(message))
    for name, (type_, message) in OTHER_REQUESTS.items():
        cases[f"request-{name}"] = message, encode_frame(Kind.REQUEST, type_, 7, encode(message))
    others = {**access_messages.OTHER_RESPONSES, **applied_messages.OTHER_RESPONSES}
    for name, (type_, message) in others.items():
        cases[f"response-{name}"] = message, encode_frame(Kind.RESPONSE, type_, 7, encode(message))
    cases["error-register"] = (
        ERROR,
        encode_frame(Kind.ERROR, MessageType.REGISTER, 7, encode(ERROR)),
    )
    for name, record in RECORDS.items():
        cases[f"record-{name.replace('_', '-')}"] = record, encode(record)
    goodbye = ended("s")
    goodbye.session_ended.reason = log_pb2.SESSION_END_GOODBYE
    cases["record-session-said-goodbye"] = goodbye, encode(goodbye)
    cases["snapshot-chunk"] = CHUNK, encode(CHUNK)
    cases["metadata-entry"] = cluster_messages.ENTRY, encode(cluster_messages.ENTRY)
    for name, part in access_messages.METADATA.items():
        cases[name] = part, encode(part)
    for name, part in observing_messages.PARTS.items():
        cases[name] = part, encode(part)
    batch = cluster_messages.OF_A_COPY
    cases["replication-of-a-copy"] = batch, encode(batch)
    snapshot = cluster_messages.METADATA_SNAPSHOT
    cases["metadata-snapshot"] = snapshot, encode(snapshot)
    return cases


CASES = _cases()


def wrapped(data: bytes) -> str:
    text = data.hex()
    return "".join(text[start : start + 80] + "\n" for start in range(0, len(text), 80))


@pytest.mark.parametrize("name", CASES)
def test_bytes_are_what_they_were(name: str, pytestconfig: pytest.Config) -> None:
    """A message is encoded to the very bytes that were checked in."""
    _, data = CASES[name]
    path = GOLDEN / f"{name}.hex"
    if pytestconfig.getoption("--rewrite-golden"):
        path.write_text(wrapped(data), encoding="ascii")
    assert path.exists(), f"{path.name} is missing: --rewrite-golden writes it"
    assert wrapped(data) == path.read_text(encoding="ascii")


@pytest.mark.parametrize("name", CASES)
def test_old_bytes_are_understood(name: str) -> None:
    """The bytes that were checked in decode to the message they were made from."""
    message, _ = CASES[name]
    data = bytes.fromhex((GOLDEN / f"{name}.hex").read_text(encoding="ascii"))
    if not name.startswith(("record-", "snapshot-", "metadata-", "replication-")):
        reader = FrameReader()
        reader.receive_data(data)
        frame = reader.next_frame()
        assert frame is not None
        assert reader.buffered_bytes == 0
        data = frame[4]
    assert type(message).FromString(data) == message


def test_no_file_is_left_over() -> None:
    """Each golden file belongs to a message."""
    assert sorted(path.stem for path in GOLDEN.glob("*.hex")) == sorted(CASES)


def test_every_message_type_has_its_bytes() -> None:
    """A new message type needs a golden file for each of its directions."""
    assert {*REQUESTS, *PUSHES} == set(MessageType)
    assert set(RESPONSES) == set(REQUESTS)


def test_every_kind_of_record_has_its_bytes() -> None:
    """A new kind of log entry needs a golden file."""
    kinds = log_pb2.Record.DESCRIPTOR.oneofs_by_name["change"].fields
    assert {field.name for field in kinds} == set(RECORDS)


def _reached(message: Message, found: dict[str, set[str]]) -> None:
    """Note, per message, the fields that are set somewhere in `message`."""
    fields = found.setdefault(message.DESCRIPTOR.full_name, set())
    for field, value in message.ListFields():
        fields.add(field.name)
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for item in value if field.is_repeated else [value]:
            _reached(item, found)


def _defined() -> dict[str, Descriptor]:
    found: dict[str, Descriptor] = {}
    for file in (access_pb2, applied_pb2, model_pb2, native_pb2, log_pb2, metadata_pb2, peer_pb2):
        descriptors: dict[str, Descriptor] = file.DESCRIPTOR.message_types_by_name
        found |= {descriptor.full_name: descriptor for descriptor in descriptors.values()}
    return found


def test_every_field_of_every_message_is_in_some_file() -> None:
    """Nothing of the protocol, the log or the snapshots is without checked-in bytes."""
    found: dict[str, set[str]] = {}
    for message, _ in CASES.values():
        _reached(message, found)
    missing = [
        f"{name}.{field.name}"
        for name, descriptor in _defined().items()
        for field in descriptor.fields
        if field.name not in found.get(name, ())
    ]
    assert missing == []
    assert set(found) >= set(_defined())
