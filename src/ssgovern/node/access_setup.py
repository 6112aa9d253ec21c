"""Whether a node controls access, and what it refuses to begin without."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable

from ssgovern.errors import ConfigError
from ssgovern.node.config import ServerConfig
from ssgovern.node.topology import is_loopback
from ssgovern.runtime import Runtime
from ssgovern.service.access import Access

log = logging.getLogger("ssgovern.node")

_KEY_BYTES = 32


def open_access(config: ServerConfig, runtime: Runtime) -> Access:
    """Return the access of a node, before anything of it is known."""
    return Access(
        runtime.wall_ms,
        _internal_key(config, runtime),
        required=bool(reached_at(config)) and not config.listen.insecure,
        admin_tokens=config.admin_tokens,
    )


def reached_at(config: ServerConfig) -> str:
    """Return an address of the node that other machines reach; empty: there is none."""
    hosts = [config.listen.host]
    if config.http.port:
        hosts.append(config.http.host)
    return next((host for host in hosts if not is_loopback(host)), "")


def check_set_up(config: ServerConfig, access: Access, *, has_cluster: bool = False) -> None:
    """Raise ConfigError if the node would be open, or shut, to everybody.

    `has_cluster`: it belongs to a cluster, or joins one, where somebody may be set up.
    """
    reached = reached_at(config)
    if access.required and not access.has_admin and not has_cluster:
        how = "ss-govern access init"
        how += " --cluster" if config.is_clustered else f" --data-dir {config.data_dir}"
        raise ConfigError(
            f"other machines can reach {reached}, and nobody is set up who may use this node: run "
            f"`{how}`, which makes an admin, or listen on 127.0.0.1; listen.insecure = true would "
            "let everybody who reaches it do everything"
        )
    if reached and not access.enforced:
        log.warning(
            "access is not controlled: whoever reaches %s may do everything (listen.insecure)",
            reached,
        )


def _internal_key(config: ServerConfig, runtime: Runtime) -> Callable[[], bytes]:
    """Return what makes the key by which a node's own sessions are known, when it is needed."""
    kept: list[bytes] = []

    def key() -> bytes:
        if not kept:
            secret = config.cluster_secret
            kept.append(
                hmac.digest(secret, b"ss-govern access", "sha256")
                if secret
                else runtime.random_bytes(_KEY_BYTES)
            )
        return kept[0]

    return key
