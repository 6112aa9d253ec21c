"""etcd as a contender: one member or several, all durable, `etcdserverpb.KV/Put` of new keys.

What it really holds is asked of etcd itself: each put raises the store's revision by one,
so the revision after a run must exceed the one before by exactly the puts acknowledged.
"""

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence

from benchmarks.contender import HOST, Address, Place, Process, free_port, running
from benchmarks.load import ClosedLoop, LoadError, Tally, connect
from benchmarks.payload import NUMBER_DIGITS, field_bytes, key_prefix, varint
from benchmarks.peers.http2 import UnaryClient

_PUT = "/etcdserverpb.KV/Put"
# message PutRequest { bytes key = 1; bytes value = 2; ... }
_KEY, _VALUE = 1, 2
# message PutResponse { ResponseHeader header = 1; } ResponseHeader { int64 revision = 3; }
_HEADER, _REVISION = 1, 3
_PROBE_SERVICE = 999_999_999
_PROBE_S_MAX = 5.0


class Etcd:
    """The Debian package `etcd-server`, with as many members as wanted."""

    name = "etcd"
    operation = "put"
    warm_up_s = 2.0

    def __init__(self, members: int = 1) -> None:
        self._members = range(1, members + 1)
        count = "one member" if members == 1 else f"{members} members"
        self.settings = f"{count}, defaults (fsync on)"

    def absent(self) -> str | None:
        if shutil.which("etcd") is None:
            return "etcd is not installed; on Debian: apt-get install etcd-server"
        return None

    def version(self) -> str:
        out = subprocess.run(["etcd", "--version"], capture_output=True, text=True, check=True)
        return out.stdout.splitlines()[0].removeprefix("etcd Version: ")

    @contextlib.asynccontextmanager
    async def start(self, place: Place) -> AsyncIterator["EtcdServer"]:
        ports = [free_port() for _ in self._members]
        peers = {n: f"http://{HOST}:{free_port()}" for n in self._members}
        async with contextlib.AsyncExitStack() as stack:
            processes = [
                await stack.enter_async_context(
                    running(_argv(place.member(n), n, port, peers), place.member(n))
                )
                for n, port in zip(self._members, ports, strict=True)
            ]
            server = EtcdServer(processes, ports)
            for process in processes:
                await process.until_serving(server.open)
            yield server


def _argv(place: Place, number: int, port: int, peers: Mapping[int, str]) -> list[str]:
    client = f"http://{HOST}:{port}"
    return [
        "etcd",
        *("--name", f"bench-{number}"),
        *("--data-dir", str(place.directory / "data")),
        *("--listen-client-urls", client),
        *("--advertise-client-urls", client),
        *("--listen-peer-urls", peers[number]),
        *("--initial-advertise-peer-urls", peers[number]),
        *("--initial-cluster", ",".join(f"bench-{n}={url}" for n, url in peers.items())),
        *("--logger", "zap"),
        *("--log-level", "error"),
    ]


class EtcdServer:
    """A running etcd."""

    def __init__(self, processes: Sequence[Process], ports: Sequence[int]) -> None:
        self.pids = [process.pid for process in processes]
        self.addresses = [(HOST, port) for port in ports]
        self._revision = 0

    async def open(self) -> None:
        self._revision = await self._probe()

    async def prepare(self, _services: Sequence[int]) -> None:
        """Nothing: keys need no parents."""

    def client(
        self, address: Address, service: int, tally: Tally, in_flight: int, value: bytes
    ) -> ClosedLoop:
        return self._client(address, service, tally, in_flight, value)

    async def confirm(self, _services: Sequence[int], acked: int) -> None:
        revision = await self._probe()
        held = revision - self._revision - 1
        self._revision = revision
        if held != acked:
            raise LoadError(f"etcd acknowledged {acked} puts and holds {held}")

    def _client(
        self, address: Address, service: int, tally: Tally, in_flight: int, value: bytes
    ) -> UnaryClient:
        prefix = key_prefix(service)
        key_length = varint(len(prefix) + NUMBER_DIGITS)
        return UnaryClient(
            tally,
            in_flight,
            authority=f"{address[0]}:{address[1]}",
            method=_PUT,
            before=bytes([_KEY << 3 | 2]) + key_length + prefix,
            digits=NUMBER_DIGITS,
            after=field_bytes(_VALUE, value),
        )

    async def _probe(self) -> int:
        """Put one key and return the revision it got. Any member puts it behind all others."""
        address = self.addresses[0]
        tally = Tally(requests_max=1)
        clients: list[UnaryClient] = []

        def make() -> ClosedLoop:
            clients.append(self._client(address, _PROBE_SERVICE, tally, 1, b"probe"))
            return clients[0]

        await connect(*address, make, within_s=_PROBE_S_MAX)
        client = clients[0]
        try:
            client.begin()
            async with asyncio.timeout(_PROBE_S_MAX):
                while not tally.acked:
                    tally.check()
                    await asyncio.sleep(0.002)
        except TimeoutError:
            raise LoadError("a single put was not answered") from None
        finally:
            tally.in_flight = 0
            if client.transport is not None:
                client.transport.close()
        return _revision(client.last_message)


def _revision(put_response: bytes) -> int:
    header = _fields(put_response).get(_HEADER, b"")
    assert isinstance(header, bytes), "field 1 of PutResponse is a message"
    revision = _fields(header).get(_REVISION, 0)
    assert isinstance(revision, int), "field 3 of ResponseHeader is a number"
    return revision


def _fields(message: bytes) -> dict[int, int | bytes]:
    """Decode varint and length-delimited fields, all that an etcd header is made of."""
    fields: dict[int, int | bytes] = {}
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, at = _varint(message, at)
        if tag & 7 == 2:
            fields[tag >> 3] = message[at : at + number]
            at += number
        elif tag & 7 == 0:
            fields[tag >> 3] = number
        else:
            raise LoadError(f"unexpected wire type {tag & 7} in an etcd answer")
    return fields


def _varint(message: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if at >= len(message):
            raise LoadError("truncated number in an etcd answer")
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
