"""`wal inspect`: what is in a data directory, read without touching it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
from google.protobuf.message import DecodeError

from ssgovern.cli.exits import EXIT_FAILED, EXIT_OK
from ssgovern.cli.output import Cell, bytes_text, print_facts, print_json, print_table, visible
from ssgovern.errors import InvalidArgumentError
from ssgovern.runtime.real import RealDisk
from ssgovern.storage.inspect import EndSeen, RecordSeen, SegmentSeen, Verdict, inspect_wal
from ssgovern.wire.pb import log_pb2, model_pb2

_INSPECT_HELP = """\b
Examples:
  ss-govern wal inspect ss-govern-data
  ss-govern wal inspect ss-govern-data --records --shard 7
  ss-govern wal inspect ss-govern-data --records --service orders
  ss-govern wal inspect /backup/wal --records --json | jq .
Works on the log of a running node, on a copy and on a damaged log. Exit code 1 if there is no
log, or if it is corrupt; a torn end is what a crash leaves, and no fault.
"""

_NO_LOG = EndSeen(Verdict.CLEAN, "", 0, "there is no log")
_SESSION_ENDS = {log_pb2.SESSION_END_EXPIRED: "expired", log_pb2.SESSION_END_GOODBYE: "goodbye"}
_TONES = {Verdict.CLEAN: "good", Verdict.TORN: "warn", Verdict.CORRUPT: "bad"}


@click.group()
def wal() -> None:
    """Look into the data directory of a node."""


@wal.command(epilog=_INSPECT_HELP)
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--records", is_flag=True, help="Show every record.")
@click.option("--shard", type=int, help="Only records of this shard.")
@click.option("--service", help="Only records that name this service.")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON (records: one per line).")
@click.option("--debug", is_flag=True, help="Show where a failure came from.")
def inspect(
    directory: Path,
    records: bool,
    shard: int | None,
    service: str | None,
    as_json: bool,
    debug: bool,  # noqa: ARG001 - read where failures end
) -> int:
    """Show the segments of the log in DIRECTORY, how it ends, and what is in it."""
    wanted = _filter(shard, service)
    seen = _Seen()
    disk = RealDisk(str(_log_directory(directory)), read_only=True)
    try:
        for item in inspect_wal(disk):
            match item:
                case SegmentSeen():
                    seen.segments.append(item)
                case EndSeen():
                    seen.end = item
                case RecordSeen() if wanted(item, change := _decoded(item)):
                    seen.count(item)
                    if records:
                        _show_record(item, change, as_json=as_json)
                case RecordSeen():
                    pass
    finally:
        asyncio.run(disk.close())
    if records and as_json:
        print_json({"end": _end_document(seen.end)})
    elif as_json:
        print_json(seen.document())
    else:
        _show_summary(seen)
    return EXIT_OK if seen.segments and seen.end.verdict is not Verdict.CORRUPT else EXIT_FAILED


_OTHER_STORIES = {
    "epoch": "promised to obey no older epoch",
    "cut": "the log of the shard ends here, or begins anew behind a snapshot",
}


def _log_directory(directory: Path) -> Path:
    """Return the directory of the segments: the one named, or `wal` in it."""
    if not directory.is_dir():
        raise InvalidArgumentError(
            f"there is no directory {directory}; name the data_dir of a node", field="directory"
        )
    inner = directory / "wal"
    return inner if inner.is_dir() else directory


@dataclass(slots=True)
class _Seen:
    segments: list[SegmentSeen] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    shards: dict[int, int] = field(default_factory=dict)
    end: EndSeen = _NO_LOG

    def count(self, item: RecordSeen) -> None:
        self.kinds[item.kind_name] += 1
        if item.kind_name != "mark":
            self.shards[item.record.shard] = item.record.revision

    def document(self) -> dict[str, object]:
        return {
            "segments": [
                {
                    "name": segment.name,
                    "bytes": segment.file_bytes,
                    "sequence": segment.header.sequence,
                    "base_lsn": segment.header.base_lsn,
                }
                for segment in self.segments
            ],
            "records": dict(sorted(self.kinds.items())),
            "shards": len(self.shards),
            "end": _end_document(self.end),
        }


def _end_document(end: EndSeen) -> dict[str, object]:
    return {
        "verdict": end.verdict.value,
        "segment": end.segment,
        "offset": end.offset,
        "message": end.message,
    }


def _show_summary(seen: _Seen) -> None:
    if seen.segments:
        print_table(
            ("SEGMENT", "SIZE", "FIRST LSN"),
            [(s.name, bytes_text(s.file_bytes), str(s.header.base_lsn)) for s in seen.segments],
            right=("SIZE", "FIRST LSN"),
        )
        click.echo()
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(seen.kinds.items()))
    end = seen.end
    where = f" ({end.segment}, offset {end.offset})" if end.segment else ""
    print_facts(
        {
            "records": kinds or "none",
            "shards": str(len(seen.shards)),
            "end": Cell(f"{end.verdict.value}: {end.message}{where}", _TONES[end.verdict]),
        }
    )


def _show_record(item: RecordSeen, change: log_pb2.Record | None, *, as_json: bool) -> None:
    record = item.record
    story = _story(change) if change is not None else _OTHER_STORIES.get(item.kind_name, "")
    if as_json:
        print_json(
            {
                "segment": item.segment,
                "offset": item.offset,
                "lsn": record.lsn,
                "kind": item.kind_name,
                "shard": record.shard,
                "epoch": record.epoch,
                "revision": record.revision,
                "bytes": len(record.body),
                "change": story,
            }
        )
        return
    place = f"{item.segment} {item.offset:>9}"
    if item.kind_name == "mark":
        click.echo(f"{place}  mark   synced to {record.synced_lsn}")
        return
    position = f"shard {record.shard:>3}  {record.position!r}"
    click.echo(f"{place}  {item.kind_name:<5}  {position:<20}  {visible(story)}")


def _decoded(item: RecordSeen) -> log_pb2.Record | None:
    if item.kind_name != "entry":
        return None
    record = log_pb2.Record()
    try:
        record.ParseFromString(item.record.body)
    except DecodeError:
        return None
    return record


def _filter(
    shard: int | None, service: str | None
) -> Callable[[RecordSeen, log_pb2.Record | None], bool]:
    def wanted(item: RecordSeen, change: log_pb2.Record | None) -> bool:
        if shard is not None and (item.record.shard != shard or item.kind_name == "mark"):
            return False
        return service is None or (
            change is not None and service in (key.service for key in _services_of(change))
        )

    return wanted


def _services_of(change: log_pb2.Record) -> Iterator[model_pb2.ServiceKey]:
    match change.WhichOneof("change"):
        case "registered":
            yield change.registered.service
        case "deregistered":
            yield change.deregistered.service
        case "updated":
            yield change.updated.service
        case _:
            return


def _story(change: log_pb2.Record) -> str:
    """Say what an entry did, in one line."""
    kind = change.WhichOneof("change")
    match kind:
        case "registered":
            done = change.registered
            name = done.instance.id or f"{done.instance.host}:{done.instance.port}"
            return f"registered {_key(done.service)} {name} by {done.session_id.hex()[:8]}"
        case "deregistered":
            gone = change.deregistered
            return f"deregistered {_key(gone.service)} {gone.instance_id}"
        case "updated":
            updated = change.updated
            return f"updated {_key(updated.service)} {updated.instance_id}"
        case "session_ended":
            ended = change.session_ended
            how = _SESSION_ENDS.get(ended.reason, f"reason {ended.reason}")
            return f"session {ended.session_id.hex()[:8]} ended ({how})"
        case "epoch_started":
            return f"epoch started by node {change.epoch_started.node_id}"
        case _:
            return f"unknown change of {change.ByteSize()} bytes"


def _key(key: model_pb2.ServiceKey) -> str:
    return f"{key.namespace}/{key.group}/{key.service}"
