"""Tables for people and documents for programs.

Knows nothing of services. On a terminal a table has colours and fits the width; elsewhere it
is plain aligned columns that are never cut, so that `grep` and `awk` see everything. What
others put into names and metadata cannot drive the terminal.
"""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO


@dataclass(frozen=True, slots=True)
class Cell:
    """A text with a meaning that may be shown as a colour: good, bad, dim, strong."""

    text: str
    tone: str = ""


_RICH_STYLES = {"good": "green", "bad": "red", "warn": "yellow", "dim": "dim", "strong": "bold"}
_ANSI = {"good": "32", "bad": "31", "warn": "33", "dim": "2", "strong": "1"}


def is_terminal(stream: TextIO) -> bool:
    """Tell whether somebody looks at the stream."""
    return stream.isatty()


def has_colours(stream: TextIO) -> bool:
    """Tell whether to colour: a terminal, and nobody said NO_COLOR."""
    return (
        is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )


def visible(text: str) -> str:
    """Return text with what would break the line or drive the terminal shown as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def toned(text: str, tone: str, stream: TextIO) -> str:
    """Return text in the colour of `tone`, if the stream shows colours."""
    shown = visible(text)
    return f"\x1b[{_ANSI[tone]}m{shown}\x1b[0m" if tone and has_colours(stream) else shown


def print_json(document: object, *, stream: TextIO | None = None) -> None:
    """Write one JSON document on one line, at once."""
    out = sys.stdout if stream is None else stream
    # Lone surrogates cannot be written as UTF-8, hence ASCII where they occur.
    text = json.dumps(document, ensure_ascii=False)
    if not _encodable(text):
        text = json.dumps(document)
    out.write(text + "\n")
    out.flush()


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str | Cell]],
    *,
    right: Sequence[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Write a table. `right` names the columns of numbers."""
    out = sys.stdout if stream is None else stream
    cells = [[c if isinstance(c, Cell) else Cell(c) for c in row] for row in rows]
    if is_terminal(out):
        _print_rich(columns, cells, right, out)
    else:
        _print_plain(columns, cells, right, out)
    out.flush()


def _print_rich(
    columns: Sequence[str], rows: list[list[Cell]], right: Sequence[str], out: TextIO
) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=out, no_color=None if has_colours(out) else True, highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(c.text), _RICH_STYLES.get(c.tone, "")) for c in row))
    console.print(table)


def _print_plain(
    columns: Sequence[str], rows: list[list[Cell]], right: Sequence[str], out: TextIO
) -> None:
    lines = [list(columns), *([visible(c.text) for c in row] for row in rows)]
    widths = [max(_width(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        padded = (
            " " * (widths[i] - _width(text)) + text
            if columns[i] in right
            else text + " " * (widths[i] - _width(text))
            for i, text in enumerate(line)
        )
        out.write("  ".join(padded).rstrip() + "\n")


def print_facts(facts: Mapping[str, str | Cell], *, stream: TextIO | None = None) -> None:
    """Write names and values, one pair a line."""
    out = sys.stdout if stream is None else stream
    width = max(map(_width, facts), default=0)
    for name, value in facts.items():
        cell = value if isinstance(value, Cell) else Cell(value)
        label = toned(name + " " * (width - _width(name)), "dim", out)
        out.write(f"{label}  {toned(cell.text, cell.tone, out)}\n")
    out.flush()


def _width(text: str) -> int:
    """Return how many columns a terminal needs for a text."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def counted(count: int, noun: str) -> str:
    """Return `1 segment`, `1,234 segments`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def bytes_text(count: int) -> str:
    """Return a size for people: `64.0 MiB`."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def duration_text(ms: int) -> str:
    """Return a duration for people, in its two largest units: `3 h 12 min`."""
    if ms < 1000:
        return f"{ms} ms"
    seconds = ms // 1000
    if seconds < 60:
        return f"{ms / 1000:.1f} s"
    parts: list[str] = []
    for name, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= size or parts:
            parts.append(f"{seconds // size} {name}")
            seconds %= size
    return " ".join(parts[:2])
