"""The process around a node: event loop, signals, garbage collection.

What only a real process has is here, so that `Node` runs as it is under the simulator.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path

from ssgovern.node.cluster_node import ClusterNode
from ssgovern.node.config import ServerConfig
from ssgovern.node.node import Node, Ready
from ssgovern.node.recovery import Progress
from ssgovern.runtime.real import RealRuntime, precise_s

log = logging.getLogger("ssgovern.node")


def run(
    config: ServerConfig,
    *,
    failpoints: str = "",
    on_progress: Callable[[Progress], None] | None = None,
    on_ready: Callable[[Ready], None] | None = None,
) -> None:
    """Run a node in this process until SIGTERM or SIGINT; a second signal stops at once.

    Raises SsGovernError if the node cannot start or its disk failed. Logging is the caller's.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_run_node(config, failpoints, on_progress, on_ready))


async def _run_node(
    config: ServerConfig,
    failpoints: str,
    on_progress: Callable[[Progress], None] | None,
    on_ready: Callable[[Ready], None] | None,
) -> None:
    def ready(what: Ready) -> None:
        # A full pass of the collector walks every instance and would stop the loop for a second
        # per million. Nothing here that lives long is part of a cycle, so only the young are
        # looked at; the old go when nobody refers to them.
        gc.freeze()
        gc.set_threshold(20_000, 50, 1_000_000)
        gc.enable()
        if on_ready is not None:
            on_ready(what)

    node = (ClusterNode if config.is_clustered else Node)(
        config,
        RealRuntime(failpoints=failpoints),
        on_progress=on_progress,
        on_ready=ready,
        resident_bytes=resident_bytes,
        clock=precise_s,
    )
    loop = asyncio.get_running_loop()
    signals = 0
    gc.disable()

    def on_signal() -> None:
        nonlocal signals
        signals += 1
        if signals > 1:
            log.warning("second signal: stopping at once")
            os._exit(130)
        node.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    try:
        await node.run()
    except BaseExceptionGroup as failures:
        raise _first(failures) from failures


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the failure that came first; the others are its consequences."""
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def resident_bytes() -> int:
    """Return the memory this process holds, 0 where the system does not tell."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except FileNotFoundError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
