"""One message of each kind about what subscribers have applied, for the golden bytes."""

from __future__ import annotations

from cluster_messages import ID, KEY
from google.protobuf.message import Message

from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import applied_pb2, native_pb2

SUBSCRIBER = applied_pb2.ServiceSubscriber(
    session_id=ID,
    client_name="sdk/1.0",
    address="10.0.0.1:50000",
    says=True,
    epoch=9,
    revision=300,
    behind_ms=301,
    disconnected=True,
)

REQUESTS: dict[MessageType, Message] = {
    MessageType.SUBSCRIBERS: applied_pb2.SubscribersRequest(service=KEY, page_size=10, after=ID),
    MessageType.AWAIT_APPLIED: applied_pb2.AwaitAppliedRequest(
        service=KEY, epoch=9, revision=300, timeout_ms=5_000
    ),
}
RESPONSES: dict[MessageType, Message] = {
    MessageType.SUBSCRIBERS: applied_pb2.SubscribersResponse(
        epoch=9, revision=300, subscribers=[SUBSCRIBER], next_after=ID
    ),
    MessageType.AWAIT_APPLIED: applied_pb2.AwaitAppliedResponse(
        applied=True,
        lacking=[SUBSCRIBER],
        lacking_total=300,
        silent=[SUBSCRIBER],
        silent_total=301,
        subscribers_total=601,
        node_lacks=True,
    ),
}
PUSHES: dict[MessageType, Message] = {
    MessageType.APPLIED: applied_pb2.Applied(
        services=[applied_pb2.AppliedService(service=KEY, epoch=9, revision=300, age_ms=301)]
    ),
}
OTHER_RESPONSES: dict[str, tuple[MessageType, Message]] = {
    "hello-wants-applied": (MessageType.HELLO, native_pb2.HelloResponse(wants_applied=True)),
}
