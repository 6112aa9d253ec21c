"""How a cluster is as a whole: who leads what, what is not served, who is behind.

Reads the metadata that nodes have replayed, all nodes' memory at once, as nobody in the cluster
can. Used to aim faults, and to say at the end what is still missing.
"""

from __future__ import annotations

from collections.abc import Iterator

from ssgovern.controller.rows import NOBODY
from ssgovern.controller.state import ClusterState
from ssgovern.sim.cluster_checkers import ClusterChecker, NodeWatch
from ssgovern.sim.process import Process


class ClusterJudge:
    """Looks at all nodes of a cluster together."""

    def __init__(self, checker: ClusterChecker) -> None:
        self._checker = checker

    @property
    def _watches(self) -> list[NodeWatch]:
        return list(self._checker.watches.values())

    def newest(self) -> ClusterState | None:
        """Return the metadata of the node that has followed it furthest."""
        found: ClusterState | None = None
        index = 0
        for watch in self._watches:
            metadata = watch.metadata
            if metadata is not None and metadata.index > index and not watch.is_down:
                found, index = metadata.state, metadata.index
        return found

    def _process(self, node_id: int) -> Process | None:
        for watch in self._watches:
            if watch.plan.number == node_id:
                return watch.process
        return None

    def primary_of(self, shard: int) -> Process | None:
        """Return who is primary by the newest metadata anybody has."""
        state = self.newest()
        return None if state is None else self._process(state.rows[shard].primary)

    def controller(self) -> Process | None:
        """Return who leads the highest term."""
        return self._checker.leader()

    def has_left(self, process: Process) -> bool:
        """Tell whether a node was removed for good: nobody would start it again."""
        state = self.newest()
        watch = self._checker.watches[process.name]
        return state is not None and watch.plan.number in state.retired

    # --- at the end --------------------------------------------------------------------------

    def unserved(self) -> str:
        """Say which shards nobody serves; empty if all are served."""
        state = self.newest()
        if state is None or not state.cluster_id:
            return "no cluster has been founded"
        missing = [n for n, row in enumerate(state.rows) if row.primary == NOBODY]
        if missing:
            return f"{len(missing)} shards have no primary: {missing[:8]}"
        for shard, row in enumerate(state.rows):
            process = self._process(row.primary)
            if process is None or not process.alive:
                return f"shard {shard}'s primary {row.primary} is dead"
        return ""

    def incomplete(self) -> Iterator[str]:
        """Yield what is still missing once there was time for everything."""
        if self.unserved():
            yield self.unserved()
        state = self.newest()
        if state is None:
            return
        takers = [node for node in state.nodes.values() if node.takes_shards]
        copies = min(state.settings.copies, len(takers))
        for shard, row in enumerate(state.rows):
            if len(row.in_sync) < copies:
                yield f"shard {shard} has {len(row.in_sync)} of {copies} copies in sync: {row}"
        for watch in self._watches:
            node = state.nodes.get(watch.plan.number)
            gone = watch.plan.number in state.retired
            if not gone and (node is None or not node.live):
                yield f"{watch.process.name} is not back in the cluster"

    def unequal(self) -> Iterator[str]:
        """Yield who is behind, now that nothing is written any more."""
        state = self.newest()
        if state is None:
            return
        for watch in self._watches:
            metadata = watch.metadata
            if metadata is None or watch.plan.number in state.retired:
                continue
            if metadata.map_version != state.map_version:
                yield (
                    f"{watch.process.name} has map {metadata.map_version}, not {state.map_version}"
                )
        for shard, ledger in self._checker.shards_used():
            for node_id in state.rows[shard].in_sync:
                process = self._process(node_id)
                node = None if process is None else self._checker.watches[process.name].node
                if node is None:
                    yield f"node {node_id}, in sync for shard {shard}, does not serve"
                elif node.states[shard].position != ledger.position:
                    yield (
                        f"{node_id} is in sync for shard {shard} and at "
                        f"{node.states[shard].position!r}, not {ledger.position!r}"
                    )
