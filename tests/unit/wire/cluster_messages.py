"""One message of each kind that clusters need, for the golden bytes."""

from __future__ import annotations

from google.protobuf.message import Message

from ssgovern.wire.codec import encode
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import log_pb2, metadata_pb2, model_pb2, native_pb2, peer_pb2

KEY = model_pb2.ServiceKey(namespace="prod", group="default", service="订单")
ID = bytes(range(16))
NONCE = bytes(range(32))
PROOF = NONCE[::-1]
CANDIDATES = [
    peer_pb2.Candidate(node_id=1, address="10.0.0.1:7420"),
    peer_pb2.Candidate(node_id=300, address="[::1]:7420"),
]
NODE = metadata_pb2.ClusterNode(
    node_id=300,
    name="n300",
    address="[::1]:7420",
    zone="一区",
    directory_id=ID,
    boot_id=ID[::-1],
    session=7,
    live=True,
    leaving=True,
    lost=True,
    candidate=True,
)
ROW = metadata_pb2.ShardRow(
    shard=255,
    epoch=9,
    version=300,
    primary=1,
    holders=[1, 2, 3, 300],
    in_sync=[1, 2],
    eligible=[3],
    incoming=300,
    outgoing=3,
    successor=2,
)
SETTINGS = metadata_pb2.ClusterSettings(
    format_version=1,
    copies=5,
    min_in_sync=2,
    moves_max=9,
    nodes_initial=3,
    fence_after_ms=6_000,
    lost_after_ms=70_000,
    handover_timeout_ms=8_000,
)
REASON = "said by an operator"
RECORDS = [
    metadata_pb2.MetadataRecord(
        reason=REASON, founded=metadata_pb2.ClusterFounded(cluster_id=ID, settings=SETTINGS)
    ),
    metadata_pb2.MetadataRecord(
        reason=REASON, settings_changed=metadata_pb2.SettingsChanged(settings=SETTINGS)
    ),
    metadata_pb2.MetadataRecord(
        reason=REASON, node_registered=metadata_pb2.NodeRegistered(node=NODE)
    ),
    metadata_pb2.MetadataRecord(
        reason=REASON, nodes_fenced=metadata_pb2.NodesFenced(node_ids=[1, 300])
    ),
    metadata_pb2.MetadataRecord(
        reason=REASON, node_marked=metadata_pb2.NodeMarked(node_id=300, leaving=True, lost=True)
    ),
    metadata_pb2.MetadataRecord(reason=REASON, node_removed=metadata_pb2.NodeRemoved(node_id=300)),
    metadata_pb2.MetadataRecord(
        reason=REASON, rows_changed=metadata_pb2.RowsChanged(), rows=[ROW, ROW]
    ),
]
ENTRY = peer_pb2.MetadataEntry(records=RECORDS)
OF_A_COPY = peer_pb2.ReplicationBatch(
    node_epoch=7,
    appended=[peer_pb2.Appended(shard=255, epoch=9, held=303, version=12)],
    mismatches=[peer_pb2.Mismatch(shard=2, epoch=9, version=300)],
)

METADATA_SNAPSHOT = metadata_pb2.MetadataSnapshot(
    index=300,
    cluster_id=ID,
    settings=SETTINGS,
    map_version=9,
    nodes=[NODE],
    rows=[ROW],
    retired_node_ids=[4, 301],
)
MAP_UPDATE = native_pb2.ShardMapUpdate(
    cluster_id=ID,
    since=8,
    version=9,
    nodes=[
        native_pb2.MapNode(node_id=300, name="n300", address="[::1]:7420", zone="一区", live=True)
    ],
    rows=[native_pb2.MapRow(shard=255, epoch=9, primary=1, holders=[1, 2, 300], in_sync=[1, 300])],
)
MAP_BITS = bytes([0b101] + [0] * 31)
CLAIMED = native_pb2.Claimed(service=KEY, instance_ids=["a", "b"])
RAFT_CONFIG = peer_pb2.RaftConfig(voters=[1, 2, 3], outgoing=[1, 300], learners=[4])
RAFT_MESSAGE = peer_pb2.RaftMessage(
    kind=peer_pb2.RaftMessage.KIND_APPEND,
    cluster=ID,
    source=1,
    target=300,
    term=7,
    index=5,
    index_term=6,
    granted=True,
    transfer=True,
    entries=[
        peer_pb2.RaftEntry(index=6, term=7),
        peer_pb2.RaftEntry(index=7, term=7, command=encode(ENTRY)),
        peer_pb2.RaftEntry(index=8, term=7, config=RAFT_CONFIG),
    ],
    commit=4,
    hint_index=3,
    hint_term=2,
    round=11,
    tick=12,
    config=RAFT_CONFIG,
    offset=1 << 20,
    chunk=b"chunk",
    done=True,
)


def position(epoch: int, revision: int) -> peer_pb2.Position:
    return peer_pb2.Position(epoch=epoch, revision=revision)


def filled(message: Message, **given: object) -> Message:
    """Set every number and text of a flat message to something told by its own number."""
    for field in message.DESCRIPTOR.fields:
        if field.name in given or field.message_type is not None:
            continue
        value: object = field.number
        if field.type == field.TYPE_STRING:
            value = field.name
        elif field.type == field.TYPE_BYTES:
            value = ID
        elif field.type == field.TYPE_BOOL:
            value = True
        if field.is_repeated:
            getattr(message, field.name).extend([value, 300])
        else:
            setattr(message, field.name, value)
    return message


def command(**kind: object) -> native_pb2.ClusterCommandRequest:
    return native_pb2.ClusterCommandRequest(**kind)  # type: ignore[arg-type]


COMMANDS = {
    "stay": command(stay=300),
    "transfer": command(transfer=native_pb2.TransferShard(shard=255, to=300)),
    "settings": command(
        settings=native_pb2.ChangeSettings(
            copies=5, min_in_sync=2, moves_max=0, fence_after_ms=6_000, lost_after_ms=70_000
        )
    ),
    "transfer-controller": command(transfer_controller=300),
    "candidates": command(candidates=native_pb2.CandidateChange(add=300, remove=3)),
    "unclean": command(unclean=native_pb2.UncleanElection(shard=255, node_id=300)),
}
"""All but the first, which is in the golden bytes of every request."""

REQUESTS: dict[MessageType, Message] = {
    MessageType.SHARD_MAP: native_pb2.ShardMapRequest(known_version=8, follow=True),
    MessageType.CLAIM: native_pb2.ClaimRequest(claimed=[CLAIMED, CLAIMED]),
    MessageType.CLUSTER_STATUS: native_pb2.ClusterStatusRequest(shards=True),
    MessageType.CLUSTER_COMMAND: command(leave=300),
    MessageType.PEER_HELLO: peer_pb2.PeerHelloRequest(
        version_min=1,
        version_max=3,
        node_id=300,
        node_name="n300",
        target_id=1,
        cluster_id=ID,
        directory_id=ID,
        boot_id=ID[::-1],
        candidates=CANDIDATES,
        single_node_cluster_id=ID[::-1],
        nonce=NONCE,
        address="[::1]:7420",
    ),
    MessageType.PEER_PROOF: peer_pb2.PeerProofRequest(proof=PROOF),
    MessageType.PEER_PING: peer_pb2.PeerPingRequest(),
    MessageType.NODE_REGISTER: peer_pb2.NodeRegisterRequest(
        node=NODE, directory_cluster_id=ID, format_min=1, format_max=2, damaged=[0, 255]
    ),
    MessageType.NODE_HEARTBEAT: peer_pb2.NodeHeartbeatRequest(
        node_id=300,
        session=7,
        positions=[peer_pb2.ShardPosition(shard=255, epoch=9, revision=300)] * 2,
        index=301,
    ),
    MessageType.IN_SYNC_CHANGE: peer_pb2.InSyncChangeRequest(
        shard=255,
        node_id=300,
        session=7,
        epoch=9,
        version=301,
        members=[
            peer_pb2.InSyncMember(node_id=1, session=2),
            peer_pb2.InSyncMember(node_id=300, session=7),
        ],
    ),
    MessageType.NODE_STOPPING: peer_pb2.NodeStoppingRequest(node_id=300, session=7),
    MessageType.SHARD_RESIGNED: peer_pb2.ShardResignedRequest(
        shard=255, node_id=300, session=7, epoch=9, version=301
    ),
    MessageType.METADATA_FETCH: peer_pb2.MetadataFetchRequest(after=300),
    MessageType.FORWARDED_COMMAND: peer_pb2.ForwardedCommandRequest(command=command(leave=300)),
}

CONTROLLER_RESPONSE = peer_pb2.ControllerResponse(sentence="Node 3 fell behind.", index=301)
METADATA = peer_pb2.Metadata(
    controller_id=300,
    term=7,
    after=300,
    snapshot=encode(METADATA_SNAPSHOT),
    entries=[
        peer_pb2.MetadataItem(index=301, body=encode(ENTRY)),
        peer_pb2.MetadataItem(index=302),
    ],
)

RESPONSES: dict[MessageType, Message] = {
    MessageType.SHARD_MAP: MAP_UPDATE,
    MessageType.CLAIM: native_pb2.ClaimResponse(missing=[CLAIMED]),
    MessageType.CLUSTER_STATUS: filled(
        native_pb2.ClusterStatusResponse(
            nodes=[filled(native_pb2.ClusterNodeStatus())],  # type: ignore[list-item]
            shards=[filled(native_pb2.ShardStatus())],  # type: ignore[list-item]
        )
    ),
    MessageType.CLUSTER_COMMAND: native_pb2.ClusterCommandResponse(sentence="Node 300 leaves."),
    MessageType.PEER_HELLO: peer_pb2.PeerHelloResponse(
        version=1,
        node_id=1,
        node_name="n1",
        cluster_id=ID,
        boot_id=ID,
        candidates=CANDIDATES,
        single_node_cluster_id=ID[::-1],
        nonce=NONCE,
        proof=PROOF,
        directory_id=ID,
    ),
    MessageType.PEER_PROOF: peer_pb2.PeerProofResponse(),
    MessageType.PEER_PING: peer_pb2.PeerPingResponse(),
    MessageType.NODE_REGISTER: peer_pb2.NodeRegisterResponse(session=7, cluster_id=ID, index=301),
    MessageType.NODE_HEARTBEAT: peer_pb2.NodeHeartbeatResponse(lease_ms=3_000, index=301),
    MessageType.IN_SYNC_CHANGE: CONTROLLER_RESPONSE,
    MessageType.SHARD_RESIGNED: CONTROLLER_RESPONSE,
    MessageType.NODE_STOPPING: CONTROLLER_RESPONSE,
    MessageType.METADATA_FETCH: METADATA,
    MessageType.FORWARDED_COMMAND: native_pb2.ClusterCommandResponse(sentence="Node 300 leaves."),
}

PUSHES: dict[MessageType, Message] = {
    MessageType.SHARD_MAP: MAP_UPDATE,
    MessageType.RAFT: peer_pb2.RaftBatch(messages=[RAFT_MESSAGE] * 2),
    MessageType.REPLICATION: peer_pb2.ReplicationBatch(
        node_epoch=7,
        appends=[
            peer_pb2.AppendEntries(
                shard=255,
                epoch=9,
                prev_epoch=8,
                prev_revision=300,
                committed=299,
                bodies=[b"old", b"", b"new"],
                epochs=[8, 8, 9],
            ),
            peer_pb2.AppendEntries(shard=1, epoch=9, bodies=[b"body"]),
        ],
        appended=[peer_pb2.Appended(shard=255, epoch=9, held=303)],
        mismatches=[
            peer_pb2.Mismatch(
                shard=2,
                epoch=9,
                prev=position(8, 300),
                hint=position(7, 200),
                floor=position(6, 100),
            )
        ],
        fenced=[peer_pb2.Fenced(shard=3, epoch=10)],
    ),
    MessageType.SHARD_SNAPSHOT: peer_pb2.ShardSnapshot(
        shard=255,
        epoch=9,
        position=position(8, 300),
        replaces=position(7, 301),
        transfer=5,
        number=2,
        chunk=encode(log_pb2.SnapshotChunk(epoch_starts=[log_pb2.EpochStart(epoch=1, revision=1)])),
        done=True,
    ),
    MessageType.METADATA: METADATA,
}

OTHERS: dict[str, tuple[MessageType, Message]] = {
    f"command-{name}": (MessageType.CLUSTER_COMMAND, message) for name, message in COMMANDS.items()
}
"""Requests of a type that is above already, which show what else it can hold."""
