"""Looks at all of a data directory whose node does not run, and says what is wrong, in words.

Read-only. The node's own recovery is the judge (it is tried out on an overlay); where that
refuses, `storage.salvage` tells what is left. Knows what damage means and what can be done about
it; doing it is `node.repair`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ssgovern.errors import ConfigError, CorruptionError
from ssgovern.model import ShardId
from ssgovern.node import identity as identities
from ssgovern.node import marks
from ssgovern.node.identity import Identity
from ssgovern.node.raft_storage import RaftStorage
from ssgovern.node.recovery import OnRecovered, recover
from ssgovern.node.repair import METADATA
from ssgovern.runtime import Disk
from ssgovern.storage.inspect import EndSeen, Verdict, inspect_wal
from ssgovern.storage.overlay import OverlayDisk
from ssgovern.storage.salvage import Salvage, ShardSalvaged, salvage

_SEGMENT_BYTES = 1 << 30
_IN_CLUSTER = "`--repair` keeps the damaged bytes aside, and the node fetches these shards anew"
_ALONE = (
    "restore a backup if it has more; or `--repair --accept-loss` goes on with what stands before"
    " the damage"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    where: str
    what: str
    is_damage: bool = False
    means: str = ""
    todo: str = ""


@dataclass(slots=True)
class Report:
    """All that was found."""

    identity: Identity | None = None
    findings: list[Finding] = field(default_factory=list)
    left: Salvage | None = None
    """Set if log or snapshots are damaged: what can be kept."""
    metadata_damaged: bool = False
    unfinished: bool = False
    """A repair was decided and not finished."""

    @property
    def is_damaged(self) -> bool:
        return any(finding.is_damage for finding in self.findings)

    @property
    def can_be_repaired(self) -> bool:
        return self.left is not None or self.metadata_damaged or self.unfinished

    @property
    def in_doubt(self) -> list[ShardSalvaged]:
        return [] if self.left is None else self.left.in_doubt()


async def check(look_into: Callable[[str], Disk], on_progress: OnRecovered) -> Report:
    """Look at a data directory; `look_into` opens a directory in it, "" the directory itself.

    Raises ConfigError for what a newer program wrote.
    """
    report = Report()
    root = look_into("")
    if not _check_root(root, report):
        return report
    assert report.identity is not None, "just read"
    await _check_shards(look_into("wal"), look_into("snapshots"), report, on_progress)
    if report.identity.candidate:
        await _check_metadata(look_into(METADATA[0]), look_into(METADATA[1]), report)
    return report


def _check_root(root: Disk, report: Report) -> bool:
    names = root.names()
    if marks.REPAIRING in names:
        report.unfinished = True
        report.findings.append(
            Finding(
                marks.REPAIRING,
                "a repair was begun and not finished",
                is_damage=True,
                means="the node refuses to start until it is",
                todo="`--repair` finishes it",
            )
        )
        return False
    if marks.RESTORING in names and identities.FILE not in names:
        report.findings.append(
            Finding(
                marks.RESTORING,
                "a restore was begun and not finished",
                is_damage=True,
                means="there is no node here yet",
                todo="run `ss-govern restore` with this directory again",
            )
        )
        return False
    try:
        report.identity = identity = identities.read(root)
        damaged = marks.read_damaged(root)
    except (CorruptionError, ConfigError) as error:
        report.findings.append(
            Finding(
                identities.FILE,
                str(error),
                is_damage=True,
                means="nobody can tell whose the data is; log and snapshots were not looked at",
                todo="put the file back from a copy; its node_uuid stands in every segment's"
                " header, and `ss-govern wal inspect` shows what the log holds",
            )
        )
        return False
    part = "candidate" if identity.candidate else "node of a cluster"
    alone = "single node" if not identity.clustered else part
    whose = f"node {identity.node_id}, {alone}, cluster {identity.cluster_id.hex() or '(none yet)'}"
    report.findings.append(Finding(identities.FILE, whose))
    if damaged:
        told = _named(list(damaged.shards)) if damaged.shards else "its votes"
        report.findings.append(
            Finding(marks.DAMAGED, f"{told} lost; the cluster is told when the node starts")
        )
    return True


async def _check_shards(
    wal: Disk, snapshots: Disk, report: Report, on_progress: OnRecovered
) -> None:
    identity = report.identity
    assert identity is not None, "checked before"
    refusal: CorruptionError | None = None
    try:
        found = await recover(
            OverlayDisk(wal),
            OverlayDisk(snapshots),
            identity.node_uuid,
            _SEGMENT_BYTES,
            on_progress,
        )
    except CorruptionError as error:
        refusal = error
    left = salvage(wal, snapshots, identity.node_uuid)
    if refusal is None and not left.is_damaged:
        instances = sum(state.instances for state in found.states)
        report.findings += [
            Finding("wal", _describe_log(wal, left)),
            Finding("snapshots", f"{len(found.snapshotted)} shards, all readable"),
            Finding("shards", f"{instances:,} instances after {found.entries_replayed:,} entries"),
        ]
        return
    report.left = left
    todo = _IN_CLUSTER if identity.clustered else _ALONE
    for hole in left.holes:
        report.findings.append(
            Finding(f"wal/{hole.segment}, offset {hole.offset}", hole.what, is_damage=True)
        )
    for bad in left.bad_snapshots:
        report.findings.append(Finding(f"snapshots/{bad.name}", bad.what, is_damage=True))
    if refusal is not None and not left.holes and not left.bad_snapshots:
        report.findings.append(Finding(refusal.segment, str(refusal), is_damage=True))
    report.findings.append(_meaning(left, todo))


def _meaning(left: Salvage, todo: str) -> Finding:
    doubted = left.in_doubt()
    if not doubted:
        return Finding(
            "shards",
            "nothing is lost: what is damaged is held elsewhere in the directory",
            is_damage=True,
            todo="`--repair` puts it in order",
        )
    kept = sum(shard.position.revision > 0 for shard in doubted)
    certain = len(left.shards) - len(doubted)
    return Finding(
        "shards",
        f"{_named([shard.shard for shard in doubted])} may have lost entries",
        is_damage=True,
        means=f"of {kept} of them what stands before the damage can be read; "
        f"{certain} other shards are whole",
        todo=todo,
    )


async def _check_metadata(log: Disk, snapshots: Disk, report: Report) -> None:
    identity = report.identity
    assert identity is not None, "checked before"
    try:
        storage, found = await RaftStorage.open(
            OverlayDisk(log), OverlayDisk(snapshots), identity.node_uuid, first=None
        )
    except CorruptionError as error:
        report.metadata_damaged = True
        report.findings.append(
            Finding(
                f"metadata/{error.segment}",
                str(error),
                is_damage=True,
                means="this candidate does not know any more what it voted for: it must not vote",
                todo=f"`--repair`, start the node, then `ss-govern cluster candidates remove"
                f" {identity.node_id}` and `… add {identity.node_id}`; if no majority of"
                " candidates is left: `ss-govern cluster recover` on an intact one",
            )
        )
        return
    last = found.entries[-1].index if found.entries else found.snapshot.index
    report.findings.append(
        Finding(
            "metadata",
            f"{last} entries, term {found.hard_state.term}, {storage.size_bytes:,} bytes of log",
        )
    )


def _describe_log(wal: Disk, left: Salvage) -> str:
    end = EndSeen(Verdict.CLEAN, "", 0, "there is no log")
    for item in inspect_wal(wal):
        if isinstance(item, EndSeen):
            end = item
    torn = f", {end.message} (never acknowledged)" if end.verdict is Verdict.TORN else ""
    return f"{len(left.segments)} segments, all readable{torn}"


def _named(shards: list[int] | list[ShardId]) -> str:
    if len(shards) == 1:
        return f"shard {shards[0]}"
    if len(shards) > 8:
        return f"{len(shards)} shards"
    return f"shards {', '.join(map(str, shards))}"
