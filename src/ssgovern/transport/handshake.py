"""Who a node is to another, and how both prove that they belong together.

Pure: messages go in, messages or refusals come out; nonces are handed in. Knows no socket and
keeps no state. The dialler says who it is and challenges; who answers proves that it knows the
secret and challenges in return; the dialler proves the same. Each proof covers both nonces,
both ids and the role of who gives it, so that none can be used again, turned around, or passed
on in another's name.

The secret leaves this module as a proof only: never in a message, a log line or a `repr`.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ssgovern import limits
from ssgovern.errors import (
    InvalidArgumentError,
    PeerRefusedError,
    RemoteProtocolError,
    UnsupportedVersionError,
)
from ssgovern.model import NodeId
from ssgovern.wire.frames import PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN
from ssgovern.wire.pb import peer_pb2

NONCE_BYTES = 32
DEFAULT_PORT = 7420
_DIALLER = b"ss-govern peer dialler"
_ACCEPTOR = b"ss-govern peer acceptor"

Candidates = tuple[tuple[NodeId, str], ...]
"""Id and address of each candidate, as configured, in the order of their ids."""


@dataclass(slots=True)
class PeerIdentity:
    """What this node says of itself. One object per node, shared by all its links."""

    node_id: NodeId
    name: str
    address: str
    """Where other nodes can dial this one."""
    directory_id: bytes
    boot_id: bytes
    candidates: Candidates
    """Empty: this node is told by its seeds."""
    secret: bytes = field(repr=False)
    """Empty: no proof is asked for or given. The configuration allows that on loopback only."""
    cluster_id: bytes = b""
    """Empty until the node belongs to a cluster; set then, once."""
    single_node_cluster_id: bytes = b""


class PeerSaid(NamedTuple):
    """What the far end said in its hello. Its cluster may have been founded since."""

    node_id: NodeId
    name: str
    boot_id: bytes
    cluster_id: bytes
    candidates: Candidates
    single_node_cluster_id: bytes
    directory_id: bytes


# --- the dialler ---------------------------------------------------------------------------


def hello_request(me: PeerIdentity, target: int, nonce: bytes) -> peer_pb2.PeerHelloRequest:
    """Say who dials. `target` is the node that is meant, 0 whoever listens there."""
    return peer_pb2.PeerHelloRequest(
        version_min=PROTOCOL_VERSION_MIN,
        version_max=PROTOCOL_VERSION_MAX,
        node_id=me.node_id,
        node_name=me.name,
        target_id=target,
        cluster_id=me.cluster_id,
        directory_id=me.directory_id,
        boot_id=me.boot_id,
        candidates=_candidates_to_wire(me.candidates),
        single_node_cluster_id=me.single_node_cluster_id,
        nonce=nonce,
        address=me.address,
    )


def check_response(
    me: PeerIdentity,
    request: peer_pb2.PeerHelloRequest,
    response: peer_pb2.PeerHelloResponse,
) -> PeerSaid:
    """Return what the answering node said of itself.

    Raises PeerRefusedError if it is not one to talk to, RemoteProtocolError if it makes no sense.
    """
    if len(response.nonce) != NONCE_BYTES:
        raise RemoteProtocolError(f"a challenge of {len(response.nonce)} bytes")
    said = PeerSaid(
        NodeId(response.node_id),
        response.node_name,
        response.boot_id,
        response.cluster_id,
        _candidates_from_wire(response.candidates),
        response.single_node_cluster_id,
        response.directory_id,
    )
    _check_shape(said)
    if not PROTOCOL_VERSION_MIN <= response.version <= PROTOCOL_VERSION_MAX:
        raise RemoteProtocolError(f"the answer chose protocol version {response.version}")
    expected = _proof(_ACCEPTOR, me.secret, request, response)
    _check_proof(expected, response.proof, f"node {said.node_id}")
    _check_not_me(me, said)
    _check_meant(request.target_id, said.node_id)
    _check_belongs(me, said)
    return said


def dialler_proof(
    me: PeerIdentity,
    request: peer_pb2.PeerHelloRequest,
    response: peer_pb2.PeerHelloResponse,
) -> peer_pb2.PeerProofRequest:
    """Prove to who answered that the dialler knows the secret."""
    return peer_pb2.PeerProofRequest(proof=_proof(_DIALLER, me.secret, request, response))


# --- who answers ---------------------------------------------------------------------------


def answer_hello(
    me: PeerIdentity, request: peer_pb2.PeerHelloRequest, nonce: bytes
) -> tuple[PeerSaid, peer_pb2.PeerHelloResponse]:
    """Return what the dialler says of itself, still unproven, and the answer to it.

    Raises PeerRefusedError or UnsupportedVersionError if it is not one to talk to, and
    RemoteProtocolError if it makes no sense.
    """
    if len(request.nonce) != NONCE_BYTES:
        raise RemoteProtocolError(f"a challenge of {len(request.nonce)} bytes")
    if len(request.address) > limits.PEER_TEXT_BYTES_MAX:
        raise RemoteProtocolError("a hello with an address that is none")
    version = min(request.version_max, PROTOCOL_VERSION_MAX)
    if version < max(request.version_min, PROTOCOL_VERSION_MIN):
        raise UnsupportedVersionError(
            f"node {request.node_id} speaks protocol versions {request.version_min} to "
            f"{request.version_max}, node {me.node_id} speaks {PROTOCOL_VERSION_MIN} to "
            f"{PROTOCOL_VERSION_MAX}: upgrade the older of them",
            version_min=PROTOCOL_VERSION_MIN,
            version_max=PROTOCOL_VERSION_MAX,
        )
    said = PeerSaid(
        NodeId(request.node_id),
        request.node_name,
        request.boot_id,
        request.cluster_id,
        _candidates_from_wire(request.candidates),
        request.single_node_cluster_id,
        request.directory_id,
    )
    _check_shape(said)
    _check_not_me(me, said)
    _check_meant(request.target_id, me.node_id)
    _check_belongs(me, said)
    response = peer_pb2.PeerHelloResponse(
        version=version,
        node_id=me.node_id,
        node_name=me.name,
        cluster_id=me.cluster_id,
        boot_id=me.boot_id,
        candidates=_candidates_to_wire(me.candidates),
        single_node_cluster_id=me.single_node_cluster_id,
        nonce=nonce,
        directory_id=me.directory_id,
    )
    response.proof = _proof(_ACCEPTOR, me.secret, request, response)
    return said, response


def expected_proof(
    me: PeerIdentity,
    request: peer_pb2.PeerHelloRequest,
    response: peer_pb2.PeerHelloResponse,
) -> bytes:
    """Return what the dialler has to prove."""
    return _proof(_DIALLER, me.secret, request, response)


def check_dialler_proof(expected: bytes, proof: bytes, node_id: NodeId) -> None:
    """Raise PeerRefusedError unless a dialler's proof is the one expected."""
    _check_proof(expected, proof, f"node {node_id}")


# --- rules ---------------------------------------------------------------------------------


def _proof(
    role: bytes,
    secret: bytes,
    request: peer_pb2.PeerHelloRequest,
    response: peer_pb2.PeerHelloResponse,
) -> bytes:
    if not secret:
        return b""
    # All parts but the last have a fixed length: no two sets of them read alike.
    parts = (
        request.nonce,
        response.nonce,
        request.node_id.to_bytes(8, "big"),
        response.node_id.to_bytes(8, "big"),
        role,
    )
    return hmac.digest(secret, b"".join(parts), "sha256")


def _check_proof(expected: bytes, proof: bytes, who: str) -> None:
    if hmac.compare_digest(expected, proof):
        return
    if not proof:
        reason = f"{who} has no cluster secret and this node has one"
    elif not expected:
        reason = f"{who} has a cluster secret and this node has none"
    else:
        reason = f"{who} has another cluster secret than this node"
    raise PeerRefusedError(f"{reason}: set the same cluster.secret on every node")


def _check_belongs(me: PeerIdentity, said: PeerSaid) -> None:
    """Raise PeerRefusedError if two nodes cannot be of one cluster.

    Both sides check, and say the same whoever of them dialled.
    """
    if me.cluster_id and said.cluster_id and me.cluster_id != said.cluster_id:
        raise PeerRefusedError(
            f"node {said.node_id} belongs to cluster {said.cluster_id.hex()} and node "
            f"{me.node_id} to cluster {me.cluster_id.hex()}: correct the addresses, or give the "
            "node that is to join an empty data directory"
        )
    if me.cluster_id and said.cluster_id:
        # The cluster knows its candidates; configurations may be older than what it decided.
        return
    mine = tuple(sorted(me.candidates))
    if mine and said.candidates and mine != said.candidates:
        raise PeerRefusedError(
            f"node {said.node_id} is configured with candidates {show_candidates(said.candidates)}"
            f" and node {me.node_id} with {show_candidates(mine)}: write the same "
            "cluster.candidates on every candidate, in the same words"
        )


def _check_meant(target: int, answered: int) -> None:
    if target not in (0, answered):
        raise PeerRefusedError(
            f"node {target} was dialled and node {answered} answered: "
            f"correct the address of node {target}"
        )


def _check_not_me(me: PeerIdentity, said: PeerSaid) -> None:
    if said.node_id != me.node_id:
        return
    if said.directory_id != me.directory_id:
        reason = (
            f"two nodes have the id {me.node_id} ({me.name or 'no name'} and "
            f"{said.name or 'no name'}): give one of them another node.id"
        )
    elif said.boot_id != me.boot_id:
        reason = (
            f"two nodes run as node {me.node_id} on copies of one data directory: stop one of "
            "them, and start it again with another node.id and an empty data directory"
        )
    else:
        reason = f"node {me.node_id} was given its own address as that of another node"
    raise PeerRefusedError(reason)


def _check_shape(said: PeerSaid) -> None:
    if said.node_id < 1:
        raise RemoteProtocolError("a hello of a node without an id")
    texts = [said.name, *(address for _, address in said.candidates)]
    ids = (said.boot_id, said.cluster_id, said.single_node_cluster_id, said.directory_id)
    if (
        len(said.candidates) > limits.PEER_CANDIDATES_MAX
        or any(len(text) > limits.PEER_TEXT_BYTES_MAX for text in texts)
        or any(len(id_) > NONCE_BYTES for id_ in ids)
    ):
        raise RemoteProtocolError("a hello with longer names, ids or lists than there are")


def show_candidates(candidates: Candidates) -> str:
    """Return candidates as a configuration writes them."""
    return ",".join(f"{node_id}@{address}" for node_id, address in candidates) or "none"


def _candidates_to_wire(candidates: Candidates) -> list[peer_pb2.Candidate]:
    return [
        peer_pb2.Candidate(node_id=node_id, address=address)
        for node_id, address in sorted(candidates)
    ]


def _candidates_from_wire(candidates: Sequence[peer_pb2.Candidate]) -> Candidates:
    return tuple(sorted((NodeId(item.node_id), item.address) for item in candidates))


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of `host`, `host:port` or `[IPv6]:port`.

    Raises InvalidArgumentError.
    """
    host, colon, port = address.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = address, str(DEFAULT_PORT)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    number = int(port) if len(port) <= 5 and port.isascii() and port.isdigit() else 0
    if not host or not 0 < number < 65536:
        raise InvalidArgumentError(
            f"address {address!r}: expected host:port or [IPv6]:port", field="address"
        )
    return host, number
