"""The log: where records go, in which shape, and that files roll."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ssgovern.errors import ConfigError
from ssgovern.node.config import LogConfig
from ssgovern.node.logs import set_up_logs

log = logging.getLogger("ssgovern.node.test")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@contextmanager
def logging_to(stream: io.StringIO | None = None, **config: Any) -> Iterator[None]:
    setup = set_up_logs(LogConfig(**config), stream)
    try:
        yield
    finally:
        setup.close()


def test_console_shows_one_line_with_its_fields() -> None:
    """A record is one plain line, extra fields as key=value, when no terminal is there."""
    out = io.StringIO()
    with logging_to(out):
        log.info("recovered", extra={"shards": 256})
        log.debug("not shown")
    (line,) = out.getvalue().splitlines()
    assert line.endswith("INFO    node.test: recovered shards=256")


def test_colours_only_on_a_terminal_and_not_against_no_color(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Escape sequences go to terminals whose owner did not refuse them."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    with logging_to(out):
        log.warning("careful")
    assert "\x1b[33mWARNING" in out.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    with logging_to(out):
        log.warning("careful")
    assert "\x1b" not in out.getvalue()


def test_text_of_others_cannot_forge_lines() -> None:
    """Line breaks and escape sequences inside a message are shown, not obeyed."""
    out = io.StringIO()
    with logging_to(out):
        log.info("client %s", "x\n12:00 ERROR forged \x1b[2J")
    assert out.getvalue().count("\n") == 1
    assert "\\n12:00 ERROR forged \\x1b[2J" in out.getvalue()


def test_json_is_one_object_per_line_with_the_fields() -> None:
    """Programs read time, level, logger, message, extra fields and the exception."""
    out = io.StringIO()
    with logging_to(out, style="json", level="debug"):
        log.debug("a\nb", extra={"shard": 7, "message_id": "x"})
        try:
            raise ValueError("bad")
        except ValueError:
            log.exception("failed")
    first, second = (json.loads(line) for line in out.getvalue().splitlines())
    assert (first["level"], first["message"], first["shard"]) == ("debug", "a\nb", 7)
    assert first["time"].endswith("Z")
    assert "ValueError: bad" in second["exception"]


def test_files_keep_errors_apart(tmp_path: Path) -> None:
    """ss-govern.log has everything, ss-govern.error the errors alone."""
    with logging_to(style="files", dir=str(tmp_path / "log")):
        log.info("fine")
        log.error("broken")
    everything = (tmp_path / "log" / "ss-govern.log").read_text()
    errors = (tmp_path / "log" / "ss-govern.error").read_text()
    assert everything.count("\n") == 2
    assert errors.count("\n") == 1
    assert "broken" in errors


def test_files_roll_by_size_and_only_so_many_are_kept(tmp_path: Path) -> None:
    """No file grows beyond its size and the oldest go; the newest record is in the current one."""
    with logging_to(style="files", dir=str(tmp_path), file_bytes=64 << 10, files_kept=2):
        for number in range(400):
            log.info("%s %d", "x" * 1000, number)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["ss-govern.error", "ss-govern.log", "ss-govern.log.1", "ss-govern.log.2"]
    assert all(path.stat().st_size <= 64 << 10 for path in tmp_path.iterdir())
    assert (tmp_path / "ss-govern.log").read_text().endswith(" 399\n")


def test_a_directory_that_cannot_be_used_is_a_config_error(tmp_path: Path) -> None:
    """The operator is told which key to change."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"log\.dir = .*name another directory"):
        set_up_logs(LogConfig(style="files", dir=str(tmp_path / "file" / "x")))


def test_closing_leaves_logging_as_it_was() -> None:
    """Nothing of ours stays behind on the root logger."""
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    with logging_to(io.StringIO(), level="debug"):
        assert len(root.handlers) == len(before[0]) + 1
    assert (list(root.handlers), root.level) == before
