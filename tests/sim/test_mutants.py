"""The simulator itself is tested: it finds every planted bug within a budget of seeds."""

from __future__ import annotations

import pytest

from ssgovern.sim.harness import simulate
from ssgovern.sim.mutants import MUTANTS

# The first seed that finds each, when it was last looked; those far out take a while.
FIRST_FOUND = {
    "ack_before_sync": 0,
    "retry_failed_sync": 19,
    "snapshot_misses_newest": 0,
    "disk_full_keeps_proposals": 12,
    "refused_batch_stays": 12,
    "deregister_acked_early": 0,
    "expiry_ignores_stall": 1,
    "no_full_ttl_after_restart": 0,
    "sessions_restored_early": 11,
    "leases_restored_as_sessions": 0,
    "no_grace_after_close": 0,
    "protection_never_ends": 0,
    "ended_session_still_writes": 0,
    "resume_skips_change": 0,
    "trusts_trimmed_history": 0,
    "empty_list_at_start": 0,
    "slow_subscriber_skips": 10,
    "client_holds_for_ever": 0,
}
_QUICK_SEEDS = 6


def _find(name: str, first: int, last: int) -> int | None:
    mutant = MUTANTS[name]
    for seed in range(first, last):
        if not simulate(seed, mutant=mutant).is_clean:
            return seed
    return None


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=[] if FIRST_FOUND.get(name, 0) < _QUICK_SEEDS else pytest.mark.slow,
        )
        for name in MUTANTS
    ],
)
@pytest.mark.timeout(600)
def test_a_planted_bug_is_found_within_its_budget(name: str) -> None:
    """A bug of this kind cannot hide from so many seeds."""
    assert _find(name, 0, MUTANTS[name].seeds) is not None


def test_every_mutant_has_a_first_seed() -> None:
    """The table above speaks of all mutants and of no others."""
    assert sorted(FIRST_FOUND) == sorted(MUTANTS)
