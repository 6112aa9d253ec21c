"""The SDK's face: what a program does with the registry.

Knows names, instances and how requests are worded; dialling and retries are `Session`'s, lists
are `Watches`'. Values are checked here, before anything is sent, by the same rules as at the
node. Every request has a deadline; every method may be called by many tasks at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

from ssgovern import limits
from ssgovern.client.addresses import parse_addresses
from ssgovern.client.administration import Administration
from ssgovern.client.balancer import Strategy
from ssgovern.client.cache import Cache
from ssgovern.client.credentials import TokenSource
from ssgovern.client.holdings import Holdings
from ssgovern.client.listing import list_services
from ssgovern.client.observing import Observing
from ssgovern.client.registering import Registering
from ssgovern.client.registration import Registration, check_pairs, check_revision, checked
from ssgovern.client.releasing import Releasing
from ssgovern.client.session import Session
from ssgovern.client.subscription import PrefixSubscription, Subscription
from ssgovern.client.tls import TlsOption, dialler_of
from ssgovern.client.values import ConnectionState, NodeStatus, ServiceSummary
from ssgovern.client.watches import Watches
from ssgovern.errors import (
    ClosedError,
    NotFoundError,
    SsGovernError,
)
from ssgovern.model import (
    DEFAULT_GROUP,
    DEFAULT_NAMESPACE,
    Instance,
    Pattern,
    ServiceKey,
    Status,
    check_key,
    check_name,
    check_prefix,
    check_text,
    check_weight,
)
from ssgovern.runtime import Runtime
from ssgovern.runtime.real import RealRuntime
from ssgovern.version import __version__
from ssgovern.wire.codec import (
    instance_from_wire,
    key_to_wire,
)
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import model_pb2, native_pb2

_logger = logging.getLogger("ssgovern.client")

CACHE_CLOSE_TIMEOUT_S = 5.0

OnConnection = Callable[[ConnectionState], None]


class Registry(Administration, Observing, Releasing):
    """A client of the registry. Made by `connect`, used with `async with`.

    Entering it does not wait for a node: the first request does, up to its deadline.
    """

    def __init__(
        self,
        addresses: str | Sequence[str],
        *,
        namespace: str,
        client_name: str,
        cache_dir: str | os.PathLike[str] | None,
        zone: str,
        timeout: float,
        on_connection: OnConnection | None,
        runtime: Runtime,
        tls: TlsOption = False,
        token: TokenSource | None = None,
    ) -> None:
        check_name("namespace", namespace)
        check_text("client_name", client_name, limits.CLIENT_NAME_BYTES_MAX)
        if zone:
            check_text("zone", zone, limits.ZONE_BYTES_MAX)
        self.namespace = namespace
        self._addresses = parse_addresses(addresses)
        self._client_name = client_name
        self._cache_dir = None if cache_dir is None else os.fspath(cache_dir)
        self._zone = zone
        self._timeout_s = timeout
        self._on_connection = on_connection
        self._runtime = runtime
        self._holdings = Holdings()
        self._watches = Watches(runtime)
        self._session = Session(
            self._addresses,
            runtime=runtime,
            client_name=client_name,
            holdings=self._holdings,
            watches=self._watches,
            on_state=self._on_state,
            tls=dialler_of(tls),
            token=token,
        )
        self._upkeep: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._closed: asyncio.Event | None = None

    def __repr__(self) -> str:
        return f"<Registry namespace={self.namespace} {self._session!r}>"

    # --- its life --------------------------------------------------------------------------

    async def open(self) -> None:
        """Start to connect. `async with` calls it."""
        assert self._upkeep is None, "a registry is opened once; connect again"
        loop = asyncio.get_running_loop()
        if self._cache_dir is not None:
            await self._open_cache(self._cache_dir)
        self._session.start()
        self._upkeep = loop.create_task(self._session.run(), name="ssgovern upkeep")
        self._upkeep.add_done_callback(self._on_upkeep_ended)

    async def close(self) -> None:
        """End the session: its ephemeral instances go at once. Takes about a second at most.

        Lists of subscriptions stay readable; everything that waits raises ClosedError.
        """
        if self._closed is not None:
            await self._closed.wait()
            return
        self._closed = asyncio.Event()
        error = ClosedError("the client was closed")
        try:
            await self._session.say_goodbye()
        finally:
            self._session.close(error)
            self._watches.close(error)
            if self._watches.cache is not None:
                self._watches.cache.stop()
            try:
                await self._end_tasks()
            finally:
                # Also if who closes was cancelled: others must not wait for it.
                self._closed.set()

    async def _end_tasks(self) -> None:
        if self._upkeep is not None:
            self._upkeep.cancel()
            await _ended(self._upkeep)
        if self._keeping is not None:
            try:
                async with asyncio.timeout(CACHE_CLOSE_TIMEOUT_S):
                    await asyncio.shield(self._keeping)
            except TimeoutError:
                _logger.warning("the disk is slow, the last lists were not kept")
                self._keeping.cancel()
                await _ended(self._keeping)

    async def _open_cache(self, path: str) -> None:
        try:
            cache = Cache(self._runtime.open_disk(path), self._runtime)
            await cache.open()
        except OSError as error:
            _logger.warning("lists are not kept in %s: %s", path, error)
            return
        self._watches.cache = cache
        self._keeping = asyncio.get_running_loop().create_task(cache.run(), name="ssgovern lists")

    def _on_upkeep_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (failure := task.exception()) is not None:
            # A fault of our own. Whoever waits must not wait for ever.
            _logger.critical("the client stopped", exc_info=failure)
            error = ClosedError(f"the client stopped: {failure!r}")
            self._session.close(error)
            self._watches.close(error)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def connection(self) -> ConnectionState:
        """Whether there is a node to talk to, and since when it is so."""
        return self._session.state

    @property
    def session_id(self) -> str:
        """What nodes know this client by, in hexadecimal."""
        return self._session.id.hex()

    async def wait_connected(self, *, timeout: float | None = None) -> ConnectionState:
        """Wait until there is a node to talk to. Raises UnavailableError."""
        await self._session.connected(self._deadline(timeout))
        return self._session.state

    def _on_state(self, state: ConnectionState) -> None:
        if self._on_connection is not None:
            # By the loop: what the caller's code raises is not ours to handle.
            asyncio.get_running_loop().call_soon(self._on_connection, state)

    # --- registering -----------------------------------------------------------------------

    async def register(
        self,
        service: str,
        *,
        port: int,
        host: str | None = None,
        instance_id: str | None = None,
        group: str = DEFAULT_GROUP,
        ephemeral: bool = True,
        weight: float = 100.0,
        zone: str | None = None,
        version: str = "",
        metadata: Mapping[str, str] | None = None,
        status: Status = Status.UP,
        timeout: float | None = None,
    ) -> Registration:
        """Register an instance of this process and keep it registered until `close`.

        `host` None: the address from which this client reaches its node. `zone` None: the
        client's. `instance_id` None: `host:port`. An instance with the same id is replaced.
        """
        instance = Instance(
            id=instance_id or "",
            host=host or "",
            port=port,
            weight=weight,
            status=status,
            ephemeral=ephemeral,
            zone=self._zone if zone is None else zone,
            version=version,
            metadata={} if metadata is None else dict(metadata),
        )
        deadline = self._deadline(timeout)
        [outcome] = await self._register([(self._key(service, group), instance)], deadline)
        if isinstance(outcome, SsGovernError):
            raise outcome
        return outcome

    async def register_all(
        self,
        instances: Iterable[tuple[str, Instance]],
        *,
        group: str = DEFAULT_GROUP,
        timeout: float | None = None,
    ) -> list[Registration | SsGovernError]:
        """Register pairs of service and instance in few requests.

        Returns one outcome for each, in their order: one that is refused does not affect the
        others. An empty `id` or `host` is filled in as in `register`.
        """
        wanted = [(self._key(service, group), instance) for service, instance in instances]
        return await self._register(wanted, self._deadline(timeout))

    async def _register(
        self, wanted: Sequence[tuple[ServiceKey, Instance]], deadline: float
    ) -> list[Registration | SsGovernError]:
        if any(not instance.host for _, instance in wanted):
            local = (await self._session.connected(deadline)).local_host
            wanted = [
                (key, instance if instance.host else replace(instance, host=local))
                for key, instance in wanted
            ]
        wanted = [(key, checked(instance)) for key, instance in wanted]
        outcomes = await Registering(self._session, self._holdings).register(wanted, deadline)
        return [
            outcome
            if isinstance(outcome, SsGovernError)
            else Registration(self, key, replace(instance, revision=outcome), outcome)
            for (key, instance), outcome in zip(wanted, outcomes, strict=True)
        ]

    async def deregister(
        self,
        service: str,
        instance_id: str,
        *,
        group: str = DEFAULT_GROUP,
        any_owner: bool = False,
        if_revision: int = 0,
        timeout: float | None = None,
    ) -> bool:
        """Remove an instance; return whether there was one. None there is not an error.

        `any_owner`: also if another client registered it. `if_revision`: only if it was last
        changed at that revision, else RevisionConflictError; such a request is not repeated
        when a connection is lost, its outcome is then unknown (UnavailableError).
        """
        key = self._key(service, group)
        check_name("instance id", instance_id)
        check_revision(if_revision)
        deadline = self._deadline(timeout)
        response = await self._deregister(key, instance_id, any_owner, if_revision, deadline)
        return response.removed

    async def _deregister(
        self,
        key: ServiceKey,
        instance_id: str,
        any_owner: bool,
        if_revision: int,
        deadline: float,
    ) -> native_pb2.DeregisterResponse:
        if not if_revision:
            # Before it is sent: whatever becomes of the request, the caller wants it gone, and
            # a lost session must not bring it back.
            self._holdings.drop(key, instance_id)
        request = native_pb2.DeregisterRequest(
            service=key_to_wire(key),
            instance_id=instance_id,
            any_owner=any_owner,
            if_revision=if_revision,
        )
        response = await self._session.call(
            MessageType.DEREGISTER,
            request,
            native_pb2.DeregisterResponse,
            deadline,
            repeatable=not if_revision,
            key=key,
        )
        self._holdings.drop(key, instance_id)
        return response

    async def update(
        self,
        service: str,
        instance_id: str,
        *,
        group: str = DEFAULT_GROUP,
        weight: float | None = None,
        status: Status | None = None,
        enabled: bool | None = None,
        metadata: Mapping[str, str] | None = None,
        metadata_set: Mapping[str, str] | None = None,
        metadata_remove: Iterable[str] = (),
        any_owner: bool = False,
        if_revision: int = 0,
        timeout: float | None = None,
    ) -> Instance:
        """Change fields of an instance and return it as it is now; what is not named stays.

        `metadata` replaces all pairs; `metadata_remove` and `metadata_set` change some.
        `enabled` is the operator's switch and survives that the instance registers again.
        `any_owner` and `if_revision` as in `deregister`.
        """
        key = self._key(service, group)
        check_name("instance id", instance_id)
        check_revision(if_revision)
        if weight is not None:
            check_weight(weight)
        pairs = {**(metadata or {}), **(metadata_set or {})}
        check_pairs(pairs)
        change = native_pb2.InstanceChange(
            weight=weight,
            status=None if status is None else model_pb2.Status.Name(status),
            out_of_service=None if enabled is None else not enabled,
            metadata_clear=metadata is not None,
            metadata_remove=list(metadata_remove),
            metadata_set=pairs,
        )
        request = native_pb2.UpdateRequest(
            service=key_to_wire(key),
            instance_id=instance_id,
            any_owner=any_owner,
            if_revision=if_revision,
            change=change,
        )
        deadline = self._deadline(timeout)
        try:
            response = await self._call_update(request, key, deadline)
        except NotFoundError:
            held = self._holdings.held(key, instance_id)
            if held is None or if_revision or self._session.map.is_single:
                raise
            # The session ended at the shard's primary while nothing reached it, and what it
            # owned is not back yet: the caller is not to see that.
            [outcome] = await self._register([(key, held)], deadline)
            if isinstance(outcome, SsGovernError):
                raise outcome from None
            response = await self._call_update(request, key, deadline)
        instance = instance_from_wire(response.instance)
        if self._holdings.held(key, instance_id) is not None:
            self._holdings.hold(key, instance)
        return instance

    async def _call_update(
        self, request: native_pb2.UpdateRequest, key: ServiceKey, deadline: float
    ) -> native_pb2.UpdateResponse:
        return await self._session.call(
            MessageType.UPDATE,
            request,
            native_pb2.UpdateResponse,
            deadline,
            repeatable=not request.if_revision,
            key=key,
        )

    # --- discovering -----------------------------------------------------------------------

    async def get(
        self,
        service: str,
        *,
        group: str = DEFAULT_GROUP,
        stale_ok: bool = False,
        timeout: float | None = None,
    ) -> tuple[Instance, ...]:
        """Read the instances of a service from a node, in the order of their ids.

        The answer is the newest, also while a node fails over; with `stale_ok` any node that
        has the service may answer, with what it knows. For a list that is there while no node
        answers, and for one read often: `subscribe`.
        """
        key = self._key(service, group)
        deadline = self._deadline(timeout)
        request = native_pb2.GetRequest(service=key_to_wire(key), replica_too=stale_ok)
        kind, answer = MessageType.GET, native_pb2.GetResponse
        if stale_ok:
            response = await self._session.read_stale(kind, request, answer, deadline, key)
        else:
            response = await self._session.call(
                kind, request, answer, deadline, repeatable=True, key=key
            )
        instances = map(instance_from_wire, response.instances)
        return tuple(sorted(instances, key=lambda instance: instance.id))

    async def services(
        self, prefix: str = "", *, group: str | None = None, timeout: float | None = None
    ) -> list[ServiceSummary]:
        """List the services that have instances; `group` None: of all groups.

        Read page by page, so it is not the state of one moment. `timeout` is for each page.
        """
        check_prefix("prefix", prefix)
        if group is not None:
            check_name("group", group)
        seconds = self._timeout_s if timeout is None else timeout
        return await list_services(self._session, self.namespace, group or "", prefix, seconds)

    def subscribe(
        self,
        service: str,
        *,
        group: str = DEFAULT_GROUP,
        strategy: Strategy | str = Strategy.WEIGHTED_RANDOM,
        zone: str | None = None,
        timeout: float | None = None,
    ) -> Subscription:
        """Follow a service: `async with` it. The service need not exist yet.

        Many subscriptions to one service share what the node sends.
        """
        self._session.check_started()
        return Subscription(
            self._watches,
            self._key(service, group),
            self._runtime,
            timeout_s=self._timeout_s if timeout is None else timeout,
            zone=self._zone if zone is None else zone,
            strategy=Strategy(strategy),
        )

    def subscribe_prefix(
        self, prefix: str, *, group: str = DEFAULT_GROUP, timeout: float | None = None
    ) -> PrefixSubscription:
        """Follow all services of a group whose names start with a prefix; empty: all."""
        self._session.check_started()
        check_name("group", group)
        check_prefix("prefix", prefix)
        return PrefixSubscription(
            self._watches,
            Pattern(self.namespace, group, prefix),
            self._runtime,
            timeout_s=self._timeout_s if timeout is None else timeout,
        )

    async def status(self, *, timeout: float | None = None) -> NodeStatus:
        """Ask the node about itself."""
        response = await self._session.call(
            MessageType.STATUS,
            native_pb2.StatusRequest(),
            native_pb2.StatusResponse,
            self._deadline(timeout),
            repeatable=True,
        )
        return NodeStatus(
            **{field.name: getattr(response, field.name) for field in response.DESCRIPTOR.fields}
        )

    # --- wording ---------------------------------------------------------------------------

    def _key(self, service: str, group: str) -> ServiceKey:
        key = ServiceKey(self.namespace, group, service)
        check_key(key)
        return key


def connect(
    addresses: str | Sequence[str] = "127.0.0.1:7420",
    *,
    namespace: str = DEFAULT_NAMESPACE,
    client_name: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    zone: str = "",
    timeout: float = 10.0,
    on_connection: OnConnection | None = None,
    runtime: Runtime | None = None,
    tls: TlsOption = False,
    token: TokenSource | None = None,
) -> Registry:
    """Return a client of the registry, to be used with `async with`.

    `addresses`: nodes to start from, `host:port`. `cache_dir`: a directory of this client alone
    in which it keeps the last good lists. `zone`: where this process runs. `timeout`: seconds
    for each request, unless it names its own: long enough to see through that a node fails and
    another takes over. `on_connection` is called with each new state of
    the connection. `tls`: True for CAs of the system, the path of a CA's file, or a `Tls`; raises
    InvalidArgumentError if what it names is of no use. `token`: shows who asks, where access is
    controlled; None: that of the environment, SS_GOVERN_TOKEN or the file SS_GOVERN_TOKEN_FILE.
    """
    return Registry(
        addresses,
        namespace=namespace,
        client_name=f"ssgovern-python/{__version__}" if client_name is None else client_name,
        cache_dir=cache_dir,
        zone=zone,
        timeout=timeout,
        on_connection=on_connection,
        runtime=RealRuntime() if runtime is None else runtime,
        tls=tls,
        token=token,
    )


async def _ended(task: asyncio.Task[None]) -> None:
    """Wait for a cancelled task to be gone; how it ended was reported where it failed."""
    done = asyncio.Event()
    task.add_done_callback(lambda _: done.set())
    await done.wait()
