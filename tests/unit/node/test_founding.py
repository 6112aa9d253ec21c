"""When a cluster may be founded: each case by its step, and in words that help."""

from __future__ import annotations

import pytest

from ssgovern.model import NodeId
from ssgovern.node.founding import (
    Claim,
    FoundAs,
    LetFound,
    Waits,
    claims_of,
    decide_founding_step,
)
from ssgovern.transport.handshake import PeerIdentity, PeerSaid

ONE, TWO, THREE = NodeId(1), NodeId(2), NodeId(3)
NEW, OLD, ALONE = b"a new cluster id", b"an old cluster..", b"a single node..."


def step(me: NodeId = ONE, **claims: Claim) -> FoundAs | LetFound | Waits:
    """What node `me` of three candidates does, having heard `n2=Claim(...)` and so on."""
    heard = {NodeId(int(name[1:])): claim for name, claim in claims.items()}
    return decide_founding_step(me, (ONE, TWO, THREE), heard, NEW)


def test_all_are_there_and_belong_to_nothing() -> None:
    """Then it is founded, under a new id."""
    assert step(n1=Claim(), n2=Claim(), n3=Claim()) == FoundAs(NEW, inherits=False)


def test_alone_as_the_only_candidate() -> None:
    """Nobody is waited for."""
    assert decide_founding_step(ONE, (ONE,), {ONE: Claim()}, NEW) == FoundAs(NEW, inherits=False)


@pytest.mark.parametrize("missing", [2, 3])
def test_one_is_not_there(missing: int) -> None:
    """Whatever it brings has to be known first."""
    claims = {f"n{number}": Claim() for number in (1, 2, 3) if number != missing}
    waits = step(**claims)
    assert isinstance(waits, Waits)
    assert not waits.for_ever
    assert f"candidate {missing} to be there" in waits.why


def test_one_brings_data() -> None:
    """It founds the cluster under its own id; another that leads lets it."""
    claims = {"n1": Claim(), "n2": Claim(b"", ALONE), "n3": Claim()}
    assert step(ONE, **claims) == LetFound(TWO)
    assert step(TWO, **claims) == FoundAs(ALONE, inherits=True)


def test_two_bring_data() -> None:
    """That cannot be made one, and it is said at once what can be done, whoever is missing."""
    waits = step(n1=Claim(b"", OLD), n2=Claim(b"", ALONE))
    assert isinstance(waits, Waits)
    assert waits.for_ever
    assert "nodes 1, 2 each bring data" in waits.why


def test_one_belongs_to_a_cluster_that_the_others_lost() -> None:
    """Founding another would make its data unreachable: an operator has to decide."""
    waits = step(n1=Claim(), n2=Claim(), n3=Claim(OLD))
    assert isinstance(waits, Waits)
    assert waits.for_ever
    assert f"node 3 belongs to cluster {OLD.hex()}" in waits.why


def test_claims_are_what_hellos_said() -> None:
    """And this node's own."""
    me = PeerIdentity(
        ONE, "n1", "n1:1", b"d", b"b", (), b"", cluster_id=b"", single_node_cluster_id=ALONE
    )
    said = PeerSaid(TWO, "n2", b"boot", OLD, (), b"", b"directory")
    assert claims_of(me, {TWO: said}) == {ONE: Claim(b"", ALONE), TWO: Claim(OLD, b"")}
