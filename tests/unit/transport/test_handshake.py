"""The handshake between nodes: who is let in, who is not, and what each is told."""

from __future__ import annotations

from dataclasses import replace

import pytest
from peers import SECRET, identity_of

from ssgovern.errors import (
    InvalidArgumentError,
    PeerRefusedError,
    RemoteProtocolError,
    UnsupportedVersionError,
)
from ssgovern.model import NodeId
from ssgovern.transport import handshake
from ssgovern.transport.handshake import PeerIdentity, PeerSaid
from ssgovern.wire.pb import peer_pb2

NONCE_1, NONCE_2 = b"1" * 32, b"2" * 32
A, B = b"A" * 16, b"B" * 16
THREE = ((NodeId(1), "n1:7420"), (NodeId(2), "n2:7420"), (NodeId(3), "n3:7420"))
MOVED = ((NodeId(1), "n1:7420"), (NodeId(2), "n2:7430"), (NodeId(3), "n3:7420"))


def shake(
    dialler: PeerIdentity, acceptor: PeerIdentity, target: int | None = None
) -> tuple[PeerSaid, PeerSaid]:
    """Shake hands; return what each heard of the other."""
    target = acceptor.node_id if target is None else target
    request = handshake.hello_request(dialler, target, NONCE_1)
    heard, response = handshake.answer_hello(acceptor, request, NONCE_2)
    said = handshake.check_response(dialler, request, response)
    proof = handshake.dialler_proof(dialler, request, response).proof
    expected = handshake.expected_proof(acceptor, request, response)
    handshake.check_dialler_proof(expected, proof, heard.node_id)
    return said, heard


def test_both_hear_what_the_other_said() -> None:
    """Whatever a node says of itself arrives, in both directions."""
    one = identity_of(1, cluster_id=A, candidates=THREE)
    two = replace(identity_of(2, candidates=THREE, boot_id=b"again"), single_node_cluster_id=B)
    said, heard = shake(one, two)
    assert said == PeerSaid(NodeId(2), "node-2", b"again", b"", THREE, B, b"directory-2")
    assert heard == PeerSaid(NodeId(1), "node-1", b"boot", A, THREE, b"", b"directory-1")


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (identity_of(1), identity_of(2)),
        (identity_of(1, secret=b""), identity_of(2, secret=b"")),
        (identity_of(1, cluster_id=A), identity_of(2, cluster_id=A)),
        (identity_of(1, cluster_id=A), identity_of(2)),
        (identity_of(1, cluster_id=A, candidates=THREE), identity_of(4)),
        (identity_of(1, candidates=THREE), identity_of(2, candidates=THREE[::-1])),
        # What the cluster decided since counts for more than what was configured once.
        (
            identity_of(1, cluster_id=A, candidates=THREE),
            identity_of(2, cluster_id=A, candidates=MOVED),
        ),
    ],
)
def test_nodes_of_one_cluster_are_let_in(one: PeerIdentity, two: PeerIdentity) -> None:
    """Each may dial the other, by its id or not."""
    for dialler, acceptor in ((one, two), (two, one)):
        for target in (acceptor.node_id, 0):
            said, heard = shake(dialler, acceptor, target)
            assert (said.node_id, heard.node_id) == (acceptor.node_id, dialler.node_id)


REFUSED = {
    "another secret": (
        identity_of(1),
        identity_of(2, secret=b"x"),
        r"^node 2 has another cluster secret than this node: set the same cluster.secret",
    ),
    "no secret here": (
        identity_of(1, secret=b""),
        identity_of(2),
        r"^node 2 has a cluster secret and this node has none: set the same",
    ),
    "no secret there": (
        identity_of(1),
        identity_of(2, secret=b""),
        r"^node 2 has no cluster secret and this node has one: set the same",
    ),
    "another cluster": (
        identity_of(1, cluster_id=A),
        identity_of(2, cluster_id=B),
        rf"^node 1 belongs to cluster {A.hex()} and node 2 to cluster {B.hex()}: correct",
    ),
    "another list": (
        identity_of(1, candidates=THREE),
        identity_of(2, candidates=THREE[:1]),
        (
            r"^node 1 is configured with candidates 1@n1:7420,2@n2:7420,3@n3:7420 and node 2 with "
            r"1@n1:7420: write the same cluster.candidates on every candidate"
        ),
    ),
    "another address in the list": (
        identity_of(1, candidates=THREE),
        identity_of(2, candidates=MOVED, cluster_id=A),
        r"2@n2:7420,3@n3:7420 and node 2 with 1@n1:7420,2@n2:7430,3@n3:7420: write the same",
    ),
    "an id that is taken": (
        identity_of(2, directory_id=b"another"),
        identity_of(2),
        r"^two nodes have the id 2 \(node-2 and node-2\): give one of them another node.id",
    ),
    "a copied directory": (
        identity_of(2, boot_id=b"another"),
        identity_of(2),
        r"^two nodes run as node 2 on copies of one data directory: stop one of them",
    ),
    "itself": (
        identity_of(2),
        identity_of(2),
        r"^node 2 was given its own address as that of another node",
    ),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_a_stranger_is_refused_and_told_what_to_do(case: str) -> None:
    """Each reason has its own message, which names the nodes and the setting."""
    dialler, acceptor, message = REFUSED[case]
    with pytest.raises(PeerRefusedError, match=message) as refused:
        shake(dialler, acceptor)
    assert SECRET.decode() not in str(refused.value)


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_it_does_not_matter_who_dials(case: str) -> None:
    """Two nodes that do not fit are refused in both directions."""
    acceptor, dialler, _ = REFUSED[case]
    with pytest.raises(PeerRefusedError):
        shake(dialler, acceptor)


def test_whoever_answers_must_be_the_one_that_was_dialled() -> None:
    """An address that leads to another node is refused by that node and by the dialler."""
    message = r"^node 2 was dialled and node 3 answered: correct the address of node 2"
    one, three = identity_of(1), identity_of(3)
    with pytest.raises(PeerRefusedError, match=message):
        shake(one, three, target=2)
    asked = handshake.hello_request(one, 2, NONCE_1)
    seen = handshake.hello_request(one, 3, NONCE_1)
    _, response = handshake.answer_hello(three, seen, NONCE_2)
    with pytest.raises(PeerRefusedError, match=message):
        handshake.check_response(one, asked, response)


def test_no_common_version_is_said_with_both() -> None:
    """A node of the future that has given up this version is told to whom it cannot talk."""
    request = handshake.hello_request(identity_of(1), 2, NONCE_1)
    request.version_min, request.version_max = 5, 7
    message = r"node 1 speaks protocol versions 5 to 7, node 2 speaks 1 to 1: upgrade the older"
    with pytest.raises(UnsupportedVersionError, match=message):
        handshake.answer_hello(identity_of(2), request, NONCE_2)
    request.version_min = 1
    _, response = handshake.answer_hello(identity_of(2), request, NONCE_2)
    assert response.version == 1


def test_a_proof_is_good_once_in_one_direction_for_two_nodes() -> None:
    """Change a nonce, an id or the role, and the proof is another one."""
    one, two = identity_of(1), identity_of(2)
    request = handshake.hello_request(one, 2, NONCE_1)
    _, response = handshake.answer_hello(two, request, NONCE_2)
    proofs = [response.proof, handshake.dialler_proof(one, request, response).proof]
    for field, value in (("nonce", NONCE_2), ("node_id", 3)):
        other = peer_pb2.PeerHelloRequest.FromString(request.SerializeToString())
        setattr(other, field, value)
        proofs.append(handshake.dialler_proof(one, other, response).proof)
    for field, value in (("nonce", NONCE_1), ("node_id", 4)):
        answer = peer_pb2.PeerHelloResponse.FromString(response.SerializeToString())
        setattr(answer, field, value)
        proofs.append(handshake.dialler_proof(one, request, answer).proof)
    proofs.append(handshake.dialler_proof(identity_of(1, secret=b"x"), request, response).proof)
    assert len(dict.fromkeys(proofs)) == len(proofs) == 7
    assert all(len(proof) == 32 for proof in proofs)


def test_without_a_secret_nothing_is_proved() -> None:
    """Both proofs are empty, and one that is not is refused."""
    one, two = identity_of(1, secret=b""), identity_of(2, secret=b"")
    request = handshake.hello_request(one, 2, NONCE_1)
    _, response = handshake.answer_hello(two, request, NONCE_2)
    assert response.proof == handshake.dialler_proof(one, request, response).proof == b""
    expected = handshake.expected_proof(two, request, response)
    with pytest.raises(PeerRefusedError):
        handshake.check_dialler_proof(expected, b"x", NodeId(1))


def test_the_secret_is_not_shown() -> None:
    """The `repr` of an identity, which may end in a log, is without it."""
    assert "secret" not in repr(identity_of(1))


BROKEN = {
    "no nonce": {"nonce": b""},
    "a short nonce": {"nonce": b"1" * 31},
    "no id": {"node_id": 0},
    "a long name": {"node_name": "x" * 513},
    "a long address": {"address": "x" * 513},
    "a long id of a directory": {"directory_id": b"x" * 33},
    "a long id of a cluster": {"cluster_id": b"x" * 33},
    "a long candidate": {"candidates": [peer_pb2.Candidate(node_id=1, address="x" * 513)]},
    "many candidates": {"candidates": [peer_pb2.Candidate(node_id=n) for n in range(17)]},
}


@pytest.mark.parametrize("case", sorted(BROKEN))
def test_a_hello_that_makes_no_sense_is_no_hello(case: str) -> None:
    """What no node sends closes the connection instead of being remembered."""
    fields = {"version_min": 1, "version_max": 1, "node_id": 1, "nonce": NONCE_1, **BROKEN[case]}
    request = peer_pb2.PeerHelloRequest(**fields)  # type: ignore[arg-type]
    with pytest.raises(RemoteProtocolError):
        handshake.answer_hello(identity_of(2), request, NONCE_2)


@pytest.mark.parametrize("fields", [{"nonce": b""}, {"version": 0}, {"version": 2}, {"node_id": 0}])
def test_an_answer_that_makes_no_sense_is_no_answer(fields: dict[str, object]) -> None:
    """The dialler checks what it is answered just as well."""
    one = identity_of(1)
    request = handshake.hello_request(one, 0, NONCE_1)
    _, response = handshake.answer_hello(identity_of(2), request, NONCE_2)
    for name, value in fields.items():
        setattr(response, name, value)
    with pytest.raises(RemoteProtocolError):
        handshake.check_response(one, request, response)


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("n1:7421", ("n1", 7421)),
        ("n1", ("n1", 7420)),
        ("[::1]:7421", ("::1", 7421)),
        ("[::1]", ("::1", 7420)),
    ],
)
def test_addresses_are_split(address: str, parts: tuple[str, int]) -> None:
    """Host and port, with the usual port if there is none."""
    assert handshake.split_address(address) == parts


@pytest.mark.parametrize("address", ["", ":1", "n1:", "n1:0", "n1:65536", "n1:x", "::1:7420", "[]"])
def test_what_is_no_address_is_refused(address: str) -> None:
    """It is named in the message."""
    with pytest.raises(InvalidArgumentError, match="expected host:port"):
        handshake.split_address(address)
