"""What HTTP needs of its node. Knows no HTTP.

Invariant: nothing here waits and nothing changes anything, except through the `gateway`; every
other answer holds for this turn of the loop.
"""

from __future__ import annotations

from typing import Protocol

from ssgovern.api.http.gateway import Gateway
from ssgovern.runtime import Runtime
from ssgovern.service.push import PushService
from ssgovern.service.registry import RegistryService
from ssgovern.wire.pb import native_pb2


class Backend(Protocol):
    """A node, as its HTTP port sees it. It is there before the node serves."""

    @property
    def registry(self) -> RegistryService:
        """The registry. Raises UnavailableError before there is one, ShuttingDownError after."""

    @property
    def push(self) -> PushService:
        """Who is told of changes. Raises as `registry`."""

    @property
    def runtime(self) -> Runtime:
        """The clock of the wall, and randomness for secrets."""

    @property
    def gateway(self) -> Gateway:
        """The way to the other nodes, and to whatever changes something."""

    def not_ready(self) -> str:
        """Return why this node is not to be sent clients; empty if it is."""

    def status(self) -> native_pb2.StatusResponse:
        """Describe the node. Raises as `registry`."""

    def cluster_status(self, *, shards: bool) -> native_pb2.ClusterStatusResponse:
        """Describe the cluster as this node knows it. Raises as `registry`."""

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics and their media type, in the format the client likes best."""

    def push_delays(self) -> list[tuple[float, float]]:
        """Return how many pushes since the start took at most each of some times, in seconds."""
