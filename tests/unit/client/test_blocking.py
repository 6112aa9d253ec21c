"""The façade without `async`, against a fake node on a real loop in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest
from fake_node import FakeConnection, FakeNode
from stage import ids, instance, key

import ssgovern.blocking
from ssgovern.errors import (
    ClosedError,
    InvalidArgumentError,
    SsGovernError,
    UnavailableError,
)

ORDERS = key("orders")
TIMEOUT_S = 20.0


class NodeThread:
    """A fake node that serves on a free port of this machine."""

    def __init__(self) -> None:
        self.node = FakeNode()
        self.address = ""
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fake node")
        self._thread.start()
        assert self._ready.wait(TIMEOUT_S)

    def _run(self) -> None:
        async def serve() -> None:
            self._stop = asyncio.Event()
            server = await self._loop.create_server(
                lambda: FakeConnection(self.node), "127.0.0.1", 0
            )
            self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            self._ready.set()
            await self._stop.wait()
            server.close()
            for connection in list(self.node.connections):
                connection.abort()
            await asyncio.sleep(0)

        self._loop.run_until_complete(serve())
        self._loop.close()

    def do(self, deed: Callable[..., object], *args: object) -> None:
        self._loop.call_soon_threadsafe(deed, *args)

    def stop(self) -> None:
        if self._thread.is_alive():
            self.do(self._stop.set)
            self._thread.join(TIMEOUT_S)


@pytest.fixture
def served() -> Iterator[NodeThread]:
    threads = threading.active_count()
    node = NodeThread()
    yield node
    node.stop()
    assert threading.active_count() == threads, threading.enumerate()


def connect(node: NodeThread, **options: object) -> ssgovern.blocking.Registry:
    return ssgovern.blocking.connect(node.address, namespace="test", **options)  # type: ignore[arg-type]


def test_the_same_calls_wait_for_their_results(served: NodeThread) -> None:
    """Register, update, read, list, deregister: each returns what its twin would."""
    with connect(served, zone="z") as registry:
        assert registry.wait_connected().connected
        with registry.register("orders", port=8080, metadata={"a": "b"}) as handle:
            assert handle.instance.address == "127.0.0.1:8080"
            assert handle.update(weight=5.0).weight == 5.0
            assert [each.weight for each in registry.get("orders")] == [5.0]
            [line] = registry.services("ord")
            assert (line.service, line.instances) == ("orders", 1)
        assert registry.get("orders") == ()
        outcomes = registry.register_all([("orders", instance(n)) for n in range(3)])
        assert [type(outcome) for outcome in outcomes] == [ssgovern.blocking.Registration] * 3
        assert registry.deregister("orders", "i0")
        assert registry.update("orders", "i1", weight=2.0).weight == 2.0
        assert registry.status().node_name == "fake"
        with pytest.raises(InvalidArgumentError):
            registry.get("or ders")
    assert not served.node.sessions


def test_operators_need_no_event_loop_either(served: NodeThread) -> None:
    """Whatever the asynchronous client can ask of a cluster, this one can."""
    with connect(served) as registry:
        assert registry.cluster_status(shards=True).shards
        assert registry.cluster_leave(2) == "decided: leave"
        assert registry.cluster_stay(2) == "decided: stay"
        assert registry.cluster_transfer(7, 3) == "decided: transfer"
        assert registry.cluster_transfer_controller(3) == "decided: transfer_controller"
        assert registry.cluster_settings(copies=2) == "decided: settings"
        assert registry.cluster_candidates(add=4) == "decided: candidates"
        assert registry.cluster_unclean(7, 3) == "decided: unclean"
        asked = {name for name in dir(ssgovern.Registry) if name.startswith("cluster_")}
        assert asked <= set(dir(registry))


def test_subscriptions_are_contexts_and_iterators(served: NodeThread) -> None:
    """Lists are there at entry, changes come by iteration, choosing works, also after the end."""
    served.node.put(ORDERS, instance(1))
    with connect(served) as registry:
        with registry.subscribe("orders") as orders:
            assert ids(orders.instances) == ["i1"]
            assert orders.is_current
            assert orders.stale_since is None
            with pytest.raises(TimeoutError):
                orders.next_change(timeout=0.01)
            served.do(served.node.put, ORDERS, instance(2))
            change = next(iter(orders))
            assert ids(change.added) == ["i2"]
            orders.report_failure(orders.instances[0])
            assert {orders.choose().id for _ in range(20)} == {"i2"}
            orders.report_success(orders.instances[0])
        with registry.subscribe_prefix("or") as many:
            assert many.services == ("orders",)
            assert ids(many.instances("orders")) == ["i1", "i2"]
    assert ids(orders.instances) == ["i1", "i2"]
    assert orders.choose("round_robin").id in ("i1", "i2")
    assert list(orders) == []


def test_close_from_another_thread_ends_every_wait(served: NodeThread) -> None:
    """Threads that wait for a change or an answer are let go when the client is closed."""
    served.node.put(ORDERS, instance(1))
    registry = connect(served)
    registry.open()
    orders = registry.subscribe("orders")
    orders.open()
    ended: list[object] = []

    def follow() -> None:
        ended.append(list(orders))

    def ask() -> None:
        served.node.ignores_all = True
        try:
            registry.get("orders", timeout=60)
        except ClosedError as error:
            ended.append(error)

    threads = [threading.Thread(target=follow), threading.Thread(target=ask)]
    for thread in threads:
        thread.start()
    registry.close()
    for thread in threads:
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()
    assert len(ended) == 2
    with pytest.raises(ClosedError):
        registry.get("orders")


def test_without_a_node_everything_ends_too(served: NodeThread) -> None:
    """Closing while disconnected, and leaving by an error, end the thread."""
    served.stop()
    with connect(served) as registry, pytest.raises(UnavailableError):
        registry.get("orders", timeout=0.05)

    def fail() -> None:
        with connect(served):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


def test_wrong_options_start_no_thread(served: NodeThread) -> None:
    """What `connect` refuses is raised at entry, and nothing is left running."""
    with pytest.raises(InvalidArgumentError):
        ssgovern.blocking.connect("a:b").open()
    with pytest.raises(ClosedError):
        ssgovern.blocking.connect(served.address).get("orders")


def test_a_callback_must_not_block_its_own_thread(served: NodeThread) -> None:
    """A blocking call from a callback is refused instead of hanging for ever."""
    heard: list[object] = []
    told = threading.Event()

    def on_connection(state: ssgovern.ConnectionState) -> None:
        try:
            registry.get("orders")
        except RuntimeError as error:
            heard.append(error)
        told.set()

    registry = connect(served, on_connection=on_connection)
    with registry:
        assert told.wait(TIMEOUT_S)
    assert "wait for itself" in str(heard[0])


def test_threads_may_look_and_close_while_another_closes(served: NodeThread) -> None:
    """Lists stay readable through the end, and who closes second just finds it closed."""
    served.node.put(ORDERS, instance(1))
    for _ in range(20):
        registry = connect(served)
        registry.open()
        orders = registry.subscribe("orders")
        orders.open()
        failures: list[Exception] = []
        ended = threading.Event()

        def look() -> None:
            try:
                while not ended.is_set():  # noqa: B023 - the thread ends in this round
                    assert ids(orders.instances) == ["i1"]  # noqa: B023
            except SsGovernError as error:
                failures.append(error)  # noqa: B023

        def close() -> None:
            try:
                registry.close()  # noqa: B023
            except SsGovernError as error:
                failures.append(error)  # noqa: B023

        threads = [threading.Thread(target=deed) for deed in (look, look, close, close, close)]
        for thread in threads:
            thread.start()
        registry.close()
        ended.set()
        for thread in threads:
            thread.join(TIMEOUT_S)
            assert not thread.is_alive()
        assert failures == []


def test_a_callback_cannot_close_its_own_client(served: NodeThread) -> None:
    """Refused as other calls are, and the client lives: it says goodbye when it is closed."""
    heard: list[object] = []
    told = threading.Event()

    def on_connection(state: ssgovern.ConnectionState) -> None:
        try:
            registry.close()
        except RuntimeError as error:
            heard.append(error)
        told.set()

    with connect(served, on_connection=on_connection) as registry:
        assert told.wait(TIMEOUT_S)
        assert registry.get("orders") == ()
    assert "wait for itself" in str(heard[0])
    assert not served.node.sessions


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_process_is_told_to_connect_again(served: NodeThread) -> None:
    """The client's thread stays behind in the parent: calls in the child fail, none hangs."""
    served.node.put(ORDERS, instance(1))
    with connect(served) as registry, registry.subscribe("orders") as orders:
        child = os.fork()
        if not child:
            _end_as_expected(registry, orders)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert ids(orders.instances) == ["i1"]
        assert registry.get("orders") == orders.instances


def _end_as_expected(
    registry: ssgovern.blocking.Registry, orders: ssgovern.blocking.Subscription
) -> None:
    """In a forked process: exit with 0 if all is refused; a signal ends it if it hangs."""
    refused = 0
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(int(TIMEOUT_S))
        calls: list[Callable[[], object]] = [
            lambda: registry.get("orders"),
            orders.choose,
            lambda: orders.instances,
        ]
        for call in calls:
            try:
                call()
            except ClosedError as error:
                refused += "connect again" in str(error)
        registry.close()
    finally:
        os._exit(0 if refused == 3 else 1)
