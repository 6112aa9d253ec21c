"""Planted bugs of a whole cluster: what its simulation has to find.

Production code has no switches for them: a mutant replaces methods of production classes for the
time of one world. Those of single cores are found by the walks over these cores; here are those
that only show, or must also show, where nodes, clients and leases come together.

Each has a plot (`ssgovern.sim.cluster_plots`) that brings about what shows it; random seeds meet
some of that within the first few, and some hardly ever.

Not here, because in a whole cluster one thing covers for the other:
- a primary that *writes* past its lease (replicas refuse its epoch), or expires sessions past it;
- a replica that ignores epochs: it still cuts nothing that it knows to be committed, which the
  next append tells it, and its answer deposes whom it obeys. The replication walk, in which that
  append may be late, finds it (`test_planted_bugs_are_found[replica-ignores-epoch]`);
- a set that is taken whatever life of a member it names: unless it gave the shard up since, what
  a life acknowledged is on its disk, and who lost the disk is refused. The walks find it, where
  disks may forget (`test_planted_bugs_are_found[rejoin-without-node-epoch]`);
- a client that takes old maps: it says which it has, and no node answers with an older one
  (`tests/unit/client/test_shard_map.py` has the map alone).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple, cast

from ssgovern import limits
from ssgovern.client.claims import Claims
from ssgovern.client.shard_map import NOTHING, ClientMap, MapChange
from ssgovern.controller.rows import ShardRow
from ssgovern.controller.rules import Rules
from ssgovern.controller.state import ClusterState
from ssgovern.model import ShardId
from ssgovern.node.hosted import HostedShard
from ssgovern.node.member_driver import MemberDriver, _Target
from ssgovern.node.replica_driver import ReplicaDriver
from ssgovern.node.shard_host import ShardHost
from ssgovern.replication.messages import AppendEntries, Effect, Send
from ssgovern.replication.replica import ReplicaLog
from ssgovern.replication.replicated import ReplicatedPrimary
from ssgovern.service.registry import RegistryService
from ssgovern.sim.taps import Method, Taps
from ssgovern.storage.format import LogEntry
from ssgovern.storage.wal import Wal
from ssgovern.wire.pb import native_pb2


def _nothing(taps: Taps) -> None:
    """Plant nothing."""


class ClusterMutant(NamedTuple):
    """A planted bug, and the plot that must find it."""

    plant: Callable[[Taps], None] = _nothing
    plot: str = ""


HONEST = ClusterMutant()


# --- leases and epochs -----------------------------------------------------------------------


def reads_past_lease(taps: Taps) -> None:
    """A primary answers reads as long as nobody told it that it is none."""
    taps.replace(ReplicatedPrimary, "may_read", lambda _: lambda self, _now: self.serving)


def serves_before_epoch_start(taps: Taps) -> None:
    """A new primary takes its own commit position for the shard's from the first moment."""
    taps.replace(ReplicatedPrimary, "serving", lambda _: property(lambda self: not self.deposed))


def lease_outlasts_fence(taps: Taps) -> None:
    """A node believes its lease to last long after the controller promotes somebody else."""

    def make(lease_end: Method) -> object:
        def longer(self: MemberDriver, sent_ms: float, lease_ms: int) -> object:
            return cast("float", lease_end(self, sent_ms, lease_ms)) + 10_000.0

        return longer

    taps.replace(MemberDriver, "_lease_end", make)


def previous_epoch_not_compared(taps: Taps) -> None:
    """A replica takes equal revisions for equal logs."""

    def make(on_append: Method) -> object:
        def trusting(self: ReplicaLog, event: AppendEntries) -> object:
            held = self.log.position_at(event.prev.revision)
            if held is not None and event.prev.revision > self.committed:
                event = replace(event, prev=held)
            return on_append(self, event)

        return trusting

    taps.replace(ReplicaLog, "on_append", make)


# --- what is acknowledged --------------------------------------------------------------------


def primary_alone_acknowledges(taps: Taps) -> None:
    """What the primary has on its own disk counts as committed."""

    def reached(self: ReplicatedPrimary) -> int:
        return self.committed if self.deposed else self._persisted[self.node]

    taps.replace(ReplicatedPrimary, "_reached", lambda _: reached)


def majority_acknowledges(taps: Taps) -> None:
    """What most of the in-sync set hold counts as committed."""

    def reached(self: ReplicatedPrimary) -> int:
        if self.deposed or len(self.in_sync) < self._settings.min_in_sync:
            return self.committed
        own = self._persisted[self.node]
        held = sorted([own, *self._held()])
        return min(own, held[(len(held) - 1) // 2])

    taps.replace(ReplicatedPrimary, "_reached", lambda _: reached)


def minimum_ignored(taps: Taps) -> None:
    """A primary goes on alone while the controller believes that nothing is committed."""

    def make(asked: Method) -> object:
        def without_minimum(self: ReplicatedPrimary, *arguments: object) -> object:
            settings = self._settings
            self._settings = settings._replace(min_in_sync=0)
            result = asked(self, *arguments)
            self._settings = settings
            return result

        return without_minimum

    taps.replace(ReplicatedPrimary, "_reached", make)
    taps.replace(ReplicatedPrimary, "refusal", make)


def replica_acknowledges_before_sync(taps: Taps) -> None:
    """A replica says that it holds what is on its way to the disk."""

    def make(do: Method) -> object:
        def early(
            self: ReplicaDriver, group: object, hosted: HostedShard, effects: list[Effect]
        ) -> None:
            if not hosted.installing:
                for effect in effects:
                    if isinstance(effect, Send):
                        self._send(effect.target, effect.message)
                effects = [effect for effect in effects if not isinstance(effect, Send)]
            do(self, group, hosted, effects)

        return early

    taps.replace(ReplicaDriver, "do", make)


def acknowledges_before_sync(taps: Taps) -> None:
    """A node says "durable" when a batch is in the page cache."""

    def make(append: Method) -> object:
        async def unsynced(self: Wal, entries: Sequence[LogEntry], *, sync: bool = True) -> None:
            del sync
            await append(self, entries, sync=False)  # type: ignore[misc]

        return unsynced

    taps.replace(Wal, "append", make)


# --- who follows -----------------------------------------------------------------------------


def unclean_election(taps: Taps) -> None:
    """Prefers any primary to none: whoever holds the shard."""

    def make(candidates: Method) -> object:
        def anybody(self: Rules, state: ClusterState, row: ShardRow) -> object:
            return candidates(self, state, row) or tuple(
                node for node in row.holders if state.is_live(node)
            )

        return anybody

    taps.replace(Rules, "candidates", make)


def promoted_forgets_tail(taps: Taps) -> None:
    """A new primary drops what it was not told to be committed."""

    def make(finish: Method) -> object:
        def forgetting(self: ShardHost, hosted: HostedShard) -> None:
            hosted.log.truncate(self._states[hosted.shard].position.revision)
            finish(self, hosted)

        return forgetting

    taps.replace(ShardHost, "_finish_promotion", make)


def joins_without_catching_up(taps: Taps) -> None:
    """Whoever answers is taken for complete."""
    taps.replace(
        ReplicatedPrimary,
        "_may_join",
        lambda _: lambda _self, _progress: True,
    )


# --- sessions --------------------------------------------------------------------------------


def no_full_ttl_after_promotion(taps: Taps) -> None:
    """A new primary lets sessions go on from when somebody else last heard them."""

    def make(claim_shards: Method) -> object:
        def backdated(self: RegistryService, shards: Iterable[ShardId], now_ms: float) -> object:
            return claim_shards(self, shards, now_ms - 0.9 * self.sessions.ttl_ms)

        return backdated

    taps.replace(RegistryService, "claim_shards", make)


def lease_taken_for_a_session(taps: Taps) -> None:
    """A new primary gives leases the time to live of a client's session."""

    def make(claim_shards: Method) -> object:
        def without_times(
            self: RegistryService, shards: Iterable[ShardId], now_ms: float
        ) -> object:
            result = claim_shards(self, shards, now_ms)
            table = self.sessions
            for session in list(table._sessions.values()):
                if session.is_lease:
                    table._set_ttl(session, table.ttl_ms)
            return result

        return without_times

    taps.replace(RegistryService, "claim_shards", make)


# --- clients ---------------------------------------------------------------------------------


def client_never_claims(taps: Taps) -> None:
    """A client does not come to a new primary: its session ends there although it lives."""
    taps.replace(Claims, "on_led", lambda _: lambda _self, _shards: False)


def client_ignores_changes(taps: Taps) -> None:
    """A client keeps the first map that it was given."""

    def make(apply: Method) -> object:
        def first_only(self: ClientMap, update: native_pb2.ShardMapUpdate, by: object) -> object:
            nothing: MapChange = NOTHING
            return nothing if self.version else apply(self, update, by)

        return first_only

    taps.replace(ClientMap, "apply", make)


# --- the controller --------------------------------------------------------------------------


def fences_early(taps: Taps) -> None:
    """The controller promotes another before the lease of the one that is silent has run out."""
    taps.replace(
        Rules,
        "must_fence",
        lambda _: lambda _self, silence_ms, _settings: silence_ms >= limits.NODE_LEASE_MS / 2,
    )


# --- finding the controller ------------------------------------------------------------------


def blames_the_next(taps: Taps) -> None:
    """Who uses up all the time of a question is not noted; who would have come next is."""

    def make(let_wait: Method) -> object:
        def blaming(self: MemberDriver, target: _Target) -> None:
            let_wait(self, self._next_target({target: None}, None) or target)

        return blaming

    taps.replace(MemberDriver, "_let_wait", make)


CLUSTER_MUTANTS: dict[str, ClusterMutant] = {
    "reads_past_lease": ClusterMutant(reads_past_lease, "primary_cut_off"),
    "serves_before_epoch_start": ClusterMutant(serves_before_epoch_start, "slow_beginning"),
    "lease_outlasts_fence": ClusterMutant(lease_outlasts_fence, "primary_cut_off"),
    "previous_epoch_not_compared": ClusterMutant(previous_epoch_not_compared, "tail_of_an_epoch"),
    "primary_alone_acknowledges": ClusterMutant(primary_alone_acknowledges, "tail_of_an_epoch"),
    "majority_acknowledges": ClusterMutant(majority_acknowledges, "one_behind"),
    "minimum_ignored": ClusterMutant(minimum_ignored, "minimum_not_reached"),
    "replica_acknowledges_before_sync": ClusterMutant(
        replica_acknowledges_before_sync, "power_cut_of_all"
    ),
    "acknowledges_before_sync": ClusterMutant(acknowledges_before_sync, "power_cut_of_all"),
    "unclean_election": ClusterMutant(unclean_election, "only_copy"),
    "promoted_forgets_tail": ClusterMutant(promoted_forgets_tail, "slow_beginning"),
    "joins_without_catching_up": ClusterMutant(joins_without_catching_up, "late_replica"),
    "no_full_ttl_after_promotion": ClusterMutant(
        no_full_ttl_after_promotion, "sessions_change_hands"
    ),
    "lease_taken_for_a_session": ClusterMutant(lease_taken_for_a_session, "sessions_change_hands"),
    "client_never_claims": ClusterMutant(client_never_claims, "session_lost_unnoticed"),
    "client_ignores_changes": ClusterMutant(client_ignores_changes, "session_lost_unnoticed"),
    "fences_early": ClusterMutant(fences_early, "primary_cut_off"),
    "blames_the_next": ClusterMutant(blames_the_next, "mute_candidate"),
}
