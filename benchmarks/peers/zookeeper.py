"""ZooKeeper as a contender: standalone or an ensemble, all durable, `create` of znodes.

Persistent znodes and not ephemeral ones: both are logged and synced alike, but an ephemeral one
is in addition kept per session and deleted at its end, which would be measured with it.
What it really holds is asked of ZooKeeper itself: the parents' children are counted.
"""

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from benchmarks.contender import HOST, Address, Place, Process, free_port, running
from benchmarks.load import ClosedLoop, LoadError, Tally
from benchmarks.payload import NUMBER_DIGITS, PARENT, key_prefix
from benchmarks.peers.jute import NODE_EXISTS, Caller, CreateClient

_JAR = Path("/usr/share/java/zookeeper.jar")
_LOGGING = ("slf4j-log4j12.jar", "log4j-1.2.jar")
_HEAP = "4g"
_HEAP_OF_MEMBER = "2g"
_CALL_S_MAX = 20.0
_PROBE_S_MAX = 2.0
_FOLLOWER_S_MAX = 10.0

_CONFIG = """\
tickTime=2000
dataDir={data}
clientPort={port}
clientPortAddress={host}
maxClientCnxns=0
forceSync=yes
admin.enableServer=false
4lw.commands.whitelist=
globalOutstandingLimit={outstanding}
"""
_ENSEMBLE = """\
initLimit=10
syncLimit=5
"""
# By default ZooKeeper stops reading from its clients above 1,000 requests outstanding in
# all; the load holds 1,024 and, to see whether it was saturated, twice as many.
_OUTSTANDING_MAX = 10_000

_LOG_CONFIG = """\
log4j.rootLogger=WARN, CONSOLE
log4j.appender.CONSOLE=org.apache.log4j.ConsoleAppender
log4j.appender.CONSOLE.layout=org.apache.log4j.PatternLayout
log4j.appender.CONSOLE.layout.ConversionPattern=%d %-5p %m%n
"""


class ZooKeeper:
    """The Debian package `zookeeper`."""

    name = "ZooKeeper"
    operation = "create (persistent znode)"
    warm_up_s = 15.0
    # Its throughput still doubles after the first seconds: the JVM compiles what is hot, and
    # here on the very core that serves.

    def __init__(self, members: int = 1) -> None:
        self._members = range(1, members + 1)
        self._heap = _HEAP if members == 1 else _HEAP_OF_MEMBER
        count = "standalone" if members == 1 else f"{members} servers"
        self.settings = (
            f"{count}, forceSync=yes, snapCount default,"
            f" globalOutstandingLimit={_OUTSTANDING_MAX}, JVM heap {self._heap}, serial collector"
        )

    def absent(self) -> str | None:
        missing = [what for what in ("java",) if shutil.which(what) is None]
        missing += [str(jar) for jar in self._jars() if not jar.exists()]
        if missing:
            what = ", ".join(missing)
            return f"ZooKeeper is not installed ({what}); on Debian: apt-get install zookeeper"
        return None

    def version(self) -> str:
        # Debian keeps the version in the name of a link beside the jar.
        names = sorted(jar.stem for jar in _JAR.parent.glob("zookeeper-[0-9]*.jar"))
        jar = names[0].removeprefix("zookeeper-") if names else "version unknown"
        out = subprocess.run(["java", "-version"], capture_output=True, text=True, check=True)
        java = out.stderr.splitlines()[0].split('"')[1]
        return f"{jar} (Java {java})"

    @contextlib.asynccontextmanager
    async def start(self, place: Place) -> AsyncIterator["ZooKeeperServer"]:
        ports = [free_port() for _ in self._members]
        async with contextlib.AsyncExitStack() as stack:
            processes = [
                await stack.enter_async_context(running(self._argv(), place.member(n), files=files))
                for n, files in self._files(place, ports).items()
            ]
            server = ZooKeeperServer(processes, ports)
            for process in processes:
                await process.until_serving(server.open)
            yield server

    def _argv(self) -> list[str]:
        return [
            "java",
            f"-Xms{self._heap}",
            f"-Xmx{self._heap}",
            "-XX:+UseSerialGC",
            "-Dzookeeper.jmx.log4j.disable=true",
            "-Dlog4j.configuration=file:log4j.properties",
            *("-cp", ":".join(map(str, self._jars()))),
            "org.apache.zookeeper.server.quorum.QuorumPeerMain",
            "zoo.cfg",
        ]

    def _files(self, place: Place, ports: Sequence[int]) -> dict[int, dict[str, str]]:
        """Return the files of each member, by its number."""
        ensemble = ""
        if len(self._members) > 1:
            ensemble = _ENSEMBLE + "".join(
                f"server.{n}={HOST}:{free_port()}:{free_port()}\n" for n in self._members
            )
        files: dict[int, dict[str, str]] = {}
        for n, port in zip(self._members, ports, strict=True):
            config = _CONFIG.format(
                data=place.member(n).directory / "data",
                port=port,
                host=HOST,
                outstanding=_OUTSTANDING_MAX,
            )
            files[n] = {
                "zoo.cfg": config + ensemble,
                "log4j.properties": _LOG_CONFIG,
                "data/myid": str(n),
            }
        return files

    def _jars(self) -> list[Path]:
        return [_JAR, *(_JAR.with_name(name) for name in _LOGGING)]


class ZooKeeperServer:
    """A running ZooKeeper."""

    def __init__(self, processes: Sequence[Process], ports: Sequence[int]) -> None:
        self.pids = [process.pid for process in processes]
        self.addresses = [(HOST, port) for port in ports]

    async def open(self) -> None:
        for address in self.addresses:
            # Short: while ZooKeeper starts it may accept a connection and forget it.
            async with _caller(address, within_s=_PROBE_S_MAX):
                pass

    async def prepare(self, services: Sequence[int]) -> None:
        """Create the parents of all keys."""
        parts = PARENT.strip("/").split("/")
        paths = ["/" + "/".join(parts[: i + 1]) for i in range(len(parts))]
        async with _caller(self.addresses[0]) as caller:
            for path in [*(path.encode() for path in paths), *map(_parent, services)]:
                error = await caller.create(path)
                if error not in (0, NODE_EXISTS):
                    raise LoadError(f"ZooKeeper answered {error} to create {path.decode()}")

    def client(
        self, _address: Address, service: int, tally: Tally, in_flight: int, value: bytes
    ) -> ClosedLoop:
        return CreateClient(
            tally, in_flight, prefix=key_prefix(service), digits=NUMBER_DIGITS, value=value
        )

    async def confirm(self, services: Sequence[int], acked: int) -> None:
        deadline = asyncio.get_running_loop().time() + _FOLLOWER_S_MAX
        for address in self.addresses:
            held = await _held(address, services)
            # A follower may be behind what the others have acknowledged.
            while held != acked and asyncio.get_running_loop().time() < deadline:
                await asyncio.sleep(0.2)
                held = await _held(address, services)
            if held != acked:
                raise LoadError(f"ZooKeeper acknowledged {acked} creates and holds {held}")


async def _held(address: Address, services: Sequence[int]) -> int:
    async with _caller(address) as caller:
        return sum([await caller.children(_parent(service)) for service in services])


@contextlib.asynccontextmanager
async def _caller(address: Address, *, within_s: float = _CALL_S_MAX) -> AsyncIterator[Caller]:
    try:
        async with asyncio.timeout(within_s):
            caller = Caller(*await asyncio.open_connection(*address))
            try:
                await caller.open()
                yield caller
            finally:
                caller.close()
    except asyncio.IncompleteReadError:
        raise LoadError("ZooKeeper closed the connection") from None
    except TimeoutError:
        raise LoadError(f"ZooKeeper did not answer within {within_s} s") from None


def _parent(service: int) -> bytes:
    return key_prefix(service).rpartition(b"/")[0]
