"""Links between nodes over a simulated network: made, lost, made again, refused."""

from __future__ import annotations

from collections.abc import Callable

from peers import Post, identity_of

from ssgovern.model import NodeId
from ssgovern.sim.process import Process
from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.world import World
from ssgovern.transport.handshake import PeerIdentity

PORT = 7420
ONE, TWO, THREE = NodeId(1), NodeId(2), NodeId(3)


class Nodes:
    """Nodes on machines `n1`, `n2`, ... Each dials the others that are given."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.posts: dict[int, Post] = {}
        self.processes: dict[int, Process] = {}

    def add(
        self,
        number: int,
        dials: dict[int, str],
        *,
        me: PeerIdentity | None = None,
        machine: str = "",
        **options: object,
    ) -> Process:
        async def main(runtime: SimRuntime) -> None:
            post = Post(me or identity_of(number), runtime, **options)  # type: ignore[arg-type]
            self.posts[number] = post
            post.links.set_peers({NodeId(node): address for node, address in dials.items()})
            await post.run("0.0.0.0", PORT)

        name = machine or f"n{number}"
        process = self.world.process(name, main)
        self.processes[number] = process
        process.start()
        return process

    def pair(self) -> tuple[Post, Post]:
        """Two nodes that dial each other, with both links open."""
        for number, other in ((1, 2), (2, 1)):
            self.add(number, {other: f"n{other}:{PORT}"})
        self.until(lambda: len(self.posts) == 2 and self.both_open(), 3)
        return self.posts[1], self.posts[2]

    def both_open(self) -> bool:
        return self.posts[1].links.is_open(TWO) and self.posts[2].links.is_open(ONE)

    def until(self, condition: Callable[[], bool], seconds: float) -> float:
        """Run until a condition holds; return how long that took."""
        began = self.world.now
        assert self.world.run_until(condition, began + seconds), (
            f"not within {seconds} s: {[post.links for post in self.posts.values()]}"
        )
        return self.world.now - began

    def run(self, seconds: float) -> None:
        self.world.run(self.world.now + seconds)


def test_two_nodes_that_dial_each_other_have_two_links() -> None:
    """Each can tell the other, and knows what it said of itself."""
    with World(1) as world:
        nodes = Nodes(world)
        one, two = nodes.pair()
        assert one.links.send(TWO, 120, b"hello")
        assert two.links.send(ONE, 121, b"you too")
        nodes.run(0.1)
        assert (one.told, two.told) == ([(TWO, 121, b"you too")], [(ONE, 120, b"hello")])
        said = one.links.said(TWO)
        assert said is not None
        assert (said.node_id, said.name, said.directory_id) == (TWO, "node-2", b"directory-2")
        assert one.story == ["link 2"]
        assert not world.errors
