"""`cluster`: look at a cluster, and change what operators may change.

Every change is decided by the controller; any node passes it on. What is printed afterwards is
the controller's own sentence. A node is named by its id or its name.
"""

from __future__ import annotations

import asyncio
import difflib

import click

from ssgovern.cli.cluster_join import join, secret
from ssgovern.cli.cluster_recover import recover, rejoin
from ssgovern.cli.cluster_view import (
    NODE_COLUMNS,
    NODE_NUMBERS,
    SHARD_COLUMNS,
    candidate_rows,
    facts_of,
    health_of,
    node_rows,
    nodes_document,
    shard_rows,
    status_document,
)
from ssgovern.cli.connection import connected
from ssgovern.cli.exits import EXIT_FAILED, EXIT_OK
from ssgovern.cli.options import Target, client_command
from ssgovern.cli.output import counted, print_facts, print_json, print_table
from ssgovern.client.registry import Registry
from ssgovern.client.values import ClusterStatus
from ssgovern.controller.settings import COPIES_MAX, FENCE_AFTER_MS_MIN
from ssgovern.errors import InvalidArgumentError, NotFoundError, SsGovernError

_POLL_S = 0.5

_EXAMPLES = """\b
Examples:
  ss-govern cluster status                  one screen: how it is, and what to do
  ss-govern cluster leave 4 --wait          move everything away from node 4, then forget it
  ss-govern cluster transfer 17 2           node 2 becomes primary of shard 17
  ss-govern cluster settings --copies 3
"""


@click.group(epilog=_EXAMPLES)
def cluster() -> None:
    """Look at a cluster and change it."""


cluster.add_command(join)
cluster.add_command(secret)
cluster.add_command(recover)
cluster.add_command(rejoin)


# --- looking ---------------------------------------------------------------------------------


@cluster.command("status")
@client_command
async def status_(target: Target) -> int:
    """Show how the cluster is, and what to do if something is wrong."""
    async with connected(target) as registry:
        found = await registry.cluster_status()
    if target.json:
        print_json(status_document(found))
    else:
        show_status(found)
    return EXIT_OK


def show_status(found: ClusterStatus) -> None:
    """Print one screen for people."""
    print_facts(facts_of(found))
    click.echo()
    print_table(NODE_COLUMNS, node_rows(found), right=NODE_NUMBERS)
    for line in health_of(found).advice:
        click.echo(f"- {line}")


@cluster.command()
@client_command
async def nodes(target: Target) -> int:
    """Show the nodes."""
    async with connected(target) as registry:
        found = await registry.cluster_status()
    if target.json:
        print_json(nodes_document(found))
    else:
        print_table(NODE_COLUMNS, node_rows(found), right=NODE_NUMBERS)
    return EXIT_OK


@cluster.command()
@client_command
async def shards(target: Target) -> int:
    """Show which nodes keep which shards; what needs attention comes first."""
    async with connected(target) as registry:
        found = await registry.cluster_status(shards=True)
    if target.json:
        print_json(status_document(found)["shards"])
    else:
        print_table(SHARD_COLUMNS, shard_rows(found), right=("COUNT",))
    return EXIT_OK


# --- changing --------------------------------------------------------------------------------


@cluster.command()
@click.argument("shard", type=click.IntRange(0, 16383), required=False)
@click.argument("node", required=False)
@click.option("--controller", metavar="NODE", help="Make this candidate the controller.")
@client_command
async def transfer(
    target: Target, shard: int | None, node: str | None, controller: str | None
) -> int:
    """Make NODE the primary of SHARD, or a candidate the controller."""
    if (controller is None) == (shard is None or node is None):
        raise InvalidArgumentError("say SHARD and NODE, or --controller NODE", field="node")
    async with connected(target) as registry:
        if controller is not None:
            to = await _node_id(registry, controller)
            return _said(target, await registry.cluster_transfer_controller(to))
        assert shard is not None, "checked above"
        to = await _node_id(registry, node or "")
        return _said(target, await registry.cluster_transfer(shard, to))


@cluster.command()
@click.argument("node")
@click.option("--wait", is_flag=True, help="Stay until it is gone, and say how far it is.")
@client_command
async def leave(target: Target, node: str, wait: bool) -> int:
    """Move everything away from NODE, then forget it for good. `stay` takes it back."""
    async with connected(target) as registry:
        node_id = await _node_id(registry, node)
        sentence = await registry.cluster_leave(node_id)
        if not wait:
            return _said(target, sentence)
        click.echo(sentence, err=target.json)
        await _until_gone(registry, node_id)
    return _said(target, f"node {node_id} has left; its process may be stopped")


async def _until_gone(registry: Registry, node_id: int) -> None:
    """Wait until the cluster does not know the node any more."""
    told = -1
    while True:
        try:
            found = await registry.cluster_status()
        except SsGovernError as error:
            # Who answers may itself be on its way out.
            click.echo(f"no answer ({error.message}); asking again", err=True)
            await asyncio.sleep(_POLL_S)
            continue
        node = next((n for n in found.nodes if n.node_id == node_id), None)
        if node is None:
            return
        if not node.leaving:
            raise InvalidArgumentError(f"node {node_id} was told to stay meanwhile", field="node")
        if node.holds != told:
            told = node.holds
            moves = f", {counted(found.moves, 'move')} under way" if found.moves else ""
            click.echo(f"{counted(told, 'shard')} left on node {node_id}{moves}", err=True)
        await asyncio.sleep(_POLL_S)


@cluster.command()
@click.argument("node")
@client_command
async def stay(target: Target, node: str) -> int:
    """Take back that NODE shall leave."""
    async with connected(target) as registry:
        return _said(target, await registry.cluster_stay(await _node_id(registry, node)))


@cluster.command()
@click.option("--copies", type=click.IntRange(1, COPIES_MAX), help="Copies of each shard.")
@click.option("--min-in-sync", type=click.IntRange(1, COPIES_MAX), help="Copies a write needs.")
@click.option("--moves-max", type=click.IntRange(1, 256), help="Moves at the same time.")
@click.option(
    "--fence-after-ms",
    type=click.IntRange(FENCE_AFTER_MS_MIN, 600_000),
    help="A node silent for so long is replaced.",
)
@click.option(
    "--lost-after-ms",
    type=click.IntRange(5000, 86_400_000),
    help="A node away for so long has its shards copied elsewhere.",
)
@client_command
async def settings(
    target: Target,
    copies: int | None,
    min_in_sync: int | None,
    moves_max: int | None,
    fence_after_ms: int | None,
    lost_after_ms: int | None,
) -> int:
    """Show what holds for the whole cluster, or change it."""
    changes = {
        "copies": copies,
        "min_in_sync": min_in_sync,
        "moves_max": moves_max,
        "fence_after_ms": fence_after_ms,
        "lost_after_ms": lost_after_ms,
    }
    said = {name: value for name, value in changes.items() if value is not None}
    async with connected(target) as registry:
        if said:
            return _said(target, await registry.cluster_settings(**said))
        found = await registry.cluster_status()
    shown = {"copies": found.copies, "min_in_sync": found.min_in_sync}
    if target.json:
        print_json(shown)
    else:
        print_facts({name: str(value) for name, value in shown.items()})
    return EXIT_OK


@cluster.command()
@click.argument("change", type=click.Choice(["add", "remove"]), required=False)
@click.argument("node", required=False)
@client_command
async def candidates(target: Target, change: str | None, node: str | None) -> int:
    """Show who votes; `add NODE` or `remove NODE`, one at a time, 1, 3 or 5 in the end."""
    if (change is None) != (node is None):
        raise InvalidArgumentError("say which node to add or remove", field="node")
    async with connected(target) as registry:
        if change is not None:
            node_id = await _node_id(registry, node or "")
            sentence = await registry.cluster_candidates(**{change: node_id})
            return _said(target, sentence)
        found = await registry.cluster_status()
    if target.json:
        print_json(list(found.candidates))
    else:
        print_table(NODE_COLUMNS, candidate_rows(found), right=NODE_NUMBERS)
    return EXIT_OK


@cluster.command()
@click.argument("shard", type=click.IntRange(0, 16383))
@click.argument("node")
@click.option("--yes", is_flag=True, help="Do not ask.")
@client_command
async def unclean(target: Target, shard: int, node: str, yes: bool) -> int:
    """Last resort: make NODE the primary of SHARD though it may lack acknowledged writes."""
    async with connected(target) as registry:
        node_id = await _node_id(registry, node)
        found = await registry.cluster_status(shards=True)
        click.echo(unclean_warning(found, shard, node_id), err=True)
        if not yes and not click.confirm("Do it?", err=True):
            click.echo("Nothing was done.", err=True)
            return EXIT_FAILED
        return _said(target, await registry.cluster_unclean(shard, node_id))


def unclean_warning(found: ClusterStatus, shard: int, node_id: int) -> str:
    """Say who would have all that was acknowledged, and what may be lost."""
    row = next((row for row in found.shards if row.shard == shard), None)
    if row is None:
        raise NotFoundError(f"there is no shard {shard}", shard=shard)
    if row.primary:
        serving = f"Shard {shard} is served by node {row.primary}: nothing needs to be lost."
    else:
        serving = f"Shard {shard} is served by nobody."
    complete = sorted({*row.in_sync, *row.eligible} - {node_id})
    if not complete:
        return f"{serving} No other node is known to have more than node {node_id}."
    names = ", ".join(f"{n.node_id} ({n.name})" for n in found.nodes if n.node_id in complete)
    return (
        f"{serving} All that was acknowledged is on: {names or ', '.join(map(str, complete))}."
        f" Start one of them instead if you can. With node {node_id} as primary, writes that it"
        " had not received are lost for good, and what those nodes have of them is thrown away"
        " when they come back. Clients that are connected register again what is missing."
    )


# --- around it -------------------------------------------------------------------------------


async def _node_id(registry: Registry, text: str) -> int:
    """Return the id of a node that is named by id or name."""
    if text.isascii() and text.isdigit():
        return int(text)
    found = await registry.cluster_status()
    ids = [node.node_id for node in found.nodes if node.name == text]
    if len(ids) == 1:
        return ids[0]
    if ids:
        raise InvalidArgumentError(
            f"{text!r} is the name of nodes {', '.join(map(str, ids))}: use an id", field="node"
        )
    close = difflib.get_close_matches(text, [node.name for node in found.nodes], n=1)
    meant = f"; did you mean {close[0]!r}?" if close else "; see `ss-govern cluster nodes`"
    raise InvalidArgumentError(f"there is no node {text!r}{meant}", field="node")


def _said(target: Target, sentence: str) -> int:
    if target.json:
        print_json({"done": sentence})
    else:
        click.echo(sentence)
    return EXIT_OK
