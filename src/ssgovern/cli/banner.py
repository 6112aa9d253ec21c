"""What `server` says when it is ready: who it is, what it found, what to do next."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ssgovern.cli.options import DEFAULT_SERVER
from ssgovern.cli.output import counted, toned
from ssgovern.model import instance_id
from ssgovern.version import __version__

if TYPE_CHECKING:
    from ssgovern.node.config import ServerConfig
    from ssgovern.node.node import Ready


def banner(config: ServerConfig, ready: Ready, source: str) -> str:
    """Return the lines; `source` is the configuration's file, if there was one."""
    out = sys.stdout
    address = instance_id(ready.host, ready.port)
    server = "" if address == DEFAULT_SERVER else f" -s {address}"
    if config.tls.cert:
        server += f" --tls-ca {config.tls.ca}" if config.tls.ca else " --tls"
    if ready.services or ready.entries_replayed:
        found = (
            f"{counted(ready.services, 'service')}, {counted(ready.instances, 'instance')},"
            f" {counted(ready.sessions, 'session')}, in {ready.recovery_s:.1f} s"
        )
    else:
        found = "nothing: a fresh start"
    durability = (
        "sync: an answer waits until it is on disk"
        if config.durability_interval_ms == 0
        else f"{config.durability}: a crash of the machine may lose that much"
    )
    reach = "other machines can connect, without access control" * config.listen.insecure
    facts = {
        "node": f"{config.node.name} (id {config.node.id})",
        "address": address + (f"   ({reach})" if reach else ""),
        **({"cluster": _part(config, ready)} if config.is_clustered else {}),
        **({"tls": _tls(config)} if config.tls.cert else {}),
        **({"console": _console(config)} if config.http.port else {}),
        "data": str(Path(config.data_dir).resolve()),
        "durability": durability,
        "recovered": found,
        "config": source or "defaults",
    }
    if config.log.style == "files":
        facts["log"] = str(Path(config.log.dir).resolve())

    def line(label: str, text: str) -> str:
        return f"  {toned(f'{label:<11}', 'dim', out)} {text}"

    return "\n".join(
        [
            "",
            f"  {toned(f'ss-govern {__version__}', 'strong', out)}  ready",
            "",
            *(line(label, text) for label, text in facts.items()),
            "",
            line("try", f"ss-govern register orders --port 8080{server}"),
            line("", f"ss-govern watch orders{server}"),
            line("", f"ss-govern services{server}"),
            line("stop", "Ctrl-C; twice stops at once"),
            "",
        ]
    )


def _console(config: ServerConfig) -> str:
    scheme = "https" if config.tls.cert else "http"
    return f"{scheme}://{instance_id(config.http.host, config.http.port)}/"


def _tls(config: ServerConfig) -> str:
    asked = {"none": "nobody", "optional": "other nodes", "required": "everybody"}
    return f"on all ports; a certificate is asked of {asked[config.tls.client_auth]}"


def _part(config: ServerConfig, ready: Ready) -> str:
    reached = f"reached at {config.advertised(ready.port)}"
    if config.is_candidate:
        ids = ", ".join(str(candidate.node_id) for candidate in config.candidates)
        noun = "one of the candidates" if len(config.candidates) > 1 else "the only candidate,"
        return f"{noun} {ids}; {reached}"
    return f"joins through {', '.join(map(str, config.seeds))}; {reached}"
