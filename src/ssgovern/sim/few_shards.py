"""Clusters with fewer shards than production has, so that a seed costs less.

The number of shards is a constant of the model, which modules have taken over by name. For as
long as one world runs all of them are told another number; what is derived from it likewise.
What a shard does is the same whatever their number, and several services then share one.

Invariant: outside of the `with` block everything is as it was, also in modules imported inside.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ssgovern.model import slots
from ssgovern.node.metadata import Metadata


def _derived(shards: int) -> Mapping[str, int]:
    """Return every name under which modules know the number, and what is derived from it."""
    return {
        "SHARDS": shards,
        "SLOTS_PER_SHARD": slots.SLOTS // shards,
        "ALL_SHARDS": (1 << shards) - 1,
        "_MASK_BYTES": shards // 8,
    }


@contextmanager
def few_shards(shards: int) -> Iterator[None]:
    """Let there be so many shards, a power of two from 8 on."""
    assert shards >= 8, shards
    assert slots.SLOTS % shards == 0, shards
    before, defaults = slots.SHARDS, Metadata.__init__.__defaults__
    _replace(_derived(before), _derived(shards))
    Metadata.__init__.__defaults__ = (shards,)
    slots.shard_of.cache_clear()
    try:
        yield
    finally:
        _replace(_derived(shards), _derived(before))
        Metadata.__init__.__defaults__ = defaults
        slots.shard_of.cache_clear()


def _replace(old: Mapping[str, int], new: Mapping[str, int]) -> None:
    for name, module in sorted(sys.modules.items()):
        if not name.startswith("ssgovern."):
            continue
        for constant, value in new.items():
            if module.__dict__.get(constant) == old[constant]:
                setattr(module, constant, value)
