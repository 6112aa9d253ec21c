"""Programs that use the production SDK, and what they know of their own doing.

Each life of a client process is a `Life`: what it asked for, what was acknowledged, and what it
therefore expects to find in the registry for as long as it lives.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from ssgovern.client.registration import Registration
from ssgovern.client.registry import Registry, connect
from ssgovern.client.subscription import PrefixSubscription, Subscription
from ssgovern.errors import ErrorCode, SsGovernError
from ssgovern.model import DEFAULT_GROUP, DEFAULT_NAMESPACE, Instance, ServiceKey
from ssgovern.node.node import Node
from ssgovern.sim.claims import Claims
from ssgovern.sim.delivery import check_delivered
from ssgovern.sim.followers import Follower, check_list, check_listing, check_read, told_of
from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.scenario import ClientPlan

T = TypeVar("T")

NODE_ADDRESS = "node:7420"
_WAITING_SHARE = 0.3
"""Of those who deregister: they wait until every subscriber knows."""

# What a caller may be told while things fail. Everything else would be a fault of ours.
_EXCUSES = frozenset(
    {
        ErrorCode.UNAVAILABLE,
        ErrorCode.DEADLINE_EXCEEDED,
        ErrorCode.OVERLOADED,
        ErrorCode.DISK_FULL,
        ErrorCode.SHUTTING_DOWN,
        ErrorCode.SESSION_UNKNOWN,
        ErrorCode.SHARD_MOVED,
        ErrorCode.SHARD_UNAVAILABLE,
        ErrorCode.OUTCOME_UNKNOWN,
    }
)
_FOREIGN = frozenset({ErrorCode.NOT_OWNER, ErrorCode.NOT_FOUND, ErrorCode.REVISION_CONFLICT})


class Stage:
    """What the harness tells its clients."""

    def __init__(
        self,
        checker: Claims,
        services: tuple[str, ...],
        change_client: Callable[[Registry], None],
        addresses: tuple[str, ...] = (NODE_ADDRESS,),
    ) -> None:
        self.checker = checker
        self.addresses = addresses
        """Nodes that clients are told of."""
        self.services = services
        self.change_client = change_client
        """What a mutant does to a client before it is used."""
        self.is_writing = True
        self.is_calm = False
        """Faults have ended."""
        self.lives: dict[str, Life] = {}
        """The present life of each client that uses the SDK."""
        self.touched: dict[tuple[ServiceKey, str], None] = {}
        """Instances that an operator has taken from their owners."""
        self.nodes: Callable[[], Iterable[Node]] = tuple
        """Those that run now."""
        self.operations = 0
        self.failures = 0
        self.delivered = 0
        """How often all live subscribers were said to have a change."""

    def is_held(self, session_id: bytes, key: ServiceKey, name: str) -> bool:
        """Tell whether a session's client knows that it has an instance."""
        return any(
            life.session_id == session_id and life.expected.get((key, name)) is not None
            for life in self.lives.values()
        )


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an acknowledged registration looks like."""

    weight: float
    metadata: dict[str, str]
    ephemeral: bool


def key_of(service: str) -> ServiceKey:
    return ServiceKey(DEFAULT_NAMESPACE, DEFAULT_GROUP, service)


class Life:
    """One life of a process that uses the SDK."""

    def __init__(self, plan: ClientPlan, stage: Stage, runtime: SimRuntime) -> None:
        self.plan = plan
        self.stage = stage
        self.checker = stage.checker
        self.runtime = runtime
        self.incarnation = runtime.process.incarnation
        # Not the runtime's: what the program draws must not shift what the SDK draws.
        self.rng = random.Random(f"{runtime.process.world.seed}/{plan.name}/{self.incarnation}/use")
        self.registry: Registry = connect(
            self._seeds(),
            client_name=plan.name,
            cache_dir="lists" if plan.has_cache else None,
            timeout=self.rng.choice([1.0, 5.0]),
            runtime=runtime,
        )
        # Of its own: waiting or not shall not shift the rest of what the program draws.
        self._waiting_rng = random.Random(f"{runtime.process.world.seed}/{plan.name}/wait")
        stage.change_client(self.registry)
        self.expected: dict[tuple[ServiceKey, str], Wanted | None] = {}
        """By instance what was acknowledged; None: unknown, or gone."""
        self.registrations: dict[tuple[ServiceKey, str], Registration] = {}
        self.subscriptions: list[tuple[Subscription | PrefixSubscription, Follower]] = []
        self.successes_in_calm = 0
        self._counter = 0

    def _seeds(self) -> tuple[str, ...]:
        """Draw the nodes this life starts from: all that there are, or only some."""
        addresses = self.stage.addresses
        if len(addresses) == 1:
            return addresses
        return tuple(self.rng.sample(addresses, self.rng.randint(1, len(addresses))))

    @property
    def session_id(self) -> bytes:
        return bytes.fromhex(self.registry.session_id)

    async def run(self) -> None:
        """Use the registry until the process is told to end."""
        self.stage.lives[self.plan.name] = self
        stopping = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
        async with self.registry, asyncio.TaskGroup() as group:
            tasks = [group.create_task(program) for program in self._programs()]
            await stopping.wait()
            for task in tasks:
                task.cancel()
        left = sorted(task.get_name() for task in asyncio.all_tasks() if not task.done())
        # Besides the main coroutine that is running this.
        self.checker.expect(len(left) == 1, f"B1: {self.plan.name} left tasks behind: {left}")

    def _programs(self) -> Iterator[Coroutine[object, object, None]]:
        kind = self.plan.kind
        if kind != "watcher":
            yield self._use()
        if kind in ("watcher", "mixed"):
            yield self._follow_one()
            yield self._follow_many()
        if kind == "watcher":
            yield self._read_for_ever()

    # --- writing and reading ---------------------------------------------------------------

    async def _use(self) -> None:
        while True:
            await asyncio.sleep(self.rng.expovariate(1.0 / self.plan.pace_s))
            draw = self.rng.random()
            if not self.stage.is_writing or draw < 0.2:
                await self._read()
            elif self.plan.kind == "operator":
                await self._operate()
            elif draw < 0.6 or not self.registrations:
                await self._register()
            elif draw < 0.8:
                await self._update()
            else:
                await self._deregister()

    async def _read_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self.rng.expovariate(0.5 / self.plan.pace_s))
            await self._read()

    async def _attempt(
        self, what: Awaitable[T], *, may_be_foreign: Callable[[], bool] = bool
    ) -> T | SsGovernError:
        """Await a request; return its result, or the error a caller has to live with.

        `may_be_foreign`, asked afterwards: whether others may have had a hand in it.
        """
        stage = self.stage
        stage.operations += 1
        try:
            result = await what
        except SsGovernError as error:
            stage.failures += 1
            if error.code not in _EXCUSES and not (error.code in _FOREIGN and may_be_foreign()):
                self.checker.fail(f"{self.plan.name} was refused: {error!r}")
            return error
        if stage.is_calm:
            self.successes_in_calm += 1
        return result

    def _service(self) -> str:
        return self.rng.choice(self.stage.services)

    def _draw_instance(self) -> tuple[ServiceKey, str, Wanted]:
        """Draw something to register; from now on the registry may hold it."""
        self._counter += 1
        rng = self.rng
        key = key_of(self._service())
        life = "" if self.plan.reuses_ids else f".{self.incarnation}"
        name = f"{self.plan.name}{life}-{rng.randrange(3)}"
        wanted = Wanted(
            weight=float(rng.randrange(100)),
            metadata={"n": str(self._counter), "pad": "x" * rng.choice([0, 0, 10, 300, 2000])},
            ephemeral=rng.random() < 0.8,
        )
        self.checker.may_register(key, name, self.session_id)
        self.expected[key, name] = None
        return key, name, wanted

    async def _register_some(self) -> None:
        drawn = [self._draw_instance() for _ in range(self.rng.randint(2, 4))]
        # The same one twice would be refused: which of the two was meant?
        wanted = {(key, name): wanted for key, name, wanted in drawn}
        floors = {key: self.checker.floor(key) for key, _ in wanted}
        outcomes = await self._attempt(
            self.registry.register_all(
                (
                    key.service,
                    Instance(
                        id=name,
                        host=self.plan.name,
                        port=80,
                        weight=each.weight,
                        metadata=each.metadata,
                        ephemeral=each.ephemeral,
                    ),
                )
                for (key, name), each in wanted.items()
            )
        )
        if isinstance(outcomes, SsGovernError):
            return
        for ((key, name), each), outcome in zip(wanted.items(), outcomes, strict=True):
            if isinstance(outcome, Registration):
                self._registered(key, name, each, outcome, floors[key])

    def _registered(
        self,
        key: ServiceKey,
        name: str,
        wanted: Wanted,
        registration: Registration,
        floor: tuple[int, int],
    ) -> None:
        self.checker.is_committed(key, name, registration.revision, floor, "registered")
        self.expected[key, name] = wanted
        self.registrations[key, name] = registration

    async def _register(self) -> None:
        if self.rng.random() < 0.15:
            await self._register_some()
            return
        key, name, wanted = self._draw_instance()
        floor = self.checker.floor(key)
        result = await self._attempt(
            self.registry.register(
                key.service,
                port=80,
                host=self.plan.name,
                instance_id=name,
                weight=wanted.weight,
                metadata=wanted.metadata,
                ephemeral=wanted.ephemeral,
            )
        )
        if isinstance(result, Registration):
            self._registered(key, name, wanted, result, floor)

    async def _deregister(self) -> None:
        key, name = self.rng.choice(list(self.registrations))
        del self.registrations[key, name]
        self.expected[key, name] = None
        floor = self.checker.floor(key)
        waits = self._waiting_rng.random() < _WAITING_SHARE
        result = await self._attempt(
            self._release(key, name) if waits else self.registry.deregister(key.service, name),
            may_be_foreign=lambda: self._may_be_foreign(key, name),
        )
        if isinstance(result, bool):
            self.checker.is_deregistered(key, name, self.session_id, floor)

    async def _release(self, key: ServiceKey, name: str) -> bool:
        """Deregister and wait until every subscriber knows; see whether it does."""
        stage = self.stage
        release = await self.registry.release(key.service, name)
        assert release.gone is not None, "that was asked for"
        stage.delivered += release.gone.complete
        check_delivered(self.checker, self.registry, release.gone, stage.nodes(), stage.lives)
        return release.removed

    async def _update(self) -> None:
        key, name = self.rng.choice(list(self.registrations))
        before = self.expected[key, name]
        self.expected[key, name] = None
        self._counter += 1
        weight, floor = float(self.rng.randrange(100)), self.checker.floor(key)
        revision = self.registrations[key, name].revision if self.rng.random() < 0.2 else 0
        result = await self._attempt(
            self.registry.update(
                key.service,
                name,
                weight=weight,
                metadata_set={"n": str(self._counter)},
                if_revision=revision,
            ),
            may_be_foreign=lambda: (
                before is None or revision > 0 or self._may_be_foreign(key, name)
            ),
        )
        if isinstance(result, Instance):
            self._check_updated(key, name, result, floor)
            if before is not None:
                metadata = {**before.metadata, "n": str(self._counter)}
                self.expected[key, name] = Wanted(weight, metadata, before.ephemeral)
        elif result.code is ErrorCode.REVISION_CONFLICT:
            self.expected[key, name] = before

    def _check_updated(
        self, key: ServiceKey, name: str, result: Instance, floor: tuple[int, int]
    ) -> None:
        self.checker.is_committed(key, name, result.revision, floor, "updated")
        states = self.checker.ledger.states_at(key, result.revision)
        self.checker.expect(
            any(state.get(name) == result for state in states),
            f"R2: {key} {name} was answered as {result!r}",
        )

    def _may_be_foreign(self, key: ServiceKey, name: str) -> bool:
        """Whether somebody else may have taken or removed this instance."""
        lost = self.checker.ledger.losses > 0
        return lost or self.plan.reuses_ids or (key, name) in self.stage.touched

    async def _operate(self) -> None:
        """What an operator does to the instances of others."""
        key = key_of(self._service())
        history = self.checker.ledger.shard(key).services.get(key)
        if history is None or not history.now:
            await self._read()
            return
        name = self.rng.choice(sorted(history.now))
        floor = self.checker.floor(key)
        if self.rng.random() < 0.3:
            self.stage.touched[key, name] = None
            await self._attempt(
                self.registry.deregister(key.service, name, any_owner=True),
                may_be_foreign=lambda: True,
            )
            return
        result = await self._attempt(
            self.registry.update(
                key.service, name, enabled=self.rng.random() < 0.5, any_owner=True
            ),
            may_be_foreign=lambda: True,
        )
        if isinstance(result, Instance):
            self._check_updated(key, name, result, floor)

    async def _read(self) -> None:
        if self.rng.random() < 0.2:
            keys = [key_of(service) for service in self.stage.services]
            floors = {key: self.checker.floor(key) for key in keys}
            found = await self._attempt(self.registry.services())
            if not isinstance(found, SsGovernError):
                listed = [summary.key for summary in found]
                check_listing(self.checker, self.plan.name, floors, listed)
            return
        key = key_of(self._service())
        floor = self.checker.floor(key)
        result = await self._attempt(self.registry.get(key.service))
        if not isinstance(result, SsGovernError):
            check_read(self.checker, self.plan.name, key, floor, result)

    # --- following -------------------------------------------------------------------------

    async def _follow_one(self) -> None:
        """One service after another, read at some pace."""
        while True:
            key = key_of(self._service())
            subscription = self.registry.subscribe(key.service)
            follower = Follower(self.checker, self.plan.name)
            opened = await self._attempt(subscription.open())
            if isinstance(opened, SsGovernError):
                await asyncio.sleep(0.1)
                continue
            follower.begin(key, subscription.position, subscription.instances)
            await self._follow(subscription, follower)

    async def _follow_many(self) -> None:
        """All services of a prefix."""
        while True:
            prefix = self.rng.choice(["", "orders", self._service()])
            subscription = self.registry.subscribe_prefix(prefix)
            follower = Follower(self.checker, self.plan.name)
            opened = await self._attempt(subscription.open())
            if isinstance(opened, SsGovernError):
                await asyncio.sleep(0.1)
                continue
            for key, (position, instances) in told_of(subscription).items():
                follower.begin(key, position, instances)
            await self._follow(subscription, follower)

    async def _follow(
        self, subscription: Subscription | PrefixSubscription, follower: Follower
    ) -> None:
        loop = asyncio.get_running_loop()
        self.subscriptions.append((subscription, follower))
        until = loop.time() + self.rng.choice([1.0, 5.0, 1000.0])
        slowness_s = self.rng.choice([0.0, 0.0, 0.05, 1.0])
        while loop.time() < until or not self.stage.is_writing:
            try:
                async with asyncio.timeout(0.5):
                    change = await subscription.next_change()
            except TimeoutError:
                change = None
            if change is not None:
                follower.change(change)
            for key, (position, instances) in told_of(subscription).items():
                listed = {instance.id: instance for instance in instances}
                check_list(self.checker, self.plan.name, key, position.revision, listed)
            if slowness_s and self.stage.is_writing:
                await asyncio.sleep(slowness_s)
        subscription.close()
        self.subscriptions.remove((subscription, follower))
