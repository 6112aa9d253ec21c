"""`fsck`: whether a data directory is whole, what damage means, and the repair that is safe."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click

from ssgovern.cli.exits import EXIT_FAILED, EXIT_OK
from ssgovern.cli.output import print_json, toned
from ssgovern.cli.stopped import ProgressLine, Stopped
from ssgovern.node.fsck import Finding, Report, check
from ssgovern.node.recovery import Progress
from ssgovern.node.repair import Repaired, finish_repair, repair
from ssgovern.storage.salvage import Salvage

_HELP = """\b
Examples:
  ss-govern fsck --data-dir ss-govern-data             look, change nothing
  ss-govern fsck --data-dir ss-govern-data --repair
The node must not run. Exit code 1 if something is damaged. A repair keeps every byte it takes
away in a folder set-aside-… in the data directory. A node of a cluster fetches what it lost from
the others; a single node cannot, so its repair needs --accept-loss. Never delete a data
directory to make an error go away.
"""


@click.command(epilog=_HELP)
@click.option(
    "-d",
    "--data-dir",
    required=True,
    type=click.Path(path_type=Path),
    help="Of a node that does not run.",
)
@click.option("--repair", "do_repair", is_flag=True, help="Make it one the node can start on.")
@click.option("--accept-loss", is_flag=True, help="Of a single node: go on without what is lost.")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
@click.option("--debug", is_flag=True, help="Show where a failure came from.")
def fsck(
    data_dir: Path,
    do_repair: bool,
    accept_loss: bool,
    as_json: bool,
    debug: bool,  # noqa: ARG001 - read where failures end
) -> int:
    """Check a data directory, and repair it if asked to."""
    line = ProgressLine(sys.stderr)
    with Stopped() as stopped:
        try:
            report, done = asyncio.run(
                _run(stopped, data_dir, line, do_repair=do_repair, accept_loss=accept_loss)
            )
        finally:
            line.end()
    if as_json:
        print_json(_document(report, done))
    else:
        for finding in report.findings:
            _show(finding)
        click.echo(_conclusion(report, done))
    return EXIT_OK if done is not None or not report.is_damaged else EXIT_FAILED


async def _run(
    stopped: Stopped, data_dir: Path, line: ProgressLine, *, do_repair: bool, accept_loss: bool
) -> tuple[Report, Repaired | str | None]:
    # The lock tells that the node does not run.
    stopped.open_existing(data_dir)

    def on_progress(progress: Progress) -> None:
        share = f" {100 * progress.done // progress.total} %" if progress.total else ""
        line.say(f"reading {progress.what}{share}")

    report = await check(lambda name: stopped.look_into(_in(data_dir, name)), on_progress)
    if not do_repair or not report.can_be_repaired:
        return report, None
    # Opened again, to write.
    await stopped.close()
    if report.unfinished:
        return report, await finish_repair(stopped.open, str(data_dir))
    done = await repair(
        stopped.open,
        str(data_dir),
        stopped.runtime,
        report.left or Salvage([]),
        accept_loss=accept_loss,
        metadata_damaged=report.metadata_damaged,
    )
    return report, done


def _in(data_dir: Path, name: str) -> Path:
    return data_dir / name if name else data_dir


def _show(finding: Finding) -> None:
    mark = toned("DAMAGED", "bad", sys.stdout) if finding.is_damage else "ok     "
    click.echo(f"{mark}  {finding.where}: {finding.what}")
    if finding.means:
        click.echo(f"         {finding.means}")
    if finding.todo:
        click.echo(f"         to do: {finding.todo}")


def _conclusion(report: Report, done: Repaired | str | None) -> str:
    if isinstance(done, str):
        return f"The repair is finished. What it took out is in {done}."
    if done is not None:
        said = [f"Repaired. What was taken out is in {done.aside}."]
        if done.shards and done.refetched:
            said.append(f"Start the node: it fetches {len(done.shards)} shards from the others.")
        elif done.shards:
            said.append("The node begins a new life (new cluster id): clients take whole lists.")
        if done.votes:
            said.append("It is no candidate until it was removed as one and added again.")
        return " ".join(said)
    if not report.is_damaged:
        return "Nothing is damaged."
    return "Nothing was changed."


def _document(report: Report, done: Repaired | str | None) -> dict[str, object]:
    return {
        "damaged": report.is_damaged,
        "findings": [
            {
                "where": finding.where,
                "what": finding.what,
                "damage": finding.is_damage,
                "means": finding.means,
                "todo": finding.todo,
            }
            for finding in report.findings
        ],
        "shards_in_doubt": [shard.shard for shard in report.in_doubt],
        "repaired": done is not None,
        "set_aside": done if isinstance(done, str) else "" if done is None else done.aside,
    }
