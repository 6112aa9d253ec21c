"""What an operator asks of the cluster, without an event loop: see `ssgovern.Registry`."""

from __future__ import annotations

from ssgovern.blocking.thread import LoopThread
from ssgovern.client import registry as client
from ssgovern.client.values import ClusterStatus


class Administration:
    """The part of `Registry` that is about the cluster itself."""

    def _opened(self) -> tuple[LoopThread, client.Registry]:
        raise NotImplementedError

    def cluster_status(
        self, shards: bool = False, *, timeout: float | None = None
    ) -> ClusterStatus:
        """Ask a node about the cluster; with `shards` also who keeps each of them."""
        thread, inner = self._opened()
        return thread.call(inner.cluster_status(shards, timeout=timeout))

    def cluster_leave(self, node_id: int, *, timeout: float | None = None) -> str:
        """Have everything moved away from a node, which is then removed for good.

        This and the other commands return what was decided, as a sentence; doing it may take
        longer. Raises InvalidArgumentError if it cannot be.
        """
        thread, inner = self._opened()
        return thread.call(inner.cluster_leave(node_id, timeout=timeout))

    def cluster_stay(self, node_id: int, *, timeout: float | None = None) -> str:
        """Take back that a node shall leave."""
        thread, inner = self._opened()
        return thread.call(inner.cluster_stay(node_id, timeout=timeout))

    def cluster_transfer(self, shard: int, to: int, *, timeout: float | None = None) -> str:
        """Make a node the primary of a shard."""
        thread, inner = self._opened()
        return thread.call(inner.cluster_transfer(shard, to, timeout=timeout))

    def cluster_transfer_controller(self, to: int, *, timeout: float | None = None) -> str:
        """Hand the controller's duty to another candidate."""
        thread, inner = self._opened()
        return thread.call(inner.cluster_transfer_controller(to, timeout=timeout))

    def cluster_unclean(self, shard: int, node_id: int, *, timeout: float | None = None) -> str:
        """Promote a node that may lack what was acknowledged. The last resort."""
        thread, inner = self._opened()
        return thread.call(inner.cluster_unclean(shard, node_id, timeout=timeout))

    def cluster_settings(self, *, timeout: float | None = None, **changes: int) -> str:
        """Change settings by name. What is not named stays."""
        thread, inner = self._opened()
        return thread.call(inner.cluster_settings(timeout=timeout, **changes))

    def cluster_candidates(
        self, *, add: int = 0, remove: int = 0, timeout: float | None = None
    ) -> str:
        """Make a node a candidate, or one that is no longer; 0: none."""
        thread, inner = self._opened()
        return thread.call(inner.cluster_candidates(add=add, remove=remove, timeout=timeout))
