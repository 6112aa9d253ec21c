"""Rows of figures as an aligned table for people and as Markdown for docs/benchmarks.md.

Knows nothing of how a figure came about: a row says what was measured, who got which
figure, what was wanted, and in its notes why the figure can be believed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Unit = Literal["/s", "s", "bytes", "share", ""]

_BEGIN = "<!-- figures of {}: written by make bench, do not edit by hand -->"
_END = "<!-- end of figures of {} -->"


@dataclass(frozen=True, slots=True)
class Figure:
    """A median; `low` and `high` are the extremes over the rounds, if there were several."""

    value: float
    unit: Unit
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        return humane(self.value, self.unit)

    @property
    def spread(self) -> str:
        if self.low is None or self.high is None or self.low == self.high:
            return ""
        return f"{humane(self.low, self.unit)} to {humane(self.high, self.unit)}"


@dataclass(frozen=True, slots=True)
class NotMeasured:
    why: str

    def __str__(self) -> str:
        return "not measured"


@dataclass(frozen=True, slots=True)
class Result:
    """One row. `figures` is by name, ours under the name of `ours`; the rest are peers.

    `met` is whether ours is as wanted; None if that cannot be said.
    """

    what: str
    figures: Mapping[str, Figure | NotMeasured]
    wanted: str = ""
    met: bool | None = None
    notes: Sequence[str] = ()
    ours: str = "ss-govern"

    def ratios(self) -> dict[str, float]:
        """Return ours divided by each peer's that was measured in the same unit."""
        ours = self.figures.get(self.ours)
        if not isinstance(ours, Figure):
            return {}
        return {
            name: ours.value / peer.value
            for name, peer in self.figures.items()
            if name != self.ours
            and isinstance(peer, Figure)
            and peer.unit == ours.unit
            and peer.value
        }


@dataclass(frozen=True, slots=True)
class Report:
    """All rows of a run, and what has to be known to repeat it."""

    machine: Sequence[str]
    versions: Sequence[str]
    command: str
    results: Sequence[Result] = field(default_factory=tuple)


def humane(value: float, unit: Unit) -> str:
    """Return a figure with three or four digits and its unit."""
    match unit:
        case "/s":
            return f"{value:,.0f}/s"
        case "s":
            if value < 1e-3:
                return f"{value * 1e6:,.0f} µs"
            return f"{value * 1e3:,.3g} ms" if value < 1 else f"{value:,.2f} s"
        case "bytes":
            return f"{value:,.0f} B" if value < 10_000 else f"{value / 1e6:,.2f} MB"
        case "share":
            return f"{value * 100:.1f} %"
        case "":
            return f"{value:,.4g}"


def text(report: Report) -> str:
    """Return the table for a terminal, notes below it."""
    head, rows = _grid(report.results)
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [*report.machine, *report.versions, ""]
    lines.append(_aligned(head, widths))
    lines.append("  ".join("─" * width for width in widths))
    lines += [_aligned(row, widths) for row in rows]
    for result in report.results:
        notes = _notes(result)
        if notes:
            lines += ["", result.what, *(f"  {note}" for note in notes)]
    return "\n".join(lines) + "\n"


def markdown(report: Report, title: str) -> str:
    """Return the section for docs/benchmarks.md, between the lines that mark it."""
    head, rows = _grid(report.results)
    lines = [_BEGIN.format(title), ""]
    lines += [f"- {line}" for line in [*report.machine, *report.versions]]
    lines += [f"- command: `{report.command}`", ""]
    lines.append("| " + " | ".join(head) + " |")
    lines.append("|---|" + "---:|" * (len(head) - 1))
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    for result in report.results:
        notes = _notes(result)
        if notes:
            lines += ["", f"**{result.what}**", "", *(f"- {note}" for note in notes)]
    return "\n".join([*lines, "", _END.format(title), ""])


def write_markdown(report: Report, path: Path, title: str) -> None:
    """Put a section into a file, in place of what it has of it; all else stays as it is."""
    section = markdown(report, title)
    before = path.read_text() if path.exists() else "# Benchmarks\n\n"
    last_line = _END.format(title)
    start, end = before.find(_BEGIN.format(title)), before.find(last_line)
    if start >= 0 and end > start:
        after = before[end + len(last_line) :].removeprefix("\n")
        path.write_text(before[:start] + section + after)
    else:
        path.write_text(before.rstrip("\n") + "\n\n" + section)


def _grid(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    names = _columns(results)
    head = ["what", *names, "ours ÷ theirs", "wanted", "met"]
    rows = []
    for result in results:
        figures = [str(result.figures.get(name, "–")) for name in names]
        ratios = ", ".join(f"{ratio:.2f} × {name}" for name, ratio in result.ratios().items())
        met = {True: "yes", False: "no", None: "–"}[result.met]
        rows.append([result.what, *figures, ratios or "–", result.wanted or "–", met])
    return head, rows


def _columns(results: Sequence[Result]) -> list[str]:
    """Return all names that have figures, ours first, the others as they come up."""
    ours = [result.ours for result in results]
    theirs = [name for result in results for name in result.figures]
    return list(dict.fromkeys([*ours, *theirs]))


def _notes(result: Result) -> list[str]:
    notes = [
        f"{name}: not measured: {figure.why}"
        for name, figure in result.figures.items()
        if isinstance(figure, NotMeasured)
    ]
    notes += [
        f"{name}: {figure}, rounds from {figure.spread}"
        for name, figure in result.figures.items()
        if isinstance(figure, Figure) and figure.spread
    ]
    return [*notes, *result.notes]


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = zip(row, widths, strict=True)
    cells = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]
    return "  ".join(cells).rstrip()
