"""Planted bugs of a whole cluster: what its simulation has to find.

Production code has no switches for them: a mutant replaces methods of production classes for the
time of one world. Those of single cores are found by the walks over these cores; here are those
that only show, or must also show, where nodes, clients and leases come together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ssgovern.sim.taps import Taps


def _nothing(taps: Taps) -> None:
    """Plant nothing."""


class ClusterMutant(NamedTuple):
    """A planted bug, and within how many seeds it must be found."""

    plant: Callable[[Taps], None] = _nothing
    seeds: int = 60


HONEST = ClusterMutant()

CLUSTER_MUTANTS: dict[str, ClusterMutant] = {}
