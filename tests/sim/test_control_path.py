"""Scenarios of the control path: drivers of controllers and members, in one simulated world."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ssgovern import limits
from ssgovern.controller.rows import NOBODY
from ssgovern.controller.state import Settings
from ssgovern.errors import (
    InvalidArgumentError,
    OverloadedError,
    SsGovernError,
    UnavailableError,
)
from ssgovern.model import NodeId
from ssgovern.sim.control_mutants import GapIgnored, GrantsWhileFencing, StallIsSilence
from ssgovern.sim.control_nodes import ControlNode
from ssgovern.sim.control_walk import ControlWorld, address_of
from ssgovern.sim.controller_judge import ViolationError
from ssgovern.sim.process import Process
from ssgovern.wire.pb import native_pb2


def settled(node_type: type[ControlNode] = ControlNode) -> ControlWorld:
    """A cluster of three candidates and some more, at rest."""
    cluster = ControlWorld(1, node_type=node_type)
    cluster.agreement.is_harsh = False
    for number in range(1, 6):
        cluster.add(number)
    try:
        cluster.run(15.0)
        cluster.at_rest()
    except AssertionError:
        cluster.world.close()
        raise
    return cluster


@pytest.fixture
def cluster() -> Iterator[ControlWorld]:
    with settled() as made:
        yield made


def controller_of(cluster: ControlWorld) -> ControlNode:
    return cluster.lives[cluster.agreement.leader]


def other_than_controller(cluster: ControlWorld) -> NodeId:
    """A candidate that does not lead."""
    return min(node for node in cluster.agreement.candidates if node != cluster.agreement.leader)


def command(
    cluster: ControlWorld, request: native_pb2.ClusterCommandRequest, wait_s: float = 1.0
) -> list[str | SsGovernError]:
    """Have an operator's command done; return its sentence, or the error."""
    outcome: list[str | SsGovernError] = []
    life = controller_of(cluster)
    assert life.controller is not None
    driver = life.controller

    async def do() -> None:
        try:
            outcome.append(await driver.command(request))
        except SsGovernError as error:
            outcome.append(error)

    loop = life.process.loop
    assert loop is not None
    loop.call_soon(lambda: loop.create_task(do()))
    cluster.run(wait_s)
    return outcome


def lease_of(cluster: ControlWorld, node: int) -> bool:
    return cluster.lives[NodeId(node)].has_lease()


def fenced_after(cluster: ControlWorld, node: int, seconds: float) -> float | None:
    """Let time pass; return when a node was fenced, counted from now."""
    now = cluster.world.now
    cluster.run(seconds)
    times = [when - now for when, who in cluster.fenced if who == node and when >= now]
    return times[0] if times else None


def test_a_calm_cluster_fences_nobody(cluster: ControlWorld) -> None:
    """Nobody is fenced and nobody elected in a minute in which nothing happens."""
    elections = cluster.agreement.elections
    for life in cluster.lives.values():
        life.leased.clear()
    cluster.run(60.0)
    assert not cluster.fenced
    assert cluster.agreement.elections == elections
    for life in cluster.lives.values():
        gaps = [b - a for a, b in zip(life.leased, life.leased[1:], strict=False)]
        assert max(gaps) < 0.7, "each heartbeat extends the lease"


def test_a_killed_node_is_fenced_when_its_lease_has_run_out(cluster: ControlWorld) -> None:
    """A process known to be gone is not waited for as long as one that is silent."""
    cluster.processes[NodeId(5)].kill()
    after = fenced_after(cluster, 5, 10.0)
    assert after is not None
    assert 2.5 < after < 4.0
    assert all(row.primary not in (NOBODY, 5) for row in cluster.agreement.reference.state.rows)


@pytest.mark.parametrize("how", ["pause", "cut"])
def test_a_silent_node_is_fenced_after_its_time(cluster: ControlWorld, how: str) -> None:
    """Paused or cut off: five seconds of silence, and no lease by then."""
    process = cluster.processes[NodeId(4)]
    if how == "pause":
        process.pause()
    else:
        cluster.world.network.isolate(process.machine.name)
    after = fenced_after(cluster, 4, 8.0)
    assert after is not None
    assert 4.4 < after < 5.5
    process.resume()
    cluster.world.network.heal()
    cluster.run(20.0)
    cluster.at_rest()
    assert cluster.agreement.reference.state.nodes[NodeId(4)].session == 2


def test_a_node_that_starts_again_gets_a_new_session(cluster: ControlWorld) -> None:
    """At once: its old session is fenced by its registration."""
    process = cluster.processes[NodeId(4)]
    process.kill()
    process.start()
    after = fenced_after(cluster, 4, 2.0)
    assert after is not None
    assert after < 0.5
    assert cluster.lives[NodeId(4)].member.session == 2


def test_a_controller_that_dies_costs_nobody_its_lease(cluster: ControlWorld) -> None:
    """Members find the next one before their leases end."""
    dead = cluster.agreement.leader
    cluster.processes[dead].kill()
    for _ in range(40):
        cluster.run(0.2)
        for number in range(1, 6):
            assert number == dead or lease_of(cluster, number), f"{number} at {cluster.world.now}"
    assert {node for _, node in cluster.fenced} == {dead}


def test_a_controller_cut_off_grants_no_leases(cluster: ControlWorld) -> None:
    """A member that only the old controller reaches loses its lease before the new one acts."""
    old = cluster.agreement.leader
    others = [f"n{node}" for node in cluster.agreement.candidates if node != old]
    cluster.world.network.partition([f"n{old}", "n5"], [*others, "n4"])
    cluster.run(5.0)
    assert not lease_of(cluster, 5)
    assert lease_of(cluster, 4)
    cluster.run(4.0)
    assert not cluster.agreement.reference.state.is_live(NodeId(5))
    cluster.world.network.heal()
    cluster.run(20.0)
    cluster.at_rest()


def test_a_lease_counts_from_when_its_heartbeat_was_sent(cluster: ControlWorld) -> None:
    """A slow way back makes it no longer."""
    leader = f"n{cluster.agreement.leader}"
    cluster.world.network.set_link(leader, "n5", latency=0.8, both=False)
    cluster.run(5.0)
    life = cluster.lives[NodeId(5)]
    left_ms = life.lease_until_ms - life.process.monotonic() * 1000.0
    assert life.has_lease()
    assert left_ms <= limits.NODE_LEASE_MS - 800


def pause_everything(cluster: ControlWorld, seconds: float) -> None:
    for process in cluster.processes.values():
        process.pause()
    cluster.run(seconds)
    for process in cluster.processes.values():
        process.resume()


def test_a_host_that_slept_fences_nobody(cluster: ControlWorld) -> None:
    """Nobody was silent while nobody could hear."""
    pause_everything(cluster, 30.0)
    cluster.run(10.0)
    assert not cluster.fenced
    cluster.at_rest()


def test_a_stall_taken_for_silence_is_found() -> None:
    """The planted bug: the test above can fail."""
    with settled(node_type=StallIsSilence) as cluster:
        # Otherwise others elect themselves, and a new controller begins anew.
        cluster.agreement.candidates = (cluster.agreement.leader,)
        pause_everything(cluster, 30.0)
        cluster.run(10.0)
        assert cluster.fenced


def heal_while_the_fencing_is_written(cluster: ControlWorld) -> None:
    cluster.agreement.append_s = (1.5, 1.5)
    cluster.world.network.isolate("n5")
    cluster.run(5.8)
    assert not cluster.fenced, "it is being written"
    cluster.world.network.heal()
    cluster.run(5.0)
    assert [node for _, node in cluster.fenced] == [5]


def test_no_lease_while_the_fencing_is_being_written(cluster: ControlWorld) -> None:
    """A node heard again too late gets no lease that would outlive its fencing."""
    heal_while_the_fencing_is_written(cluster)


def test_a_lease_granted_meanwhile_is_found() -> None:
    """The planted bug: the test above can fail."""
    with settled(node_type=GrantsWhileFencing) as cluster, pytest.raises(ViolationError):
        heal_while_the_fencing_is_written(cluster)


def lose_a_push(cluster: ControlWorld) -> int:
    """Have a decision made whose push is lost; return by how much its target is behind then."""
    leader = f"n{cluster.agreement.leader}"
    cluster.world.network.cut(leader, "n5", both=False)
    wanted = native_pb2.ChangeSettings(moves_max=3)
    command(cluster, native_pb2.ClusterCommandRequest(settings=wanted), 0.5)
    cluster.world.network.heal()
    cluster.run(3.0)
    return cluster.agreement.reference.index - cluster.lives[NodeId(5)].metadata.index


def test_what_a_push_lost_is_fetched(cluster: ControlWorld) -> None:
    """Though no other follows that would show the gap: heartbeats show it."""
    assert lose_a_push(cluster) == 0


def test_a_gap_that_nobody_sees_is_found() -> None:
    """The planted bug: the test above can fail."""
    with settled(node_type=GapIgnored) as cluster:
        assert lose_a_push(cluster) > 0


def test_a_join_is_balanced_though_the_controller_changes(cluster: ControlWorld) -> None:
    """What was begun goes on under the next controller; nothing is begun twice."""
    cluster.add(6)

    def is_moving() -> bool:
        return any(row.in_flight for row in cluster.agreement.reference.state.rows)

    assert cluster.world.run_until(is_moving, cluster.world.now + 5.0)
    cluster.agreement.transfer(other_than_controller(cluster))
    cluster.run(15.0)
    cluster.at_rest()
    assert any(6 in row.holders for row in cluster.agreement.reference.state.rows)
    assert not cluster.fenced


def test_a_node_leaves(cluster: ControlWorld) -> None:
    """Its shards go, then it does; it is told, and its id is never taken again."""
    said = command(cluster, native_pb2.ClusterCommandRequest(leave=5), 20.0)
    assert said == ["Node 5 (n5) was asked to leave."]
    state = cluster.agreement.reference.state
    assert 5 in state.retired
    assert 5 not in state.nodes
    assert "left the cluster for good" in cluster.lives[NodeId(5)].member.refusal
    cluster.at_rest()


def test_a_candidate_leaves(cluster: ControlWorld) -> None:
    """It votes until it holds nothing, and then no more; even if it is the controller."""
    node = cluster.agreement.leader
    command(cluster, native_pb2.ClusterCommandRequest(leave=node), 30.0)
    assert node in cluster.agreement.reference.state.retired
    assert node not in cluster.agreement.candidates
    assert len(cluster.agreement.candidates) == 2


def test_the_only_candidate_does_not_leave() -> None:
    """Without it nobody could decide anything."""
    with settled() as cluster:
        leader = cluster.agreement.leader
        for node in [node for node in cluster.agreement.candidates if node != leader]:
            change = native_pb2.CandidateChange(remove=node)
            (said,) = command(cluster, native_pb2.ClusterCommandRequest(candidates=change))
            assert said == f"Node {node} is no longer a candidate."
        cluster.run(2.0)
        assert [n.id for n in cluster.agreement.reference.state.sorted_nodes() if n.candidate] == [
            leader
        ]
        (said,) = command(cluster, native_pb2.ClusterCommandRequest(leave=leader))
        assert isinstance(said, InvalidArgumentError)
        assert "only candidate" in said.message


def test_the_controller_is_handed_over(cluster: ControlWorld) -> None:
    """To a candidate, and to nobody else; the members follow it."""
    other = other_than_controller(cluster)
    request = native_pb2.ClusterCommandRequest(transfer_controller=other)
    assert command(cluster, request, 3.0) == [f"Node {other} takes over as the controller."]
    assert controller_of(cluster).node == other
    (said,) = command(cluster, native_pb2.ClusterCommandRequest(transfer_controller=5))
    assert isinstance(said, InvalidArgumentError)
    cluster.run(3.0)
    assert not cluster.fenced
    cluster.at_rest()


def refused(cluster: ControlWorld, node: int) -> str:
    cluster.run(4.0)
    return cluster.lives[NodeId(node)].member.refusal


def test_two_nodes_with_one_id(cluster: ControlWorld) -> None:
    """The second is refused, and told why; the first notices nothing."""
    first = cluster.lives[NodeId(5)]
    cluster.add(5, name="impostor", directory=b"another directory", address="impostor:7420")
    assert "belongs to another data directory" in refused(cluster, 5)
    assert first.has_lease()
    assert first.member.session == 1
    assert not cluster.fenced


def test_a_directory_of_another_cluster(cluster: ControlWorld) -> None:
    """It is refused, and told which cluster it belongs to."""
    cluster.add(6, directory_cluster_id=b"some other one..")
    assert "belongs to cluster" in refused(cluster, 6)
    assert 6 not in cluster.agreement.reference.state.nodes


def test_a_retired_id(cluster: ControlWorld) -> None:
    """An id that left for good is refused, with any directory."""
    command(cluster, native_pb2.ClusterCommandRequest(leave=5), 20.0)
    cluster.processes[NodeId(5)].kill()
    cluster.add(5, name="again", directory=b"an empty directory", address="again:7420")
    assert "choose an id that was never used" in refused(cluster, 5)


def test_settings_are_changed_and_checked(cluster: ControlWorld) -> None:
    """What is not named stays; a time that leases do not allow is refused."""
    wanted = native_pb2.ChangeSettings(copies=2, moves_max=3)
    assert command(cluster, native_pb2.ClusterCommandRequest(settings=wanted), 20.0) == [
        "Changed the settings."
    ]
    settings = cluster.agreement.reference.state.settings
    assert (settings.copies, settings.moves_max, settings.min_in_sync) == (2, 3, 2)
    cluster.at_rest()
    too_short = native_pb2.ChangeSettings(fence_after_ms=4_000)
    (said,) = command(cluster, native_pb2.ClusterCommandRequest(settings=too_short))
    assert isinstance(said, InvalidArgumentError)


def test_nothing_is_founded_until_all_candidates_are_there() -> None:
    """The first placement waits for them; then every shard has its copies at once."""
    with ControlWorld(3, settings=Settings(copies=3, nodes_initial=3)) as cluster:
        cluster.agreement.is_harsh = False
        cluster.add(1)
        cluster.add(2)
        cluster.run(5.0)
        assert not any(row.primary for row in cluster.agreement.reference.state.rows)
        cluster.add(3)
        cluster.run(5.0)
        assert all(len(row.in_sync) == 3 for row in cluster.agreement.reference.state.rows)


def test_a_process_is_gone_only_while_nobody_listens(cluster: ControlWorld) -> None:
    """A node that is back on its address in time, in the same life or not, is not fenced again."""
    process: Process = cluster.processes[NodeId(5)]
    process.kill()
    cluster.run(1.0)
    process.start()
    cluster.run(10.0)
    assert [node for _, node in cluster.fenced] == [5], "by its own registration"
    assert cluster.agreement.reference.state.is_live(NodeId(5))
    assert address_of(NodeId(5)) == "n5:7420"


def test_a_node_becomes_a_candidate_and_the_controller(cluster: ControlWorld) -> None:
    """It follows the log before it votes; then it can lead; and it can be removed again."""
    change = native_pb2.CandidateChange(add=4)
    said = command(cluster, native_pb2.ClusterCommandRequest(candidates=change), 5.0)
    assert said == ["Node 4 is a candidate now."]
    assert cluster.agreement.candidates == (1, 2, 3, 4)
    assert cluster.agreement.reference.state.nodes[NodeId(4)].candidate
    command(cluster, native_pb2.ClusterCommandRequest(transfer_controller=4), 3.0)
    assert cluster.agreement.leader == 4
    (said_again,) = command(cluster, native_pb2.ClusterCommandRequest(candidates=change))
    assert said_again == "Node 4 is a candidate already."
    remove = native_pb2.CandidateChange(remove=4)
    (refusal,) = command(cluster, native_pb2.ClusterCommandRequest(candidates=remove))
    assert isinstance(refusal, InvalidArgumentError)
    assert "is the controller" in refusal.message
    command(cluster, native_pb2.ClusterCommandRequest(transfer_controller=1), 3.0)
    (said_last,) = command(cluster, native_pb2.ClusterCommandRequest(candidates=remove), 3.0)
    assert said_last == "Node 4 is no longer a candidate."
    assert not cluster.agreement.reference.state.nodes[NodeId(4)].candidate
    cluster.run(5.0)
    assert not cluster.fenced
    cluster.at_rest()


def test_one_change_of_the_candidates_at_a_time(cluster: ControlWorld) -> None:
    """A second is refused while the first has not ended."""
    cluster.processes[NodeId(4)].pause()
    add = native_pb2.ClusterCommandRequest(candidates=native_pb2.CandidateChange(add=4))
    assert command(cluster, add, 0.5) == []
    (refusal,) = command(cluster, add, 0.5)
    assert isinstance(refusal, OverloadedError)


def test_a_candidate_that_does_not_catch_up_is_none(cluster: ControlWorld) -> None:
    """After a while it is said so, and it is as if nobody had asked."""
    cluster.processes[NodeId(4)].pause()
    add = native_pb2.ClusterCommandRequest(candidates=native_pb2.CandidateChange(add=4))
    (refusal,) = command(cluster, add, limits.CANDIDATE_CATCH_UP_MS / 1000.0 + 2.0)
    assert isinstance(refusal, UnavailableError)
    assert cluster.agreement.candidates == (1, 2, 3)
    assert not cluster.agreement.learners
    assert not cluster.agreement.reference.state.nodes[NodeId(4)].candidate
