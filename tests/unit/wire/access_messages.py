"""One message of each kind that is about who may do what, for the golden bytes."""

from __future__ import annotations

from google.protobuf.message import Message

from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import access_pb2, metadata_pb2, native_pb2, peer_pb2

HASH = bytes(range(32))
TOKEN = access_pb2.AccessToken(
    id="t300",
    hash=HASH,
    owner="ann",
    roles=["reader"],
    note="构建",
    created_at_ms=1_700_000_000_000,
    expires_at_ms=1_700_000_000_001,
    revoked=True,
)
ROLE = access_pb2.AccessRole(
    name="shop",
    grants=[
        access_pb2.AccessGrant(namespace="prod", service="default/shop-*", actions=["read"]),
        access_pb2.AccessGrant(namespace="*", service="*", actions=["read", "write"]),
    ],
)
STATE = access_pb2.AccessChanged(
    users=[
        access_pb2.AccessUser(
            name="ann", password_hash="$argon2id$", roles=["admin", "shop"], disabled=True
        )
    ],
    tokens=[TOKEN],
    roles=[ROLE],
    removed_users=["bob"],
    removed_tokens=["t1"],
    removed_roles=["old"],
)
USER_CHANGE = native_pb2.AccessUserChange(
    name="ann",
    create=True,
    password="opensesame",
    password_hash="$argon2id$",
    set_roles=True,
    roles=["reader"],
    disabled=False,
)

REQUESTS: dict[MessageType, Message] = {
    MessageType.ACCESS: native_pb2.AccessRequest(user=USER_CHANGE, time_ms=300),
    MessageType.AUDIT: native_pb2.AuditRequest(limit=300, before=301, who="ann"),
}
RESPONSES: dict[MessageType, Message] = {
    MessageType.ACCESS: native_pb2.AccessResponse(
        sentence="Made token t300.", token="ssg_t300_x", state=STATE, principal="ann", enforced=True
    ),
    MessageType.AUDIT: native_pb2.AuditResponse(
        node_id=300,
        entries=[
            native_pb2.AuditEntry(
                number=301,
                time_ms=1_700_000_000_000,
                who="ann",
                origin="10.0.0.1",
                way="http",
                action="update",
                target="prod/default/订单/a",
                outcome="ok",
                detail="said",
                changes=[native_pb2.AuditField(name="weight", before="1", after="0")],
                node_id=300,
            )
        ],
    ),
}
_COMMANDS: dict[str, native_pb2.AccessRequest] = {
    "question": native_pb2.AccessRequest(question=native_pb2.AccessQuestion()),
    "remove-user": native_pb2.AccessRequest(remove_user="ann"),
    "token": native_pb2.AccessRequest(token=TOKEN),
    "revoke-token": native_pb2.AccessRequest(revoke_token="t300"),
    "role": native_pb2.AccessRequest(role=ROLE),
    "remove-role": native_pb2.AccessRequest(remove_role="shop"),
}
OTHERS: dict[str, tuple[MessageType, Message]] = {
    **{f"access-{name}": (MessageType.ACCESS, message) for name, message in _COMMANDS.items()},
    "hello-token": (MessageType.HELLO, native_pb2.HelloRequest(token="ssg_t300_x")),
    "forwarded-access": (
        MessageType.FORWARDED_COMMAND,
        peer_pb2.ForwardedCommandRequest(access=_COMMANDS["remove-user"]),
    ),
}
OTHER_RESPONSES: dict[str, tuple[MessageType, Message]] = {
    "hello-principal": (MessageType.HELLO, native_pb2.HelloResponse(principal="ann")),
}

METADATA: dict[str, Message] = {
    "metadata-record-access": metadata_pb2.MetadataRecord(
        reason="said by an operator", access_changed=STATE
    ),
    "metadata-snapshot-access": metadata_pb2.MetadataSnapshot(index=300, access=STATE),
}
