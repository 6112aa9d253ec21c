"""`cluster recover` and `cluster rejoin`: what is left when a majority of candidates is lost.

Both work on the data directory of a stopped node. The first makes one candidate decide alone; the
second makes a candidate that was left behind an ordinary node, with all its data.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from ssgovern.cli.exits import EXIT_FAILED, EXIT_OK
from ssgovern.cli.output import counted, print_json
from ssgovern.cli.stopped import Stopped
from ssgovern.errors import ConfigError, InvalidArgumentError
from ssgovern.model import NodeId
from ssgovern.node.raft_recovery import Known, Recovery, look_at, recover_alone
from ssgovern.node.repair import Repaired, forget_votes
from ssgovern.node.topology import parse_address

_ANSWER_S = 2.0

_RECOVER_HELP = """\b
Only when a majority of the candidates is lost for good, on ONE of those that are left:
  1. stop it, and make sure that no other candidate runs or ever comes back as it was
  2. ss-govern cluster recover --data-dir DIR
  3. start it; the other nodes find it by themselves and register again
  4. candidates that are left: ss-govern cluster rejoin --data-dir DIR, then start them
  5. ss-govern cluster candidates add NODE, until there are 3 again
Decisions of the last moments may be lost, and with them, in rare cases, acknowledged writes.
"""


@click.command(epilog=_RECOVER_HELP)
@click.option(
    "-d",
    "--data-dir",
    required=True,
    type=click.Path(path_type=Path),
    help="Of a candidate that does not run.",
)
@click.option(
    "--candidates", metavar="ID,…", help="Who votes from now on.  [default: this node alone]"
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
@click.option("--debug", is_flag=True, help="Show where a failure came from.")
def recover(
    data_dir: Path,
    candidates: str | None,
    yes: bool,
    as_json: bool,
    debug: bool,  # noqa: ARG001 - read where failures end
) -> int:
    """Let one candidate decide without the majority that is lost for good. Last resort."""
    with Stopped() as stopped:
        stopped.open_existing(data_dir)
        known = asyncio.run(look_at(stopped.open, str(data_dir)))
        voters = [known.me] if candidates is None else _ids(candidates)
        asyncio.run(_refuse_if_any_answers(known))
        click.echo(_warning(known), err=True)
        if not yes and not click.confirm("Do it?", err=True):
            click.echo("Nothing was done.", err=True)
            return EXIT_FAILED
        done = asyncio.run(recover_alone(stopped.open, str(data_dir), stopped.runtime, voters))
    if as_json:
        print_json(_document(done))
    else:
        for line in _said(done, known):
            click.echo(line)
    return EXIT_OK


@click.command()
@click.option(
    "-d",
    "--data-dir",
    required=True,
    type=click.Path(path_type=Path),
    help="Of a candidate that does not run.",
)
@click.option("--debug", is_flag=True, help="Show where a failure came from.")
def rejoin(
    data_dir: Path,
    debug: bool,  # noqa: ARG001 - read where failures end
) -> int:
    """After `recover` elsewhere: make this candidate an ordinary node, with all its data."""
    with Stopped() as stopped:
        stopped.open_existing(data_dir)
        done: Repaired = asyncio.run(forget_votes(stopped.open, str(data_dir), stopped.runtime))
    click.echo(
        f"It is an ordinary node now; what it had agreed on is kept in {done.aside}. Start it; "
        "`ss-govern cluster candidates add` lets it vote again."
    )
    return EXIT_OK


def _ids(text: str) -> list[NodeId]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and 0 < int(part) < 1 << 31 for part in parts):
        raise InvalidArgumentError(
            f"{text!r}: say ids of nodes, separated by commas", field="candidates"
        )
    return [NodeId(int(part)) for part in parts]


async def _refuse_if_any_answers(known: Known) -> None:
    """A candidate that runs may be of a majority that decides right now."""
    for other in known.voters:
        if other.node == known.me or not other.address:
            continue
        address = parse_address(other.address)
        try:
            async with asyncio.timeout(_ANSWER_S):
                _, writer = await asyncio.open_connection(address.host, address.port)
        except (OSError, TimeoutError):
            continue
        writer.close()
        raise ConfigError(
            f"node {other.node} answers at {other.address}: if a majority of candidates can be "
            "brought back, nothing is to be recovered; if not, stop that node first"
        )


def _warning(known: Known) -> str:
    others = [candidate.node for candidate in known.voters if candidate.node != known.me]
    names = ", ".join(map(str, others)) or "none"
    return (
        f"Node {known.me} knows the cluster's metadata up to entry {known.index} of term "
        f"{known.term}. What the others ({names}) agreed on after that is lost. Their data "
        "directories must never be started again as they are: two clusters would serve the same "
        "shards. `ss-govern cluster rejoin` makes ordinary nodes of them."
    )


def _said(done: Recovery, known: Known) -> list[str]:
    voters = ", ".join(map(str, done.voters))
    said = [
        f"Candidates are now: {voters}. The log goes on at entry {done.index} of term {done.term}.",
        f"What was there before is kept in {done.aside}.",
        "Start the node. Shards are served as soon as a node is there that had all of them.",
    ]
    if done.waiting:
        said.append(
            f"Of {counted(len(done.waiting), 'shard')} no node is known to have everything: "
            "see `ss-govern cluster unclean`."
        )
    others = ", ".join(str(c.node) for c in known.voters if c.node not in done.voters)
    if others:
        said.append(f"Of nodes {others}: `cluster rejoin` what is left, `cluster leave` the rest.")
    return said


def _document(done: Recovery) -> dict[str, object]:
    return {
        "candidates": list(done.voters),
        "term": done.term,
        "index": done.index,
        "set_aside": done.aside,
        "shards_without_copy": list(done.waiting),
    }
