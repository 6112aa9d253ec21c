"""From values to HTML: templates of one language, and how numbers and times are written.

Knows no node. Invariant: everything a template fills in is escaped (autoescape), so that names and
metadata, which anybody may choose, stay text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from urllib.parse import quote

from jinja2 import BytecodeCache, Environment, PackageLoader, StrictUndefined
from jinja2.bccache import Bucket
from markupsafe import Markup

from ssgovern.api.http.console.assets import Assets
from ssgovern.api.http.console.words import LANGUAGES, Language, say
from ssgovern.model import ServiceKey


@dataclass(slots=True)
class View:
    """A page, as far as it changes: pieces of HTML by their ids, and tables as lists of ids."""

    pieces: dict[str, str] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)
    points: dict[str, list[tuple[int, float | None]]] = field(default_factory=dict)
    """Charts: pairs of time and value, oldest first."""


class _Compiled(BytecodeCache):
    """Templates are compiled once and not for each language."""

    def __init__(self) -> None:
        self._by_key: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        code = self._by_key.get(bucket.key)
        if code is not None:
            bucket.bytecode_from_string(code)

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._by_key[bucket.key] = bucket.bytecode_to_string()


_COMPILED = _Compiled()


@cache
def looks() -> dict[Language, Look]:
    """Return the templates by language, made once in a process."""
    assets = Assets()
    return {each: Look(each, assets) for each in LANGUAGES}


def add_list(view: View, name: str, items: Iterable[tuple[str, str]]) -> None:
    """Let a view have a table: pairs of the id and the piece of each row."""
    ids: list[str] = []
    for id_, piece in items:
        ids.append(id_)
        view.pieces[id_] = piece
    view.lists[name] = ids


class Look:
    """The templates in one language."""

    def __init__(self, language: Language, assets: Assets) -> None:
        self.language = language
        self.assets = assets
        self._environment = Environment(
            loader=PackageLoader("ssgovern.api.http.console"),
            bytecode_cache=_COMPILED,
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {
            "count": count,
            "size": size,
            "span": span,
            "clock": clock,
            "number": number,
            "part": part,
        }
        self._environment.globals |= {
            "t": self.say,
            "lang": language,
            "asset": assets.address,
            "service_url": service_url,
            "instance_url": instance_url,
            "dom_id": dom_id,
        }
        for name in self._environment.list_templates(["html"]):
            # Now and not with the first page: compiling takes long enough to hold up a node.
            self._environment.get_template(name)

    def say(self, key: str, **gaps: object) -> str:
        """Return a text in this language."""
        return say(self.language, key, **gaps)

    def page(self, name: str, **values: object) -> str:
        """Render a whole page."""
        return self._environment.get_template(f"{name}.html").render(**values)

    def piece(self, macro: str, *values: object) -> Markup:
        """Render one piece of a page."""
        made: Markup = getattr(self._environment.get_template("pieces.html").module, macro)(*values)
        return Markup(str(made).strip())


def dom_id(kind: str, *names: str) -> str:
    """Return an id for an element: equal names, equal ids, and nothing that breaks a page."""
    return kind + "-" + "-".join(quote(name, safe="").replace("%", "_") for name in names)


def part(name: str) -> str:
    """Return a name as one part of a path. Dots, too: a browser would resolve `..`."""
    return quote(name, safe="").replace(".", "%2E") if set(name) <= {"."} else quote(name, safe="")


def service_url(key: ServiceKey) -> str:
    """Return the address of a service's page."""
    return f"/services/{part(key.namespace)}/{part(key.group)}/{part(key.service)}"


def instance_url(key: ServiceKey, instance_id: str, action: str) -> str:
    """Return the address of an action."""
    return f"/do{service_url(key)}/{part(instance_id)}/{action}"


def count(value: float) -> str:
    """Write a number of things."""
    return f"{int(value):,}"


def number(value: float) -> str:
    """Write a number with no more digits than it needs."""
    return f"{value:,.10g}" if abs(value) < 1e9 else f"{value:g}"


def size(bytes_: float) -> str:
    """Write a number of bytes."""
    value = float(bytes_)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024.0:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024.0
    return f"{value:.1f} TiB"


def span(ms: float) -> str:
    """Write a length of time in two units at most."""
    if ms < 1000:
        return f"{ms:.0f} ms"
    seconds = int(ms // 1000)
    for most, unit, below, small in (
        (60, 1, 0, "s "),
        (3600, 60, 1, "min s"),
        (86_400, 3600, 60, "h min"),
        (1 << 62, 86_400, 3600, "d h"),
    ):
        if seconds < most:
            large, _, rest = small.partition(" ")
            text = f"{seconds // unit} {large}"
            left = seconds % unit // below if below else 0
            return f"{text} {left} {rest}" if left else text
    raise AssertionError("the last bound is above all")


def clock(ms: int) -> str:
    """Write a moment, for who has no scripts: others see it in their own time zone."""
    return datetime.fromtimestamp(ms / 1000.0, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def points_json(points: dict[str, list[tuple[int, float | None]]]) -> str:
    """Write the points of charts as a page carries them."""
    return json.dumps(points, separators=(",", ":"))
