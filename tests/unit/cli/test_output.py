"""Tables and documents: aligned, complete, and harmless whatever is in them."""

from __future__ import annotations

import io
import json

import pytest

from ssgovern.cli.output import (
    Cell,
    bytes_text,
    counted,
    duration_text,
    print_facts,
    print_json,
    print_table,
    toned,
    visible,
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def colour_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def table(out: io.StringIO) -> str:
    rows = [(Cell("orders", "strong"), "3", "x" * 200), ("订单", "12", "y")]
    print_table(("SERVICE", "N", "NOTE"), rows, right=("N",), stream=out)
    return out.getvalue()


def test_a_table_that_nobody_looks_at_is_aligned_and_never_cut() -> None:
    """Columns line up by display width, wide characters included; no colours."""
    header, orders, chinese = table(io.StringIO()).splitlines()
    assert header == "SERVICE   N  NOTE"
    assert orders == f"orders    3  {'x' * 200}"
    assert chinese == "订单     12  y"


def test_a_table_on_a_terminal_has_colours_unless_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR and dumb terminals get none, and the content stays the same."""
    monkeypatch.setenv("COLUMNS", "120")
    assert "\x1b[1morders" in table(Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    plain = table(Terminal())
    assert "orders" in plain
    assert "\x1b[3" not in plain
    assert toned("x", "good", Terminal()) == "x"


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["pipe", "terminal"])
def test_metadata_cannot_drive_the_terminal(stream: io.StringIO) -> None:
    """Escape sequences, line breaks and rich's markup are shown as they are."""
    print_table(("M",), [("a\x1b[2Jb\nc [red]d[/red]",)], stream=stream)
    print_facts({"name": "\x1b]0;title\x07"}, stream=stream)
    shown = stream.getvalue()
    assert "a\\x1b[2Jb\\nc [red]d[/red]" in shown
    assert "\x1b[2J" not in shown
    assert "\x1b]0;" not in shown


def test_json_is_one_line_and_survives_lone_surrogates() -> None:
    """Any text that Python holds can be written."""
    out = io.StringIO()
    print_json({"a": "名\ud800"}, stream=out)
    assert out.getvalue().count("\n") == 1
    assert out.getvalue().encode()
    assert json.loads(out.getvalue()) == {"a": "名\ud800"}


def test_facts_are_aligned() -> None:
    """Values begin in one column."""
    out = io.StringIO()
    print_facts({"a": "1", "long name": Cell("2", "good")}, stream=out)
    assert out.getvalue() == "a          1\nlong name  2\n"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (64 << 20, "64.0 MiB"), (5 << 40, "5.0 TiB")],
)
def test_sizes(count: int, text: str) -> None:
    """Sizes have binary units and one digit."""
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0 ms"),
        (999, "999 ms"),
        (1500, "1.5 s"),
        (61_000, "1 min 1 s"),
        (3_600_000, "1 h 0 min"),
        (90_000_000, "1 d 1 h"),
    ],
)
def test_durations(ms: int, text: str) -> None:
    """Durations show their two largest units."""
    assert duration_text(ms) == text


def test_counts_and_escapes() -> None:
    """One is singular; printable text is left alone."""
    assert [counted(1, "segment"), counted(1234, "segment")] == ["1 segment", "1,234 segments"]
    assert visible("plain 名") == "plain 名"
