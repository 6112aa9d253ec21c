"""What TCP makes of links that are slow, lossy or cut, and of peers that are gone."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest
from sim_actors import PORT, EchoLine, Line, Pair, forever, spawn

from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.world import World


def test_latency_is_paid_in_each_direction() -> None:
    """A round trip takes the latencies of both links."""
    with World(1) as world:
        world.network.set_link("c", "s", latency=0.03, jitter=0.0, both=False)
        world.network.set_link("s", "c", latency=0.05, jitter=0.0, both=False)
        client, _ = Pair(world, EchoLine).connect()
        sent_at = world.now
        client.transport.write(b"ping")
        assert world.run_until(lambda: client.received == b"ping", world.now + 1)
        assert world.now - sent_at == pytest.approx(0.08, abs=0.001)


@pytest.mark.parametrize("count", [1, 2])
def test_bandwidth_is_shared_by_the_connections_of_a_link(count: int) -> None:
    """Two connections take twice as long as one: 100 kB each at 100 kB/s together."""
    lines: list[Line] = []

    def accept() -> Line:
        lines.append(Line())
        return lines[-1]

    async def serve() -> None:
        await asyncio.get_running_loop().create_server(accept, None, PORT)

    async def send() -> None:
        for _ in range(count):
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_connection(Line, "s", PORT)
            transport.write(b"x" * 100_000)

    def has_all() -> bool:
        return sum(len(line.received) for line in lines) == count * 100_000

    with World(1) as world:
        spawn(world, "s", serve)
        world.run(1.0)
        world.network.set_link("c", "s", bytes_per_second=100_000)
        spawn(world, "c", send)
        assert world.run_until(has_all, 10)
        assert world.now - 1.0 == pytest.approx(count, rel=0.05)


def test_a_long_link_carries_a_window_per_round_trip() -> None:
    """Acknowledgements and windows keep up with a bulk of data: no time-out is waited for."""
    with World(1) as world:
        client, server = Pair(world).connect()
        world.network.set_link("c", "s", latency=0.05, jitter=0.0)
        client.transport.write(b"x" * 2_500_000)
        began = world.now
        assert world.run_until(lambda: len(server.received) == 2_500_000, began + 30)
        assert 0.9 < world.now - began < 2.0


def test_a_reader_that_resumes_opens_the_window_at_once() -> None:
    """However long it had been closed, and however patient the sender had become."""
    with World(1) as world:
        client, server = Pair(world).connect()
        server.transport.pause_reading()
        client.transport.write(b"x" * 400_000)
        world.run(world.now + 100)
        assert len(server.received) == 0
        server.transport.resume_reading()
        world.run(world.now + 0.1)
        assert len(server.received) == 400_000


def test_a_window_that_opens_behind_an_acknowledgement_is_told_as_well() -> None:
    """The reader resumes while the news of a full buffer is still on its way to the sender."""
    with World(1) as world:
        client, server = Pair(world).connect()
        world.network.set_link("c", "s", latency=0.05, jitter=0.0)
        server.transport.pause_reading()
        client.transport.write(b"x" * 400_000)
        began = world.now
        world.run(began + 0.12)
        server.transport.resume_reading()
        assert world.run_until(lambda: len(server.received) == 400_000, began + 60)
        assert world.now - began < 0.4


def test_what_is_not_lost_is_sent_once() -> None:
    """Acknowledgements reach the sender before its patience ends, also on a slow link."""
    with World(1) as world:
        client, server = Pair(world).connect()
        world.network.set_link("c", "s", latency=0.5, jitter=0.3, bytes_per_second=50_000)
        before = world.network.segments
        for size in (10, 20, 40_000, 30):
            client.transport.write(b"x" * size)
        world.run(world.now + 20)
        assert len(server.received) == 40_060
        assert world.network.segments - before == 4


def test_loss_is_seen_as_delay_only() -> None:
    """A fifth of all packets is lost, and every byte arrives in order."""
    with World(1) as world:
        client, server = Pair(world).connect()
        world.network.set_link("c", "s", loss=0.2)
        payload = b"".join(b"%08d" % number for number in range(20_000))
        for start in range(0, len(payload), 1000):
            client.transport.write(payload[start : start + 1000])
        began = world.now
        assert world.run_until(lambda: len(server.received) == len(payload), 60)
        assert server.received == payload
        assert world.now - began > 0.2


def test_reads_are_split_and_merged() -> None:
    """Borders of writes do not survive."""
    with World(1) as world:
        client, server = Pair(world).connect()
        for _ in range(100):
            client.transport.write(b"0123456789")
        world.run(world.now + 1)
        assert len(server.received) == 1000
        merged = server.reads
        assert merged < 90
        for _ in range(100):
            client.transport.write(b"0123456789")
            world.run(world.now + 0.01)
        assert server.reads - merged > 105


def test_connecting_to_an_unknown_machine_fails_to_resolve() -> None:
    """A name that no machine has is a `gaierror`, at once."""
    with World(1) as world:
        pair = Pair(world)
        pair.c.start()
        world.run(0.1)
        # The machine of `s` exists, but nobody listens.
        assert isinstance(pair.failure, ConnectionRefusedError)

        caught: list[OSError] = []

        async def connect() -> None:
            try:
                await asyncio.get_running_loop().create_connection(Line, "nowhere", PORT)
            except OSError as error:
                caught.append(error)

        spawn(world, "x", connect)
        world.run(0.2)
        assert [type(error) for error in caught] == [socket.gaierror]


def test_a_machine_without_power_does_not_even_refuse() -> None:
    """The SYN is repeated after 1, 3, 7 ... seconds; after 127 the connection has timed out."""
    with World(1) as world:
        pair = Pair(world)
        pair.s.machine.power_off()
        pair.c.start()
        world.run(120)
        assert pair.failure is None
        world.run(130)
        assert isinstance(pair.failure, TimeoutError)
        assert pair.failure.errno == errno.ETIMEDOUT
        assert pair.failed_at == pytest.approx(127, abs=0.1)


@pytest.mark.parametrize("direction", [("c", "s"), ("s", "c")])
def test_a_handshake_goes_on_when_the_cut_heals(direction: tuple[str, str]) -> None:
    """Cut in either direction, connecting waits, and succeeds with the next SYN."""
    with World(1) as world:
        pair = Pair(world)
        pair.s.start()
        world.run(0.1)
        world.network.cut(*direction, both=False)
        pair.c.start()
        world.run(2.0)
        assert pair.client is None
        world.network.heal()
        world.run(2.9)
        assert pair.client is None
        world.run(3.2)
        assert pair.client is not None
        world.run(5.0)
        assert len(pair.accepted) == 1


def test_what_is_on_the_way_when_a_link_is_cut_is_lost() -> None:
    """A SYN, a segment and a reset that left before the cut do not arrive after it."""
    with World(1) as world:
        pair = Pair(world)
        world.network.set_link("c", "s", latency=0.3)
        pair.s.start()
        world.run(0.1)
        pair.c.start()
        world.run(0.2)
        world.network.cut("c", "s", both=False)
        world.run(1.0)
        assert pair.client is None
        assert list(pair.s.machine.endpoints) == []
        world.network.heal()
        assert world.run_until(lambda: bool(pair.accepted), 5.0)
        client, server = pair.client, pair.server
        assert client is not None
        world.run(world.now + 1)
        client.transport.write(b"lost")
        server.transport.write(b"unread")
        world.run(world.now + 0.1)
        world.network.cut("c", "s")
        world.run(world.now + 10)
        assert (server.received, client.received) == (b"", b"")


def test_a_cut_is_silent_and_retransmission_backs_off() -> None:
    """Nobody is told; after 30 s of it, what was written arrives up to 25 s after the heal."""
    with World(1) as world:
        client, server = Pair(world).connect()
        world.network.cut("c", "s")
        client.transport.write(b"hello")
        began = world.now
        world.run(began + 30)
        assert not client.is_lost
        assert server.received == b""
        world.network.heal()
        client.transport.write(b" again")
        world.run(world.now + 5)
        assert server.received == b""
        assert world.run_until(lambda: server.received == b"hello again", world.now + 25)


def test_a_one_way_cut_stops_acknowledgements_too() -> None:
    """Data passes the open direction for as long as the window lasts, and arrives once."""
    with World(1) as world:
        client, server = Pair(world).connect()
        world.network.cut("s", "c", both=False)
        client.transport.write(b"x" * 1_000_000)
        world.run(world.now + 20)
        assert len(server.received) == 256 * 1024
        world.network.heal()
        world.run(world.now + 60)
        assert len(server.received) == 1_000_000
        assert not client.is_lost


def test_the_user_timeout_ends_a_connection_that_gets_no_answer() -> None:
    """Set to 2 s it does after 2 s, and not while there is nothing to be answered."""
    with World(1) as world:
        client, server = Pair(world).connect()
        sock = client.transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 2000)
        world.network.cut("c", "s")
        world.run(world.now + 100)
        assert not client.is_lost
        client.transport.write(b"x")
        began = world.now
        assert world.run_until(lambda: client.is_lost, began + 10)
        assert world.now - began == pytest.approx(2.0, abs=0.01)
        assert isinstance(client.error, TimeoutError)
        assert not server.is_lost


def test_the_kernel_accepts_and_buffers_for_a_paused_process() -> None:
    """A paused server looks alive: connecting works, and a window full of bytes is taken."""
    with World(1) as world:
        pair = Pair(world)
        pair.s.start()
        world.run(0.1)
        pair.s.pause()
        pair.c.start()
        world.run(1.0)
        assert pair.client is not None
        assert pair.accepted == []
        pair.client.transport.write(b"x" * 1_000_000)
        world.run(30.0)
        assert pair.accepted == []
        waiting = pair.client.transport.get_write_buffer_size()
        assert waiting == 1_000_000 - 2 * 256 * 1024
        pair.s.resume()
        world.run(200.0)
        assert len(pair.server.received) == 1_000_000


def test_a_full_backlog_lets_nobody_in() -> None:
    """More connections than a paused server's backlog wait, and get in when it wakes."""
    connected: list[int] = []

    async def serve(runtime: SimRuntime) -> None:
        await asyncio.get_running_loop().create_server(Line, None, PORT, backlog=2)
        await forever(runtime)

    async def connect(number: int) -> None:
        await asyncio.get_running_loop().create_connection(Line, "s", PORT)
        connected.append(number)

    with World(1) as world:
        server = world.process("s", serve)
        server.start()
        world.run(0.1)
        server.pause()
        for number in range(5):
            spawn(world, f"c{number}", lambda number=number: connect(number))
            world.run(world.now + 0.05)
        assert connected == [0, 1, 2]
        server.resume()
        world.run(5.0)
        assert sorted(connected) == [0, 1, 2, 3, 4]


def test_a_killed_process_says_goodbye() -> None:
    """Its kernel closes its sockets: the peer sees the end of the stream, and reconnects fail."""
    with World(1) as world:
        pair = Pair(world)
        client, _ = pair.connect()
        pair.s.kill()
        world.run(world.now + 0.1)
        assert client.is_lost
        assert client.error is None
        pair.c.kill()
        pair.client = None
        pair.c.start()
        world.run(world.now + 0.1)
        assert isinstance(pair.failure, ConnectionRefusedError)


def test_what_a_killed_process_wrote_still_arrives() -> None:
    """What its kernel had taken is delivered, though nobody is left."""
    with World(1) as world:
        pair = Pair(world)
        client, server = pair.connect()
        world.network.set_link("c", "s", latency=1.0)
        client.transport.write(b"x" * 100_000)
        pair.c.kill()
        world.run(world.now + 10)
        assert len(server.received) == 100_000
        assert server.is_lost
        assert server.error is None


def test_unread_bytes_of_a_killed_process_are_a_reset() -> None:
    """The peer of a process that dies with unread bytes sees a reset, not an end."""
    with World(1) as world:
        pair = Pair(world)
        client, _ = pair.connect()
        pair.s.pause()
        client.transport.write(b"never read")
        world.run(world.now + 0.1)
        pair.s.kill()
        world.run(world.now + 0.1)
        assert isinstance(client.error, ConnectionResetError)


def test_a_power_cut_leaves_the_peer_half_open() -> None:
    """No word comes; a write is answered by a reset only once the machine is up again."""
    with World(1) as world:
        pair = Pair(world)
        client, _ = pair.connect()
        pair.s.kill(power=True)
        world.run(world.now + 1000)
        assert not client.is_lost
        client.transport.write(b"anyone?")
        world.run(world.now + 5)
        assert not client.is_lost
        pair.s.start()
        world.run(world.now + 15)
        assert isinstance(client.error, ConnectionResetError)


def test_a_lost_reset_leaves_the_peer_half_open() -> None:
    """A reset is not repeated; the next write brings another one."""
    with World(1) as world:
        pair = Pair(world)
        client, _ = pair.connect()
        pair.s.pause()
        client.transport.write(b"never read")
        world.run(world.now + 1)
        world.network.cut("s", "c", both=False)
        pair.s.kill()
        world.run(world.now + 1)
        world.network.heal()
        world.run(world.now + 100)
        assert not client.is_lost
        client.transport.write(b"anyone?")
        world.run(world.now + 1)
        assert isinstance(client.error, ConnectionResetError)


def test_the_end_of_a_stream_survives_a_cut() -> None:
    """A close during a cut is retransmitted like data."""
    with World(1) as world:
        client, server = Pair(world).connect()
        world.network.cut("c", "s")
        client.transport.close()
        world.run(world.now + 10)
        assert client.is_lost
        assert not server.is_lost
        world.network.heal()
        world.run(world.now + 15)
        assert server.is_lost
        assert server.error is None


def test_connections_can_be_reset_from_outside() -> None:
    """As by a firewall: both ends see a reset, others are left alone."""
    with World(1) as world:
        client, server = Pair(world).connect()
        lines: list[Line] = []

        async def connect() -> None:
            _, line = await asyncio.get_running_loop().create_connection(Line, "s", PORT)
            lines.append(line)

        spawn(world, "other", connect)
        world.run(world.now + 0.1)
        assert world.network.reset_connections("s", "c") == 1
        world.run(world.now + 0.1)
        assert isinstance(client.error, ConnectionResetError)
        assert isinstance(server.error, ConnectionResetError)
        assert not lines[0].is_lost


def test_a_partition_separates_the_sides_only() -> None:
    """Each side goes on within; `isolate` is a side of one; `heal` ends it all."""
    with World(1) as world:
        for name in "abcd":
            world.machine(name)
        network = world.network
        network.partition(["a", "b"], ["c", "d"])
        cut = [pair for pair in ("ab", "ac", "bd", "dc", "db") if network.link(*pair).cut]
        assert cut == ["ac", "bd", "db"]
        network.heal()
        network.isolate("d")
        cut = [pair for pair in ("ab", "ad", "da", "dc", "cb") if network.link(*pair).cut]
        assert cut == ["ad", "da", "dc"]
        network.restore("a", "d", both=False)
        assert [network.link(*pair).cut for pair in ("ad", "da")] == [False, True]
        with pytest.raises(ValueError, match="itself"):
            network.cut("a", "a")


def test_loopback_servers_are_reached_from_their_machine_only() -> None:
    """A server bound to 127.0.0.1 refuses other machines and serves its own."""
    outcomes: dict[str, str] = {}

    async def serve(runtime: SimRuntime) -> None:
        await asyncio.get_running_loop().create_server(Line, "127.0.0.1", PORT)
        await forever(runtime)

    async def connect(name: str, host: str) -> None:
        try:
            await asyncio.get_running_loop().create_connection(Line, host, PORT)
        except OSError as error:
            outcomes[name] = type(error).__name__
        else:
            outcomes[name] = "connected"

    async def near(runtime: SimRuntime) -> None:
        await connect("near", "127.0.0.1")
        await forever(runtime)

    with World(1) as world:
        world.process("s", serve).start()
        world.run(0.1)
        world.process("near", near, machine="s").start()
        spawn(world, "far", lambda: connect("far", "s"))
        world.run(1.0)
        assert outcomes == {"near": "connected", "far": "ConnectionRefusedError"}


def test_a_lost_connection_is_not_written_to() -> None:
    """uvloop raises for it where asyncio is silent, so the simulator raises."""
    with World(1) as world:
        client, _ = Pair(world).connect()
        client.transport.close()
        world.run(world.now + 0.1)
        assert client.is_lost
        client.transport.close()
        for late in (
            lambda: client.transport.write(b"x"),
            lambda: client.transport.writelines([b"x"]),
            client.transport.write_eof,
            client.transport.abort,
        ):
            with pytest.raises(RuntimeError, match="lost"):
                late()


def test_what_is_not_simulated_is_refused_by_name() -> None:
    """TLS, foreign sockets and unknown options fail where they are asked for."""
    refused: list[str] = []

    async def body() -> None:
        loop = asyncio.get_running_loop()
        for options in ({"ssl": True}, {"sock": object()}, {"local_addr": ("c", 1)}):
            try:
                await loop.create_connection(Line, "s", PORT, **options)
            except NotImplementedError as error:
                refused.append(str(error))

    with World(1) as world:
        client, _ = Pair(world).connect()
        spawn(world, "p", body)
        world.run(1.0)
        assert ["ssl" in refused[0], "sock" in refused[1], "local_addr" in refused[2]] == [True] * 3
        with pytest.raises(OSError, match="not available") as caught:
            client.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, 12345, 1)
        assert caught.value.errno == errno.ENOPROTOOPT


def test_many_short_connections_leave_nothing_behind() -> None:
    """Kernels forget connections that both ends have closed."""

    async def body() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(200):
            transport, line = await loop.create_connection(Line, "s", PORT)
            transport.write(b"ping")
            while len(line.received) < 4:
                await asyncio.sleep(0.001)
            transport.close()

    with World(1) as world:
        pair = Pair(world, EchoLine)
        pair.s.start()
        world.run(0.1)
        spawn(world, "p", body)
        world.run(20.0)
        assert len(pair.accepted) == 200
        assert all(line.is_lost and line.error is None for line in pair.accepted)
        assert [len(world.machine(name).endpoints) for name in ("s", "p")] == [0, 0]
