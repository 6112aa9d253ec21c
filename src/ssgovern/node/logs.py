"""How a node's log reaches people and programs.

Three styles: `console` (one coloured line per record on a terminal, plain elsewhere), `files`
(`ss-govern.log` and, for errors once more and apart, `ss-govern.error`, each rolled by size)
and `json` (one object per line). What a record carries in `extra=` is shown as `key=value`
or as fields. One record is one line, whatever a client put into a name; only a traceback
takes more.

Refuses to know what is logged. Nothing happens at import; `LogSetup.close` undoes it all.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from ssgovern.errors import ConfigError

if TYPE_CHECKING:
    from ssgovern.node.config import LogConfig

LOG_FILE = "ss-govern.log"
ERROR_FILE = "ss-govern.error"

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_COLOURS = {"DEBUG": "2", "INFO": "32", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}
_LOUD_LIBRARIES = ("asyncio",)
"""Libraries whose debug output is never about us."""


class LogSetup:
    """The handlers in force. `close` puts the root logger back as it was."""

    def __init__(self, handlers: tuple[logging.Handler, ...], level: int) -> None:
        root = logging.getLogger()
        self._handlers = handlers
        self._level_before = root.level
        for handler in handlers:
            root.addHandler(handler)
        root.setLevel(level)
        for name in _LOUD_LIBRARIES:
            logging.getLogger(name).setLevel(max(level, logging.WARNING))

    def close(self) -> None:
        """Flush and remove the handlers."""
        root = logging.getLogger()
        for handler in self._handlers:
            root.removeHandler(handler)
            handler.close()
        root.setLevel(self._level_before)
        for name in _LOUD_LIBRARIES:
            logging.getLogger(name).setLevel(logging.NOTSET)


def set_up_logs(config: LogConfig, stream: TextIO | None = None) -> LogSetup:
    """Start logging as configured; `stream` stands in for standard error.

    Raises ConfigError if the directory of the log files cannot be used.
    """
    level = logging.getLevelNamesMapping()[config.level.upper()]
    if config.style == "files":
        return LogSetup(_file_handlers(config), level)
    out = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        JsonFormatter() if config.style == "json" else LineFormatter(colours=has_colours(out))
    )
    return LogSetup((handler,), level)


def _file_handlers(config: LogConfig) -> tuple[logging.Handler, ...]:
    directory = Path(config.dir)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        everything, errors = (
            RotatingFileHandler(
                directory / name,
                maxBytes=config.file_bytes,
                backupCount=config.files_kept,
                encoding="utf-8",
                # A name may hold what UTF-8 cannot; the line matters more than that character.
                errors="backslashreplace",
            )
            for name in (LOG_FILE, ERROR_FILE)
        )
    except OSError as error:
        raise ConfigError(
            f"log.dir = {config.dir!r} cannot be written: {error.strerror};"
            " name another directory or make this one writable",
            key="log.dir",
        ) from error
    errors.setLevel(logging.ERROR)
    for handler in (everything, errors):
        handler.setFormatter(LineFormatter(colours=False, date=True))
    return everything, errors


def has_colours(stream: TextIO) -> bool:
    """Tell whether to colour what goes to `stream`: a terminal, and nobody said NO_COLOR."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class LineFormatter(logging.Formatter):
    """`12:31:02.117 INFO  storage.wal  recovered shards=256`, in local time."""

    def __init__(self, *, colours: bool, date: bool = False) -> None:
        super().__init__()
        self._colours = colours
        self._time_format = "%Y-%m-%d %H:%M:%S" if date else "%H:%M:%S"

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created).astimezone()
        level = f"{record.levelname:<7}"
        if self._colours:
            level = f"\x1b[{_COLOURS.get(record.levelname, '0')}m{level}\x1b[0m"
        name = record.name.removeprefix("ssgovern.")
        pairs = "".join(f" {key}={value}" for key, value in _extra(record).items())
        head = f"{when.strftime(self._time_format)}.{when.microsecond // 1000:03d} {level} {name}: "
        line = head + _one_line(record.getMessage() + pairs)
        trace = self._trace(record)
        return f"{line}\n{trace}" if trace else line

    def _trace(self, record: logging.LogRecord) -> str:
        return self.formatException(record.exc_info) if record.exc_info else ""


class JsonFormatter(logging.Formatter):
    """One JSON object per record: time (UTC), level, logger, message, then the extra fields."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC)
        entry: dict[str, object] = {
            "time": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for key, value in _extra(record).items():
            entry.setdefault(key, value)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _one_line(text: str) -> str:
    """Escape what would begin a new line or drive the terminal."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in text
    )
