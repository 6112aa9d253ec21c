"""What may be at a node's address, or on its disk mount, instead of what belongs there.

A *mute* process listens where a dead node did, takes connections and says nothing, as a hung
process or a wrong port forward does. A *wrong disk* is an empty one, mounted under the old
configuration: what was promised under that id is not on it, so that nobody may take the node for
the one it says it is.

Knows processes and machines. Invariants: a mute process and the node are never alive together;
what was on the right disk is untouched while the wrong one is mounted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ssgovern.sim.disk import DiskImage
from ssgovern.sim.process import Process
from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.world import World


class StandIns:
    """One mute process and one spare disk mount for each node."""

    def __init__(self, world: World, nodes: Sequence[Process], port: int) -> None:
        self._port = port
        self._mute = {
            node.name: world.process(f"{node.name}-mute", self._listen, machine=node.machine.name)
            for node in nodes
        }
        self._right_disks: dict[str, dict[str, DiskImage]] = {}

    async def _listen(self, runtime: SimRuntime) -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(asyncio.Protocol, "0.0.0.0", self._port)
        await server.serve_forever()

    # --- mute ------------------------------------------------------------------------------

    def begin_mute(self, node: Process) -> None:
        """Have somebody listen in a dead node's place."""
        assert not node.alive, f"{node!r} listens there itself"
        if not self._mute[node.name].alive:
            self._mute[node.name].start()

    def end_mute(self, node: Process) -> None:
        """Make room for the node."""
        if node.name in self._mute:
            self._mute[node.name].kill()

    # --- disks -----------------------------------------------------------------------------

    def has_wrong_disk(self, node: Process) -> bool:
        return node.name in self._right_disks

    def mount_wrong_disk(self, node: Process) -> None:
        """Have a dead node find nothing when it starts."""
        assert not node.alive, f"{node!r} has its disk mounted"
        self._right_disks[node.name] = node.machine.disks
        node.machine.disks = {}

    def mount_right_disk(self, node: Process) -> None:
        """Give a dead node its own disk back, if it has another one."""
        assert not node.alive, f"{node!r} has its disk mounted"
        right = self._right_disks.pop(node.name, None)
        if right is not None:
            node.machine.disks = right
