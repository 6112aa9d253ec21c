"""One message of each kind for people who look on, for the golden bytes."""

from __future__ import annotations

from google.protobuf.message import Message

from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import metadata_pb2, model_pb2, native_pb2, peer_pb2

KEY = model_pb2.ServiceKey(namespace="prod", group="default", service="订单")
ID = bytes(range(16))
SESSION = native_pb2.SessionSummary(
    session_id=ID,
    client_name="sdk/1.0",
    address="10.0.0.9:40000",
    connected=True,
    connected_ms=300,
    heard_ms=301,
    closed_ms=302,
    shards=3,
    instances=300,
    subscriptions=4,
    is_protected=True,
    lease=True,
    ttl_ms=15_000,
)
EVENT = native_pb2.Event(
    kind=native_pb2.EVENT_UPDATED,
    time_ms=1_700_000_000_000,
    service=KEY,
    instance_id="10.0.0.1:8080",
    address="10.0.0.1:8080",
    shard=255,
    epoch=9,
    revision=300,
    session_id=ID,
    changes=[native_pb2.EventField(name="weight", before="100", after="2.5")],
)
CLUSTER_EVENT = native_pb2.Event(
    kind=native_pb2.EVENT_CLUSTER,
    time_ms=1_700_000_000_000,
    revision=301,
    reason="node 3 is fenced",
)

REQUESTS: dict[MessageType, Message] = {
    MessageType.SESSIONS: native_pb2.SessionsRequest(
        id_prefix=ID[:2], client_name="sdk", page_size=10, after=ID
    ),
    MessageType.EVENTS: native_pb2.EventsRequest(
        life=ID,
        after=300,
        after_index=301,
        namespace="prod",
        group="g",
        service="o",
        cluster=True,
        limit=10,
        wait_ms=5_000,
        newest=True,
    ),
}

RESPONSES: dict[MessageType, Message] = {
    MessageType.SESSIONS: native_pb2.SessionsResponse(
        node_id=300, sessions=[SESSION], next_after=ID, total=301
    ),
    MessageType.EVENTS: native_pb2.EventsResponse(
        node_id=300,
        life=ID,
        events=[EVENT, CLUSTER_EVENT],
        last=300,
        last_index=301,
        lost=True,
    ),
}

PARTS: dict[str, Message] = {
    "metadata-entry-time": peer_pb2.MetadataEntry(
        records=[
            metadata_pb2.MetadataRecord(
                reason="said by an operator", node_removed=metadata_pb2.NodeRemoved(node_id=3)
            )
        ],
        time_ms=1_700_000_000_000,
    ),
}
