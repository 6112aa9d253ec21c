"""What the controller's driver asks of consensus and of the links between nodes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from ssgovern.model import NodeId


class AgreedLog(Protocol):
    """What of `RaftDriver` is used here; `controller.log.MetadataLog` says more of `append`."""

    @property
    def term(self) -> int: ...

    @property
    def leader_id(self) -> NodeId | None: ...

    @property
    def is_leader(self) -> bool: ...

    @property
    def confirmed_at(self) -> float: ...

    @property
    def candidates(self) -> tuple[NodeId, ...]: ...

    @property
    def learners(self) -> tuple[NodeId, ...]: ...

    async def append(self, body: bytes, *, after: int) -> int: ...

    async def change_members(
        self, voters: Iterable[NodeId], learners: Iterable[NodeId] = ()
    ) -> int: ...

    async def transfer(self, target: NodeId) -> bool: ...


class PushLinks(Protocol):
    """What of `PeerLinks` is used here."""

    def send(self, node: NodeId, type_: int, body: bytes) -> bool: ...

    def is_refused(self, node: NodeId) -> bool: ...
