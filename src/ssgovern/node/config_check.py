"""Faults that lie in several keys together, and how a fault is told.

Refuses to know where values were read. Invariant: a secret's value is in no fault.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ssgovern.node.topology import (
    CANDIDATE_COUNTS,
    Address,
    CandidateAddress,
    is_any,
    is_loopback,
    parse_address,
    parse_candidates,
    parse_seeds,
)


@dataclass(frozen=True, slots=True)
class ConfigFault:
    """One thing that is wrong: where it was said, what was said, and what would be right."""

    source: str
    key: str
    value: object
    problem: str

    def __str__(self) -> str:
        said = f"{self.key} = {_shown(self.key, self.value)}: " if self.key else ""
        return f"{self.source}: {said}{self.problem}"


@dataclass(frozen=True, slots=True)
class Said:
    """A value and who said it."""

    value: object
    source: str

    @property
    def is_default(self) -> bool:
        """Whether nobody said it."""
        return self.source == "default"


def fault_of(name: str, said: Said, problem: str) -> ConfigFault:
    """Return the fault of one key."""
    value = "…" if _is_secret(name) else said.value
    return ConfigFault(said.source, name, value, problem)


def contradictions(effective: Mapping[str, Said]) -> Iterator[ConfigFault]:
    """Yield the faults that lie in two keys; keys that are wrong by themselves are absent."""
    yield from _http(effective)
    yield from _tls(effective)
    yield from _heartbeats(effective)
    clustered = [effective.get(name) for name in ("cluster.candidates", "cluster.join")]
    if any(item is not None and item.value for item in clustered):
        yield from _cluster(effective)
    yield from _copies(effective)


def _http(effective: Mapping[str, Said]) -> Iterator[ConfigFault]:
    host, port = effective.get("http.host"), effective.get("http.port")
    if not (host and port and port.value):
        return
    native = effective.get("listen.port")
    if native and native.value == port.value:
        problem = f"listen.port is {native.value} as well: HTTP needs a port of its own"
        yield fault_of("http.port", port, problem)


def _tls(effective: Mapping[str, Said]) -> Iterator[ConfigFault]:
    cert, key, ca = (effective.get(f"tls.{name}") for name in ("cert", "key", "ca"))
    auth = effective.get("tls.client_auth")
    if not (cert and key and ca and auth):
        return
    if cert.value and not key.value:
        yield fault_of("tls.cert", cert, "tls.key has to name the certificate's key")
    if key.value and not cert.value:
        yield fault_of("tls.key", key, "tls.cert has to name the certificate it belongs to")
    # A variable may be meant for the command line, which has one of the same name.
    if ca.value and not cert.value and not ca.source.startswith("environment"):
        yield fault_of("tls.ca", ca, "without tls.cert and tls.key there is no TLS at all")
    if auth.value != "none" and not (cert.value and ca.value):
        problem = "needs tls.cert, tls.key, and tls.ca: the CA that signs those certificates"
        yield fault_of("tls.client_auth", auth, problem)


def _heartbeats(effective: Mapping[str, Said]) -> Iterator[ConfigFault]:
    ttl, beat = effective.get("session.ttl_ms"), effective.get("session.heartbeat_interval_ms")
    if ttl and beat and isinstance(ttl.value, int) and isinstance(beat.value, int):
        high = ttl.value // 2
        if beat.value > high:
            name, blamed = (
                ("session.ttl_ms", ttl)
                if beat.is_default
                else ("session.heartbeat_interval_ms", beat)
            )
            problem = (
                f"at least two heartbeats must fit into session.ttl_ms = {ttl.value}:"
                f" session.heartbeat_interval_ms may be at most {high}"
            )
            yield fault_of(name, blamed, problem)


def _copies(effective: Mapping[str, Said]) -> Iterator[ConfigFault]:
    copies, least = effective.get("cluster.copies"), effective.get("cluster.min_in_sync")
    acks = effective.get("cluster.acks")
    if not (copies and isinstance(copies.value, int) and copies.value):
        return
    if least and isinstance(least.value, int) and least.value > copies.value:
        problem = f"no write would ever be taken: at most cluster.copies = {copies.value}"
        yield fault_of("cluster.min_in_sync", least, problem)
    if acks and str(acks.value).isdigit() and int(str(acks.value)) > copies.value:
        problem = f'at most cluster.copies = {copies.value}; "all" waits for all that are in sync'
        yield fault_of("cluster.acks", acks, problem)


# --- clusters --------------------------------------------------------------------------------


def _cluster(effective: Mapping[str, Said]) -> Iterator[ConfigFault]:
    """Yield what is wrong with a node that is to be one of several."""
    said_candidates = effective.get("cluster.candidates")
    candidates = parse_candidates(str(said_candidates.value)) if said_candidates else ()
    if said_candidates and candidates:
        yield from _candidate_list(said_candidates, candidates)
    node = effective.get("node.id")
    if node and node.is_default:
        problem = "every node of a cluster has an id of its own: say which, also if it is 1"
        yield fault_of("node.id", node, problem)
    mine = next((c.address for c in candidates if node and c.node_id == node.value), None)
    yield from _self(effective, mine)
    join = effective.get("cluster.join")
    if mine is not None and join and join.value:
        yield fault_of(
            "cluster.join",
            join,
            "this node is one of cluster.candidates, which found a cluster together: take it"
            " from that list if the cluster is there already, else say nothing here",
        )
    durability = effective.get("durability")
    if durability and durability.value != "sync":
        yield fault_of(
            "durability",
            durability,
            'a node of a cluster answers for what it wrote: "sync" is what it must be, or a power'
            " cut of several nodes would lose what was acknowledged",
        )
    yield from _secret(effective, candidates)


def _candidate_list(said: Said, candidates: tuple[CandidateAddress, ...]) -> Iterator[ConfigFault]:
    name = "cluster.candidates"
    if len(candidates) not in CANDIDATE_COUNTS:
        counts = "1, 3 or 5"
        problem = f"{len(candidates)} candidates: name {counts}; all other nodes use cluster.join"
        yield fault_of(name, said, problem)
    ids = [candidate.node_id for candidate in candidates]
    if twice := [node for node in dict.fromkeys(ids) if ids.count(node) > 1]:
        yield fault_of(name, said, f"id {twice[0]} is named twice")
    addresses = [candidate.address for candidate in candidates]
    if again := [a for a in dict.fromkeys(addresses) if addresses.count(a) > 1]:
        yield fault_of(name, said, f"address {again[0]} is named twice")
    if nowhere := [a for a in addresses if is_any(a.host)]:
        yield fault_of(name, said, f"nobody can dial {nowhere[0]}: name the machine's address")


def _self(effective: Mapping[str, Said], mine: Address | None) -> Iterator[ConfigFault]:
    """Yield what is wrong with where others are to reach this node."""
    host, port = effective.get("listen.host"), effective.get("listen.port")
    advertise = effective.get("listen.advertise")
    if advertise and advertise.value:
        address = parse_address(str(advertise.value))
        if mine is not None and address != mine:
            problem = f"cluster.candidates has this node at {mine}: say the same in both"
            yield fault_of("listen.advertise", advertise, problem)
        elif is_any(address.host):
            problem = "nobody can dial that: name the machine's address"
            yield fault_of("listen.advertise", advertise, problem)
        return
    if mine is None and host and is_any(str(host.value)):
        problem = "others need an address of this node to dial: set listen.advertise"
        yield fault_of("listen.host", host, problem)
    if mine is not None and port and port.value == 0:
        problem = f"others dial this candidate at {mine}: it needs a port of its own"
        yield fault_of("listen.port", port, problem)


def _secret(
    effective: Mapping[str, Said], candidates: tuple[CandidateAddress, ...]
) -> Iterator[ConfigFault]:
    secret, file = effective.get("cluster.secret"), effective.get("cluster.secret_file")
    if secret is None or secret.value or (file and file.value):
        return
    admin = effective.get("access.admin_token_hash")
    if admin and admin.value:
        problem = (
            "nodes know each other by cluster.secret where access is controlled: set that, too"
        )
        yield fault_of("access.admin_token_hash", admin, problem)
    hosts = [candidate.address.host for candidate in candidates]
    if join := effective.get("cluster.join"):
        hosts += [seed.host for seed in parse_seeds(str(join.value))]
    if listen := effective.get("listen.host"):
        hosts.append(str(listen.value))
    reached = next((host for host in hosts if not is_loopback(host)), None)
    if reached is not None:
        yield ConfigFault(
            secret.source,
            "cluster.secret",
            "",
            f"needed, because other machines are reached ({reached}): make one with"
            " `ss-govern cluster secret`, and give every node the same, best by"
            " cluster.secret_file",
        )


# --- telling -----------------------------------------------------------------------------------


def _is_secret(key: str) -> bool:
    # Also a name that was misspelt.
    leaf = key.rpartition(".")[2].upper()
    return "SECRE" in leaf and "FILE" not in leaf


def _shown(key: str, value: object) -> str:
    if _is_secret(key) and value:
        return "…"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
