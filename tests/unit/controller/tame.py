"""What the fixture `make_cluster` is."""

from __future__ import annotations

from collections.abc import Callable

from ssgovern.sim.controller_scale import TameCluster

MakeCluster = Callable[..., TameCluster]
