"""Machines of a small network, made of network namespaces, between which packets can be lost.

A direction is cut by pointing a machine's entry for another at a hardware address that nobody
has: its packets vanish on the way without an error, as with a broken switch, and the other
direction is not touched. Needs no packet filter. The machine's own network is left alone.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import subprocess
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_NOBODY = "02:00:00:00:00:fe"


class Hosts:
    """Machines 1 to n, each with the address `10.99.0.n`, joined by a bridge."""

    def __init__(self, count: int) -> None:
        self._tag = f"sg{os.getpid()}"
        self._numbers = range(1, count + 1)

    def build(self) -> str:
        """Make them; return why that is not possible, or nothing."""
        bridge = self._name(0)
        commands = [f"ip netns add {bridge}", f"ip -n {bridge} link add br0 type bridge"]
        commands.append(f"ip -n {bridge} link set br0 up")
        for number in self._numbers:
            host, port = self._name(number), f"v{number}"
            commands += [
                f"ip netns add {host}",
                f"ip -n {bridge} link add {port} type veth peer name eth0 netns {host}",
                f"ip -n {bridge} link set {port} master br0 up",
                f"ip -n {host} addr add {self.address(number)}/24 dev eth0",
                f"ip -n {host} link set lo up",
                f"ip -n {host} link set eth0 up",
            ]
        for command in commands:
            try:
                done = subprocess.run(command.split(), capture_output=True, check=False)
            except FileNotFoundError:
                return "there is no `ip` command"
            if done.returncode != 0:
                return f"`{command}`: {done.stderr.decode().strip()}"
        return ""

    def remove(self) -> None:
        """Take all of it away again."""
        for number in (*self._numbers, 0):
            command = ["ip", "netns", "del", self._name(number)]
            subprocess.run(command, capture_output=True, check=False)

    def _name(self, number: int) -> str:
        return f"{self._tag}-{number}"

    def address(self, number: int) -> str:
        return f"10.99.0.{number}"

    def launcher(self, number: int) -> tuple[str, ...]:
        """Return the command that runs another one on a machine."""
        return ("ip", "netns", "exec", self._name(number))

    # --- what breaks -----------------------------------------------------------------------

    def cut_one_way(self, source: int, target: int) -> None:
        """Lose all that one machine sends to another."""
        entry = f"neigh replace {self.address(target)} lladdr {_NOBODY} dev eth0 nud permanent"
        subprocess.run(["ip", "-n", self._name(source), *entry.split()], check=True)

    def cut(self, some: Iterable[int], others: Iterable[int]) -> None:
        """Lose all that passes between two groups of machines."""
        others = list(others)
        for one in some:
            for other in others:
                self.cut_one_way(one, other)
                self.cut_one_way(other, one)

    def heal(self) -> None:
        """Let everything pass again."""
        for number in self._numbers:
            for other in self._numbers:
                entry = f"neigh del {self.address(other)} dev eth0"
                command = ["ip", "-n", self._name(number), *entry.split()]
                # There is none for itself, and for those it never spoke to.
                subprocess.run(command, capture_output=True, check=False)

    # --- being there -----------------------------------------------------------------------

    @contextmanager
    def on(self, number: int) -> Iterator[None]:
        """Let this thread's sockets be those of a machine."""
        libc = ctypes.CDLL(None, use_errno=True)
        with (
            Path("/proc/thread-self/ns/net").open("rb") as home,
            Path(f"/var/run/netns/{self._name(number)}").open("rb") as there,
        ):
            _enter(libc, there.fileno())
            try:
                yield
            finally:
                _enter(libc, home.fileno())

    async def play(
        self, number: int, program: Callable[[], Coroutine[object, object, None]]
    ) -> None:
        """Run a program with a loop of its own on a machine, beside whatever runs here."""

        def run() -> None:
            with self.on(number):
                asyncio.run(program())

        await asyncio.to_thread(run)


def _enter(libc: ctypes.CDLL, namespace: int) -> None:
    if libc.setns(namespace, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "cannot enter the network namespace")
