"""Who does not belong to a cluster is told so, clearly, and the cluster goes on.

One cluster of three real processes; strangers come and are refused, each for another reason.
What they are told is asserted where an operator would look: in what the process says.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clusters import SERVICES, Cluster, is_whole, until_status
from peers import identity_of
from processes import NodeProcess

import ssgovern
from ssgovern.client.values import ClusterStatus
from ssgovern.errors import SsGovernError, UnsupportedVersionError
from ssgovern.model import session_id_of
from ssgovern.transport import handshake
from ssgovern.transport.channel import Channel, open_channel
from ssgovern.wire.codec import decode, encode
from ssgovern.wire.frames import HEADER, PROTOCOL_VERSION_MAX, Kind, MessageType, encode_frame
from ssgovern.wire.pb import native_pb2, peer_pb2

SECRET = "of-three-nodes-and-nobody-else"
SAID_S_MAX = 30.0

pytestmark = pytest.mark.timeout(150)


class Home:
    """The cluster that strangers come to."""

    def __init__(self, root: Path) -> None:
        self.cluster = Cluster(root, 3, 0, "--cluster-secret", SECRET)
        self.term = 0

    @property
    def seeds(self) -> tuple[str, ...]:
        return ("--cluster-join", ",".join(self.cluster.addresses))

    def stranger(self, data_dir: Path, number: int, *arguments: str) -> NodeProcess:
        """Return a node that would join; it is to be started."""
        name = ("--node-id", str(number), "--node-name", f"stranger-{number}")
        return NodeProcess(data_dir, *name, *arguments)

    def joining(self, data_dir: Path, number: int) -> NodeProcess:
        """Return one that says all that it should."""
        return self.stranger(data_dir, number, *self.seeds, "--cluster-secret", SECRET)

    async def goes_on(self) -> ClusterStatus:
        """Assert that everything is whole, was so without an election, and takes writes."""
        async with self.cluster.connect(timeout=20.0) as registry:
            status = await until_status(registry, is_whole(3))
            for number in range(SERVICES):
                await registry.register(f"orders-{number}", host="h", port=1)
            assert self.term in (0, status.term), "nobody gave a reason for an election"
            self.term = status.term
            return status


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    one = Home(tmp_path_factory.mktemp("home"))
    one.cluster.start()
    yield one
    one.cluster.kill()


async def until_said(node: NodeProcess, *words: str) -> None:
    """Wait until a node has said a line with all these words."""
    try:
        async with asyncio.timeout(SAID_S_MAX):
            while not any(all(word in line for word in words) for line in node.said().splitlines()):
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"not said: {words}\n{node.said()[-3000:]}") from None


def refuse(home: Home, stranger: NodeProcess, *words: str) -> None:
    """Start a stranger: it says why it is not taken, and the cluster goes on."""

    async def program() -> None:
        await home.goes_on()
        stranger.start()
        await until_said(stranger, *words)
        await home.goes_on()

    try:
        asyncio.run(program())
        assert stranger.kill(signal.SIGTERM) == 0
    finally:
        stranger.kill()


# --- nodes that do not belong here -----------------------------------------------------------


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        (("--cluster-secret", "another-secret-than-theirs"), "another cluster secret"),
        ((), "a cluster secret and this node has none"),
    ],
)
def test_a_wrong_secret(home: Home, tmp_path: Path, secret: tuple[str, ...], why: str) -> None:
    """A node that cannot prove that it knows the secret learns nothing and is not taken."""
    stranger = home.stranger(tmp_path / "node", 9, *home.seeds, *secret)
    refuse(home, stranger, why, "set the same cluster.secret on every node")


def test_a_node_id_that_is_in_use(home: Home, tmp_path: Path) -> None:
    """A second node with the id of one that is there is not taken, and the first one stays."""
    refuse(home, home.joining(tmp_path / "node", 2), "two nodes", "id")


def test_a_single_node_that_has_data(home: Home, tmp_path: Path) -> None:
    """A directory of a single node is not thrown away by joining: only a founder can bring it."""
    stranger = home.stranger(tmp_path / "node", 9)
    stranger.start()

    async def fill() -> None:
        async with ssgovern.connect(stranger.address, timeout=30.0) as registry:
            await registry.register("kept", host="h", port=1, ephemeral=False)

    try:
        asyncio.run(fill())
        assert stranger.kill(signal.SIGTERM) == 0
        clustered = home.joining(tmp_path / "node", 9).arguments
        alone, stranger.arguments = stranger.arguments, clustered
        refuse(home, stranger, "belongs to", "empty data directory")
        stranger.arguments = alone
        stranger.start()

        async def is_there() -> None:
            async with ssgovern.connect(stranger.address, timeout=30.0) as registry:
                assert len(await registry.get("kept")) == 1

        asyncio.run(is_there())
    finally:
        stranger.kill()


def test_a_directory_of_a_cluster_for_a_single_node(home: Home, tmp_path: Path) -> None:
    """What a cluster's node wrote is not served as if it were all there is."""

    async def copy() -> None:
        await home.goes_on()
        shutil.copytree(home.cluster.nodes[2].data_dir, tmp_path / "node")

    asyncio.run(copy())
    node = NodeProcess(tmp_path / "node", "--node-id", "2")
    node.start()
    assert node.ended() != 0
    assert "set cluster.candidates or cluster.join" in node.said()


@pytest.mark.parametrize("voted", [True, False])
def test_a_directory_of_another_cluster(home: Home, tmp_path: Path, voted: bool) -> None:
    """A node of another cluster is not taken, whether it was a candidate there or not."""
    elsewhere = Cluster(tmp_path, 1, 1, "--cluster-secret", SECRET)
    number = 1 if voted else 2
    if voted:
        # Its id is one that nobody has here.
        elsewhere.nodes[1].arguments = tuple(
            argument.replace("1@", "8@") if argument != "1" else "8"
            for argument in elsewhere.nodes[1].arguments
        )

    async def found() -> None:
        async with elsewhere.connect() as registry:
            await until_status(registry, lambda status: len(status.nodes) == (1 if voted else 2))

    if voted:
        elsewhere.nodes[1].start()
    else:
        node = elsewhere.nodes[2]
        node.arguments = tuple("9" if argument == "2" else argument for argument in node.arguments)
        elsewhere.start()
    try:
        asyncio.run(found())
    finally:
        elsewhere.kill()
    stranger = elsewhere.nodes[number]
    stranger.arguments = home.joining(tmp_path / "x", 8 if voted else 9).arguments
    refuse(home, stranger, "belongs to cluster", "empty data directory")


def test_a_directory_that_is_in_use(home: Home) -> None:
    """A second process on the same directory ends at once and says why."""
    original = home.cluster.nodes[1]
    second = NodeProcess(original.data_dir, *original.arguments, log=original.log.with_name("2nd"))

    async def program() -> None:
        await home.goes_on()
        second.start()
        assert await asyncio.to_thread(second.ended) != 0
        assert "in use" in second.said()
        await home.goes_on()

    asyncio.run(program())


def test_a_copied_directory(home: Home, tmp_path: Path) -> None:
    """Of two nodes on copies of one directory, the one that nobody dials is refused."""
    original = home.cluster.nodes[3]

    async def copy() -> None:
        await home.goes_on()
        assert original.kill(signal.SIGTERM) == 0
        shutil.copytree(original.data_dir, tmp_path / "node")
        original.start()
        home.term = 0

    asyncio.run(copy())
    refuse(home, NodeProcess(tmp_path / "node", *original.arguments), "copied data directory")


def test_an_id_that_was_used_before(home: Home, tmp_path: Path) -> None:
    """The id of a node that left for good is not given to another one."""
    node = home.cluster.add(4)

    async def come_and_go() -> None:
        await home.goes_on()
        async with home.cluster.connect() as registry:
            node.start()
            await until_status(registry, lambda status: len(status.nodes) == 4)
            await registry.cluster_leave(4)
            await until_status(registry, lambda s: all(n.node_id != 4 for n in s.nodes))
        assert node.ended() == 0

    try:
        asyncio.run(come_and_go())
    finally:
        node.kill()
        del home.cluster.nodes[4]
    refuse(home, home.joining(tmp_path / "node", 4), "node id 4", "never used")


def test_candidates_that_disagree(tmp_path: Path) -> None:
    """Candidates with different lists found nothing, and both sides say what to correct."""
    cluster = Cluster(tmp_path, 3)
    odd = cluster.nodes[3]
    other_list = cluster.candidates.replace("2@", "5@")
    odd.arguments = tuple(
        other_list if argument == cluster.candidates else argument for argument in odd.arguments
    )
    cluster.start()

    async def program() -> None:
        correct = "write the same cluster.candidates on every candidate"
        await until_said(odd, correct, "5@")
        await until_said(cluster.nodes[1], correct, "5@")
        odd.kill()
        odd.arguments = cluster.nodes[2].arguments
        odd.arguments = tuple(
            {"2": "3", "n2": "n3"}.get(argument, argument) for argument in odd.arguments
        )
        odd.start()
        async with cluster.connect() as registry:
            await until_status(registry, is_whole(3))

    try:
        asyncio.run(program())
    finally:
        cluster.kill()


# --- connections that make no sense ----------------------------------------------------------


async def opened(address: str, hear: Callable[[int], None] = lambda _type: None) -> Channel:
    loop = asyncio.get_running_loop()
    host, port = handshake.split_address(address)
    return await open_channel(
        host, port, lambda type_, _id, _body: hear(type_), deadline=loop.time() + 5.0
    )


async def ask(channel: Channel, type_: MessageType, body: bytes) -> bytes:
    deadline = asyncio.get_running_loop().time() + 10.0
    return await channel.send_request(type_, body, deadline)


def hello(*, number: int = 77, target: int = 0) -> peer_pb2.PeerHelloRequest:
    me = identity_of(number, address="127.0.0.1:9", secret=SECRET.encode())
    return handshake.hello_request(me, target, b"n" * handshake.NONCE_BYTES)


GARBAGE = {
    "noise": bytes(range(256)) * 40,
    "a hello that is none": encode_frame(Kind.REQUEST, MessageType.PEER_HELLO, 1, b"\xff" * 90),
    "a huge length": HEADER.pack(0xFFFFFFFF, Kind.REQUEST, 0, MessageType.PEER_HELLO, 1),
    "no bytes of a challenge": encode_frame(Kind.REQUEST, MessageType.PEER_HELLO, 1, b""),
    "what only a node may tell": encode_frame(Kind.PUSH, MessageType.RAFT, 0, b"x" * 100),
    "what only a node may ask": encode_frame(Kind.REQUEST, MessageType.NODE_REGISTER, 1, b""),
    "a proof before the hello": encode_frame(Kind.REQUEST, MessageType.PEER_PROOF, 1, b""),
}


def test_garbage_at_the_handshake(home: Home) -> None:
    """Whatever a stranger sends, its own connection is all that ends."""

    async def program() -> None:
        await home.goes_on()
        for node in home.cluster.nodes.values():
            for what, garbage in GARBAGE.items():
                reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
                writer.write(garbage)
                answer = await asyncio.wait_for(reader.read(1000), 10.0)
                assert answer, f"{what}: closed without a word"
                assert answer[4] == Kind.ERROR, what
                writer.close()
                await writer.wait_closed()
        await home.goes_on()

    asyncio.run(program())


def test_half_a_handshake(home: Home) -> None:
    """Who stops in the middle of a handshake holds nobody up and is closed after a while."""
    whole = encode_frame(Kind.REQUEST, MessageType.PEER_HELLO, 1, encode(hello()))

    async def program() -> None:
        await home.goes_on()
        port = home.cluster.nodes[1].port
        halves = []
        for length in (1, 11, 12, len(whole) - 1, len(whole)):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(whole[:length])
            halves.append((reader, writer))
        await home.goes_on()
        async with asyncio.timeout(30.0):
            for reader, writer in halves:
                while await reader.read(1000):
                    pass
                writer.close()

    asyncio.run(program())


def test_a_newer_version(home: Home) -> None:
    """A node that speaks newer versions only is told which ones are spoken here."""

    async def program() -> None:
        await home.goes_on()
        channel = await opened(home.cluster.nodes[1].address)
        request = hello()
        request.version_min = request.version_max = PROTOCOL_VERSION_MAX + 1
        with pytest.raises(UnsupportedVersionError, match="upgrade the older of them"):
            await ask(channel, MessageType.PEER_HELLO, encode(request))
        channel.abort()
        await home.goes_on()

    asyncio.run(program())


def test_a_wrong_proof(home: Home) -> None:
    """A stranger is told nothing that would prove something to another node."""

    async def program() -> None:
        await home.goes_on()
        channel = await opened(home.cluster.nodes[1].address)
        request = hello()
        response = decode(
            peer_pb2.PeerHelloResponse,
            await ask(channel, MessageType.PEER_HELLO, encode(request)),
        )
        # What was given is given back: it proves who answered, not who asked.
        turned = encode(peer_pb2.PeerProofRequest(proof=response.proof))
        with pytest.raises(SsGovernError, match="another cluster secret"):
            await ask(channel, MessageType.PEER_PROOF, turned)
        channel.abort()
        await until_said(home.cluster.nodes[1], "is refused", "another cluster secret")
        await home.goes_on()

    asyncio.run(program())


def test_a_peer_that_stops_reading(home: Home) -> None:
    """One that asks and asks and reads nothing is closed when too much waits for it."""

    async def program() -> None:
        node = home.cluster.nodes[(await home.goes_on()).controller_id]
        channel = await opened(node.address)
        me = identity_of(77, address="127.0.0.1:9", secret=SECRET.encode())
        request = hello()
        response = decode(
            peer_pb2.PeerHelloResponse,
            await ask(channel, MessageType.PEER_HELLO, encode(request)),
        )
        proof = handshake.dialler_proof(me, request, response)
        await ask(channel, MessageType.PEER_PROOF, encode(proof))
        assert channel.transport is not None
        channel.transport.pause_reading()  # type: ignore[attr-defined]
        fetch = encode_frame(Kind.REQUEST, MessageType.METADATA_FETCH, 1, b"")
        async with asyncio.timeout(SAID_S_MAX):
            while "it reads nothing of its answers" not in node.said():
                channel.send(fetch * 200)
                await asyncio.sleep(0.02)
        channel.abort()
        await home.goes_on()

    asyncio.run(program())


def test_something_else_at_the_address_of_a_node(home: Home) -> None:
    """Whoever takes connections there and says nothing holds up neither nodes nor clients."""
    node = home.cluster.nodes[1]

    async def program() -> None:
        await home.goes_on()
        node.kill()
        home.term = 0
        held: list[asyncio.StreamWriter] = []
        silent = await asyncio.start_server(lambda _reader, writer: held.append(writer), *at(node))
        async with home.cluster.connect(timeout=20.0) as registry:
            status = await until_status(
                registry, lambda status: sum(each.live for each in status.nodes) == 2
            )
            assert not status.shards_unavailable
            for number in range(SERVICES):
                await registry.register(f"orders-{number}", host="h", port=1)
        assert held, "nobody came"
        silent.close()
        for writer in held:
            writer.transport.abort()
        await until_said(home.cluster.nodes[2], f"{node.address} does not answer the hello")
        node.start()
        await home.goes_on()

    asyncio.run(program())


def at(node: NodeProcess) -> tuple[str, int]:
    return node.host, node.port


def test_a_map_from_the_future(home: Home) -> None:
    """A client that has a newer map than the cluster is told how far this one is, and no more."""

    async def program() -> None:
        status = await home.goes_on()
        channel = await opened(home.cluster.nodes[1].address)
        greeting = native_pb2.HelloRequest(
            version_min=1,
            version_max=PROTOCOL_VERSION_MAX,
            session_id=session_id_of(b"s" * 16),
            session_secret=b"s" * 16,
            client_name="from the future",
        )
        await ask(channel, MessageType.HELLO, encode(greeting))
        request = native_pb2.ShardMapRequest(known_version=1 << 40)
        update = decode(
            native_pb2.ShardMapUpdate, await ask(channel, MessageType.SHARD_MAP, encode(request))
        )
        assert status.map_version <= update.since == update.version < 1 << 40
        assert not update.rows
        channel.abort()

    asyncio.run(program())
