"""What a case of the benchmark is given, and what it gives back.

A case is a name and a callable; it returns rows of the table. It decides what to run; how
long, on which cores, on which disk and for how many rounds is decided once, here.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contender import Contender, Place
from benchmarks.load import Timing
from benchmarks.report import NotMeasured, Result

OURS = "ss-govern"
"""The name our own node goes by, as a contender and in `Result.figures`."""


@dataclass(frozen=True, slots=True)
class Bench:
    """One invocation. `missing` names the contenders that cannot be started, and why.

    `directory` is on the disk of the checkout; whatever a case leaves in it is removed.
    `repeats` is how often a case that provokes something does so.
    """

    directory: Path
    server_cores: Sequence[int]
    load_cores: Sequence[int]
    rounds: int
    repeats: int
    quick: bool
    timing: Timing
    contenders: Sequence[Contender]
    missing: dict[str, NotMeasured]
    value: bytes
    say: Callable[[str], None]

    @property
    def is_shared(self) -> bool:
        """Whether servers and load have the same cores, as several servers must on two."""
        return self.server_cores == self.load_cores

    def place(self, name: str) -> Place:
        """Return where a server of this name runs; its directory is not made yet."""
        return Place(self.directory / name.lower(), self.server_cores, self.load_cores)

    def warmed(self, contender: Contender) -> Timing:
        """Return the timing of a contender's first run after its start."""
        if self.quick:
            return self.timing
        return Timing(max(self.timing.warm_up_s, contender.warm_up_s), self.timing.measure_s)


@dataclass(frozen=True, slots=True)
class Case:
    """One or more rows of the table, and how to get them."""

    name: str
    run: Callable[[Bench], Awaitable[Sequence[Result]]]
