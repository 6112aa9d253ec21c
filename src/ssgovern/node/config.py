"""What a node can be told: one table of keys, with their types, limits and defaults.

The key `session.ttl_ms` is `ttl_ms` under `[session]` in the file, the variable
`SS_GOVERN_SESSION_TTL_MS` and the flag `--session-ttl-ms`. `ssgovern.node.config_load` reads
them. Relative paths are relative to the working directory of the process.

Refuses to know how a key is used and where it was said.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

from ssgovern import limits
from ssgovern.node.topology import (
    Address,
    CandidateAddress,
    parse_address,
    parse_candidates,
    parse_seeds,
)
from ssgovern.replication.messages import ACKS_ALL

ENV_PREFIX = "SS_GOVERN_"
LISTEN_PORT = 7420
HTTP_PORT = 7421

_DURABILITY = re.compile(r"interval\(\s*([0-9]{1,6})\s*ms\s*\)")
_SECRET = re.compile(r"[!-~]{16,256}")
_ADMIN_TOKEN = re.compile(r"[0-9a-z]{1,32}:[0-9a-f]{64}")
_ACKS = re.compile(r"all|primary|[1-7]")

COPIES_MAX = 7
SECRET_ALLOWED = "16 to 256 letters, digits and signs without spaces"


@dataclass(frozen=True, slots=True)
class Allowed:
    """Words for what a key allows, where its type does not say it."""

    text: str


def _printable(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError
    return text


def _host(text: str) -> str:
    if not text or not text.isprintable() or any(c in " /@" for c in text):
        raise ValueError
    return text


def _durability(text: str) -> str:
    if text == "sync":
        return text
    found = _DURABILITY.fullmatch(text)
    if found is None or not 1 <= int(found[1]) <= 60_000:
        raise ValueError
    return f"interval({int(found[1])}ms)"


def _zone(text: str) -> str:
    if not text.isprintable():
        raise ValueError
    return text


def _candidates(text: str) -> str:
    return ",".join(f"{node}@{address}" for node, address in parse_candidates(text))


def _seeds(text: str) -> str:
    return ",".join(map(str, parse_seeds(text)))


def _advertise(text: str) -> str:
    return str(parse_address(text)) if text else ""


def _secret(text: str) -> str:
    if text and not _SECRET.fullmatch(text):
        raise ValueError
    return text


def _admin_token(text: str) -> str:
    if text and not all(_ADMIN_TOKEN.fullmatch(each) for each in text.split(",")):
        raise ValueError
    return text


def _path_or_nothing(text: str) -> str:
    return _printable(text) if text else ""


def _acks(text: str) -> str:
    if not _ACKS.fullmatch(text):
        raise ValueError
    return text


def _host_name() -> str:
    return socket.gethostname()[: limits.CLIENT_NAME_BYTES_MAX] or "node"


DirectoryPath = Annotated[str, AfterValidator(_printable), Allowed("the path of a directory")]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class NodeConfig(_Section):
    """`[node]`: who this node is."""

    name: Annotated[
        str,
        AfterValidator(_printable),
        Allowed(f"1 to {limits.CLIENT_NAME_BYTES_MAX} printable characters"),
        Field(max_length=limits.CLIENT_NAME_BYTES_MAX, description="name for people"),
    ] = Field(default_factory=_host_name)
    id: Annotated[int, Field(ge=1, le=2**31 - 1, description="number, unique in the cluster")] = 1
    zone: Annotated[
        str,
        AfterValidator(_zone),
        Allowed(f"up to {limits.ZONE_BYTES_MAX} printable characters"),
        Field(
            max_length=limits.ZONE_BYTES_MAX,
            description="what fails together with it, a rack or a room: copies go to others",
        ),
    ] = ""


class ListenConfig(_Section):
    """`[listen]`: where clients and peers connect to."""

    host: Annotated[
        str,
        AfterValidator(_host),
        Allowed("an address or host name of this machine"),
        Field(description="address to listen on"),
    ] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="port; 0 takes any free one")] = (
        LISTEN_PORT
    )
    insecure: Annotated[
        bool,
        Field(description="let whoever reaches the node do everything, if nobody is set up"),
    ] = False
    advertise: Annotated[
        str,
        AfterValidator(_advertise),
        Allowed("host:port at which clients and other nodes reach this one"),
        Field(description="host:port at which others reach this node, if not where it listens"),
    ] = ""


class HttpConfig(_Section):
    """`[http]`: console, open API, metrics and health. On where `load_config` says so."""

    host: Annotated[
        str,
        AfterValidator(_host),
        Allowed("an address or host name of this machine"),
        Field(description="address to listen on for HTTP"),
    ] = "127.0.0.1"
    port: Annotated[
        int,
        Field(
            ge=0,
            le=65535,
            description="port for HTTP; 0: none. 7421 if the node listens on 7420, else 0",
        ),
    ] = 0


class TlsConfig(_Section):
    """`[tls]`: one certificate for all ports, and for dialling. Off unless a file is named."""

    cert: Annotated[
        str,
        AfterValidator(_path_or_nothing),
        Allowed("the path of a file"),
        Field(description="certificate of this node and its chain, PEM; turns TLS on everywhere"),
    ] = ""
    key: Annotated[
        str,
        AfterValidator(_path_or_nothing),
        Allowed("the path of a file"),
        Field(description="its key, PEM, not encrypted"),
    ] = ""
    ca: Annotated[
        str,
        AfterValidator(_path_or_nothing),
        Allowed("the path of a file"),
        Field(description="CA of other nodes' and of clients' certificates, PEM; none: system's"),
    ] = ""
    client_auth: Annotated[
        Literal["none", "optional", "required"],
        Field(
            description="who shows a certificate: nobody, other nodes and clients that want to,"
            " or everybody"
        ),
    ] = "none"


class ClusterConfig(_Section):
    """`[cluster]`: which nodes this one belongs together with. Nothing said: it stands alone."""

    candidates: Annotated[
        str,
        AfterValidator(_candidates),
        Allowed("id@host:port of each, separated by commas, the same list on every node"),
        Field(description="the 1, 3 or 5 nodes that vote: id@host:port,id@host:port"),
    ] = ""
    join: Annotated[
        str,
        AfterValidator(_seeds),
        Allowed("host:port of nodes of the cluster, separated by commas"),
        Field(description="nodes of a running cluster, for a node that does not vote"),
    ] = ""
    # Excluded from every dump and repr: it must not get into logs or onto screens.
    secret: Annotated[
        str,
        AfterValidator(_secret),
        Allowed(SECRET_ALLOWED),
        Field(
            exclude=True,
            repr=False,
            description="what nodes prove to each other; as a flag, every user of the machine"
            " can read it: better cluster.secret_file",
        ),
    ] = ""
    secret_file: Annotated[
        str,
        AfterValidator(_path_or_nothing),
        Allowed("the path of a file"),
        Field(description="file that holds the secret, and nothing else"),
    ] = ""
    copies: Annotated[
        int,
        Field(
            ge=0,
            le=COPIES_MAX,
            description="copies of each shard when the cluster is founded; 0: 3 with three"
            " candidates or more, else 2",
        ),
    ] = 0
    min_in_sync: Annotated[
        int,
        Field(
            ge=0,
            le=COPIES_MAX,
            description="copies that must hold a write when the cluster is founded; with fewer,"
            " writes are refused; 0: 2 with three copies or more, else 1",
        ),
    ] = 0
    acks: Annotated[
        str,
        AfterValidator(_acks),
        Allowed(f'"all", "primary" or a number of copies from 1 to {COPIES_MAX}'),
        Field(description="which copies hold a write before it is answered; all: all in sync"),
    ] = "all"


class AccessConfig(_Section):
    """`[access]`: who may do anything before anybody else is set up."""

    admin_token_hash: Annotated[
        str,
        AfterValidator(_admin_token),
        Allowed("what `ss-govern access init --cluster` prints, the same on every node"),
        Field(description="id and hash of a token that is admin on this node; not the token"),
    ] = ""


class SessionConfig(_Section):
    """`[session]`: when a silent client is given up."""

    ttl_ms: Annotated[
        int, Field(ge=1000, le=3_600_000, description="a session silent for so long expires")
    ] = 5000
    heartbeat_interval_ms: Annotated[
        int, Field(ge=100, le=1_800_000, description="how often clients are to send a heartbeat")
    ] = 1000
    close_grace_ms: Annotated[
        int,
        Field(ge=0, le=3_600_000, description="time to come back after a connection was lost"),
    ] = 1000


class ProtectionConfig(_Section):
    """`[protection]`: when too many sessions would expire at once."""

    share: Annotated[
        float, Field(gt=0.0, le=1.0, description="hold back if more than this share would expire")
    ] = 0.5
    sessions_min: Annotated[
        int, Field(ge=1, le=1_000_000, description="never hold back with fewer sessions than this")
    ] = 32
    hold_ms: Annotated[
        int, Field(ge=0, le=3_600_000, description="hold back for at most so long")
    ] = 30_000


class StorageConfig(_Section):
    """`[storage]`: sizes of the write-ahead log."""

    segment_bytes: Annotated[
        int, Field(ge=1 << 20, le=1 << 30, description="size at which a new segment is begun")
    ] = limits.WAL_SEGMENT_BYTES
    wal_bytes_before_snapshot: Annotated[
        int, Field(ge=1 << 20, le=1 << 40, description="size of the log that starts snapshots")
    ] = 4 * limits.WAL_SEGMENT_BYTES


class LimitsConfig(_Section):
    """`[limits]`: what may connect."""

    connections_max: Annotated[int, Field(ge=1, le=1_000_000, description="connections in all")] = (
        limits.CONNECTIONS_MAX
    )
    connections_per_address_max: Annotated[
        int, Field(ge=1, le=1_000_000, description="connections from one address")
    ] = 20_000


class LogConfig(_Section):
    """`[log]`: what the node tells operators."""

    style: Annotated[
        Literal["console", "files", "json"],
        Field(description="for people, rolling files, or JSON lines on standard error"),
    ] = "console"
    dir: Annotated[DirectoryPath, Field(description="where style files writes")] = "ss-govern-log"
    level: Annotated[
        Literal["debug", "info", "warning", "error"], Field(description="least level to log")
    ] = "info"
    file_bytes: Annotated[
        int, Field(ge=64 << 10, le=1 << 34, description="size at which a log file is rolled")
    ] = 64 << 20
    files_kept: Annotated[
        int, Field(ge=1, le=1000, description="rolled files kept beside the one being written")
    ] = 10


class ServerConfig(_Section):
    """Everything a node can be told. Frozen; built by `load_config` or, in tests, by hand."""

    node: NodeConfig = Field(default_factory=NodeConfig)
    listen: ListenConfig = Field(default_factory=ListenConfig)
    http: HttpConfig = Field(default_factory=HttpConfig)
    tls: TlsConfig = Field(default_factory=TlsConfig)
    cluster: ClusterConfig = Field(default_factory=ClusterConfig)
    data_dir: Annotated[DirectoryPath, Field(description="where the node keeps its data")] = (
        "ss-govern-data"
    )
    durability: Annotated[
        str,
        AfterValidator(_durability),
        Allowed('"sync", or "interval(<n>ms)" with n from 1 to 60000'),
        Field(description="sync before an answer, or at intervals (a crash loses the last one)"),
    ] = "sync"
    access: AccessConfig = Field(default_factory=AccessConfig)
    session: SessionConfig = Field(default_factory=SessionConfig)
    protection: ProtectionConfig = Field(default_factory=ProtectionConfig)
    storage: StorageConfig = Field(default_factory=StorageConfig)
    limits: LimitsConfig = Field(default_factory=LimitsConfig)
    log: LogConfig = Field(default_factory=LogConfig)

    @property
    def durability_interval_ms(self) -> int:
        """Milliseconds between syncs; 0: every answer waits for its sync."""
        found = _DURABILITY.fullmatch(self.durability)
        return int(found[1]) if found else 0

    @property
    def is_clustered(self) -> bool:
        """Whether this node is, or wants to be, one of several."""
        return bool(self.cluster.candidates or self.cluster.join)

    @property
    def candidates(self) -> tuple[CandidateAddress, ...]:
        """The nodes that vote when the cluster is founded, by id. Later its log says who does."""
        return parse_candidates(self.cluster.candidates)

    @property
    def is_candidate(self) -> bool:
        """Whether this node votes when the cluster is founded."""
        return self._candidate_address is not None

    @property
    def seeds(self) -> tuple[Address, ...]:
        """Where other nodes of the cluster may be found: `join`, then the other candidates."""
        others = (c.address for c in self.candidates if c.node_id != self.node.id)
        return tuple(dict.fromkeys([*parse_seeds(self.cluster.join), *others]))

    def advertised(self, port: int) -> str:
        """Return host:port at which others reach this node, which listens on `port`."""
        if self.listen.advertise:
            return self.listen.advertise
        if self._candidate_address is not None:
            return str(self._candidate_address)
        return str(Address(self.listen.host, port))

    @property
    def cluster_secret(self) -> bytes:
        """What nodes prove to each other; empty: nothing, on one machine only."""
        return self.cluster.secret.encode()

    @property
    def admin_tokens(self) -> dict[str, bytes]:
        """Hashes, by id, of the tokens that are admin on this node."""
        said = self.access.admin_token_hash
        pairs = [each.partition(":") for each in said.split(",")] if said else []
        return {id_: bytes.fromhex(hashed) for id_, _, hashed in pairs}

    @property
    def copies_at_founding(self) -> int:
        """Copies of each shard, if this node founds the cluster."""
        return self.cluster.copies or (3 if len(self.candidates) >= 3 else 2)

    @property
    def min_in_sync_at_founding(self) -> int:
        """Copies without which no write is taken, if this node founds the cluster."""
        return self.cluster.min_in_sync or (2 if self.copies_at_founding >= 3 else 1)

    @property
    def acks(self) -> int:
        """How many of the in-sync set hold a write before it is answered; 0: all of it."""
        words = {"all": ACKS_ALL, "primary": 1}
        return words[self.cluster.acks] if self.cluster.acks in words else int(self.cluster.acks)

    @property
    def _candidate_address(self) -> Address | None:
        mine = (c.address for c in self.candidates if c.node_id == self.node.id)
        return next(mine, None)


# --- the keys ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConfigKey:
    """One key in its three spellings."""

    name: str
    kind: type
    allowed: str
    description: str
    default: object
    is_secret: bool = False
    """Its value is never shown."""

    @property
    def variable(self) -> str:
        """The name in the environment."""
        return ENV_PREFIX + self.name.replace(".", "_").upper()

    @property
    def flag(self) -> str:
        """The option of `ss-govern server`."""
        return "--" + self.name.replace(".", "-").replace("_", "-")


def config_keys() -> tuple[ConfigKey, ...]:
    """Return all keys, in the order of the example file."""
    return tuple(_keys_of(ServerConfig, ""))


def _keys_of(section: type[BaseModel], prefix: str) -> Iterator[ConfigKey]:
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _keys_of(kind, f"{prefix}{name}.")
        else:
            yield ConfigKey(
                prefix + name,
                kind if isinstance(kind, type) else str,
                _allowed(field),
                field.description or "",
                field.get_default(call_default_factory=True, validated_data={}),
                is_secret=bool(field.exclude),
            )


def _allowed(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        *most, last = (f'"{choice}"' for choice in get_args(field.annotation))
        return f"{', '.join(most)} or {last}"
    if field.annotation is bool:
        return "true or false"
    for item in field.metadata:
        if isinstance(item, Allowed):
            return item.text
    low = next((i.ge for i in field.metadata if isinstance(i, Ge)), None)
    above = next((i.gt for i in field.metadata if isinstance(i, Gt)), None)
    high = next(i.le for i in field.metadata if isinstance(i, Le))
    if low is None:
        return f"numbers above {above:g} and up to {high:g}"
    return f"whole numbers from {low} to {high}"
