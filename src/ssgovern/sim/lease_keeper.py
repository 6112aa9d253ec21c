"""A client that registers for leases, as the HTTP port does, and what it was promised.

It renews some of its leases in time, gives others back and abandons others. What it was promised
is judged by `Promises` against the log, in world time and by nothing that a node computes: a
lease that was renewed does not end before its time to live is over, whatever became of its
shard's primary; one that nobody renews does, soon after.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from ssgovern import limits
from ssgovern.client.leasing import Lease, Leasing
from ssgovern.client.registry import connect
from ssgovern.errors import ErrorCode, SsGovernError
from ssgovern.model import Instance, ServiceKey
from ssgovern.sim.claims import Claims
from ssgovern.sim.raw_clients import RAW_CLIENTS, RawClient
from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.scenario import ClientPlan
from ssgovern.sim.workload import _EXCUSES, Stage, key_of
from ssgovern.wire.pb import native_pb2

_TTLS_MS = (limits.LEASE_TTL_MS_MIN, 4_000, 8_000, 12_000)
_HELD_MAX = 4
_LOOK_S = 0.2


@dataclass(slots=True)
class Held:
    """One lease, and the instance it keeps."""

    lease: Lease
    key: ServiceKey
    name: str
    renew_after: float
    """The share of its time to live after which it is renewed."""
    renewed_s: float
    """When, by the client's clock."""


class LeaseKeeper(RawClient):
    """Keeps a few leases; no two of its instances have the same name."""

    def __init__(self, plan: ClientPlan, stage: Stage, runtime: SimRuntime) -> None:
        super().__init__(plan, stage, runtime)
        self.promises = stage.checker.promises
        self.held: dict[bytes, Held] = {}
        self._number = 0
        self._registry = connect(
            stage.addresses, client_name=plan.name, timeout=2.0, runtime=runtime
        )
        self._leasing = Leasing(self._registry)

    async def run(self) -> None:
        async with self._registry, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._renew_for_ever())
            while True:
                await asyncio.sleep(self.rng.expovariate(1.0 / self.plan.pace_s))
                if self.stage.is_writing:
                    await self._do_something()

    def _deadline(self, seconds: float = 2.0) -> float:
        return asyncio.get_running_loop().time() + seconds

    async def _do_something(self) -> None:
        draw = self.rng.random()
        if len(self.held) < _HELD_MAX and draw < 0.5:
            await self._register()
        elif self.held and draw < 0.6:
            await self._deregister(self.rng.choice(list(self.held)))
        elif self.held and draw < 0.8:
            await self._update(self.rng.choice(list(self.held)))
        elif self.held and draw < 0.85 and not self.stage.is_calm:
            # It is never renewed again.
            del self.held[self.rng.choice(list(self.held))]

    async def _register(self) -> None:
        self._number += 1
        rng, checker = self.rng, self.checker
        name = f"{self.plan.name}.{self.runtime.process.incarnation}-{self._number}"
        key = key_of(rng.choice(self.stage.services))
        lease = Lease(self.runtime.random_bytes(16), rng.choice(_TTLS_MS))
        checker.may_register(key, name, lease.id)
        floor, sent = checker.floor(key), checker.world.now
        instance = Instance(id=name, host=self.plan.name, port=80)
        self.promises.asked(lease)
        try:
            kept = await self._leasing.register(key, instance, lease, self._deadline())
        except SsGovernError as error:
            self._excuse(error)
            return
        finally:
            self.promises.asked(lease)
        checker.is_committed(key, name, kept.position.revision, floor, "registered")
        self.promises.promised(lease, sent)
        renewed_s = asyncio.get_running_loop().time()
        self.held[lease.id] = Held(lease, key, name, rng.uniform(0.3, 0.7), renewed_s)

    async def _deregister(self, lease_id: bytes) -> None:
        held = self.held.pop(lease_id)
        self.promises.taken_back(held.lease)
        floor = self.checker.floor(held.key)
        try:
            await self._leasing.deregister(held.key, held.name, held.lease, self._deadline())
        except SsGovernError as error:
            self._excuse(error, held)
        else:
            self.checker.is_deregistered(held.key, held.name, lease_id, floor)

    async def _update(self, lease_id: bytes) -> None:
        held = self.held[lease_id]
        change = native_pb2.InstanceChange(weight=float(self.rng.randrange(100)))
        try:
            await self._leasing.update(held.key, held.name, change, held.lease, self._deadline())
        except SsGovernError as error:
            self._excuse(error, held)

    async def _renew_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_LOOK_S)
            now = loop.time()
            due = [
                held
                for held in self.held.values()
                if now - held.renewed_s >= held.renew_after * held.lease.ttl_ms / 1000.0
            ]
            if due:
                await self._renew(due)

    async def _renew(self, due: list[Held]) -> None:
        sent, losses = self.checker.world.now, self.checker.ledger.losses
        sent_s = asyncio.get_running_loop().time()
        for held in due:
            self.promises.asked(held.lease)
        try:
            outcomes = await self._leasing.renew_all(
                [(held.key, held.lease) for held in due], self._deadline(1.0)
            )
        except SsGovernError as error:
            self._excuse(error)
            return
        for held, outcome in zip(due, outcomes, strict=True):
            self.promises.asked(held.lease)
            if held.lease.id not in self.held:
                continue
            if isinstance(outcome, SsGovernError):
                self._excuse(outcome)
            elif outcome:
                self.promises.promised(held.lease, sent)
                held.renewed_s = sent_s
            else:
                del self.held[held.lease.id]
                if losses == self.checker.ledger.losses == 0 and not self._is_touched(held):
                    self.promises.is_unknown(held.lease)

    def _is_touched(self, held: Held) -> bool:
        return (held.key, held.name) in self.stage.touched

    def _excuse(self, error: SsGovernError, held: Held | None = None) -> None:
        """Take an error for one that the world is to blame for, or end the run."""
        # What an operator removed, or what is gone with its lease, is not found.
        is_gone = held is not None and error.code is ErrorCode.NOT_FOUND
        if error.code not in _EXCUSES and not is_gone:
            self.checker.fail(f"{self.plan.name} was refused: {error!r}")

    def check_converged(self) -> None:
        """D1: what a lease keeps that is renewed is there."""
        checker = self.checker
        for held in self.held.values():
            owned = checker.ledger.shard(held.key).service(held.key).now.get(held.name)
            is_there = owned is not None and owned.session_id == held.lease.id
            if not (is_there or self._is_touched(held) or checker.ledger.losses):
                checker.fail(
                    f"D1: {self.plan.name} renews the lease of {held.key} {held.name}; "
                    f"there is {owned!r}"
                )


CLIENTS: Mapping[str, type[RawClient]] = {**RAW_CLIENTS, "lease_keeper": LeaseKeeper}
"""All clients that are not merely users of the SDK, by kind."""


def may_still_live(checker: Claims, key: ServiceKey, lease_id: bytes, hold_s: float) -> bool:
    """Tell whether what a lease keeps may be there although nobody renews it any more."""
    return checker.promises.may_still_live(checker.ledger.shard(key), lease_id, hold_s)
