"""ZooKeeper as a contender: standalone, all durable, `create` of persistent znodes.

Persistent and not ephemeral: both are logged and synced alike, but an ephemeral one is in
addition kept per session and deleted at its end, which would be measured with it.
What it really holds is asked of ZooKeeper itself: the parents' children are counted.
"""

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from benchmarks.contender import HOST, Place, Process, free_port, running
from benchmarks.load import ClosedLoop, LoadError, Tally
from benchmarks.payload import NUMBER_DIGITS, PARENT, key_prefix
from benchmarks.peers.jute import NODE_EXISTS, Caller, CreateClient

_JAR = Path("/usr/share/java/zookeeper.jar")
_LOGGING = ("slf4j-log4j12.jar", "log4j-1.2.jar")
_HEAP = "4g"
_CALL_S_MAX = 20.0
_PROBE_S_MAX = 2.0

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
    settings = (
        f"standalone, forceSync=yes, snapCount default, globalOutstandingLimit={_OUTSTANDING_MAX},"
        f" JVM heap {_HEAP}, serial collector"
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
        port = free_port()
        argv = [
            "java",
            f"-Xms{_HEAP}",
            f"-Xmx{_HEAP}",
            "-XX:+UseSerialGC",
            "-Dzookeeper.jmx.log4j.disable=true",
            "-Dlog4j.configuration=file:log4j.properties",
            *("-cp", ":".join(map(str, self._jars()))),
            "org.apache.zookeeper.server.quorum.QuorumPeerMain",
            "zoo.cfg",
        ]
        files = {
            "zoo.cfg": _CONFIG.format(
                data=place.directory / "data", port=port, host=HOST, outstanding=_OUTSTANDING_MAX
            ),
            "log4j.properties": _LOG_CONFIG,
        }
        async with running(argv, place, files=files) as process:
            server = ZooKeeperServer(process, port)
            await process.until_serving(server.open)
            yield server

    def _jars(self) -> list[Path]:
        return [_JAR, *(_JAR.with_name(name) for name in _LOGGING)]


class ZooKeeperServer:
    """A running ZooKeeper."""

    def __init__(self, process: Process, port: int) -> None:
        self.pid = process.pid
        self.address = (HOST, port)

    async def open(self) -> None:
        # Short: while ZooKeeper starts it may accept a connection and forget it.
        async with self._caller(within_s=_PROBE_S_MAX):
            pass

    async def prepare(self, services: Sequence[int]) -> None:
        """Create the parents of all keys."""
        parts = PARENT.strip("/").split("/")
        paths = ["/" + "/".join(parts[: i + 1]) for i in range(len(parts))]
        async with self._caller() as caller:
            for path in [*(path.encode() for path in paths), *map(_parent, services)]:
                error = await caller.create(path)
                if error not in (0, NODE_EXISTS):
                    raise LoadError(f"ZooKeeper answered {error} to create {path.decode()}")

    def client(self, service: int, tally: Tally, in_flight: int, value: bytes) -> ClosedLoop:
        return CreateClient(
            tally, in_flight, prefix=key_prefix(service), digits=NUMBER_DIGITS, value=value
        )

    async def confirm(self, services: Sequence[int], acked: int) -> None:
        async with self._caller() as caller:
            held = sum([await caller.children(_parent(service)) for service in services])
        if held != acked:
            raise LoadError(f"ZooKeeper acknowledged {acked} creates and holds {held}")

    @contextlib.asynccontextmanager
    async def _caller(self, *, within_s: float = _CALL_S_MAX) -> AsyncIterator[Caller]:
        try:
            async with asyncio.timeout(within_s):
                caller = Caller(*await asyncio.open_connection(*self.address))
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
