"""The audit on disk: its files, its end of space, and its lives."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from ssgovern import limits
from ssgovern.node.audit_log import FILE, AuditLog
from ssgovern.service.audit import Audit
from ssgovern.sim.disk import DiskImage, SimDisk
from ssgovern.wire.pb import native_pb2


async def at_once(_operation: str) -> None:
    """No latency."""


class Life:
    """One life of a node, as far as its audit goes."""

    def __init__(self, image: DiskImage, file_bytes: int = limits.AUDIT_FILE_BYTES) -> None:
        self.audit = Audit(lambda: 1_000)
        self.log = AuditLog(self.audit, file_bytes)
        self.log.open(SimDisk(image, at_once), 1)

    def note(self, *targets: str) -> None:
        """Note changes, each written by itself."""
        for target in targets:
            self.audit.note(None, "10.0.0.1", "http", "put", target)
            asyncio.run(self.log.flush())

    def seen(self) -> list[tuple[int, str]]:
        page = self.audit.page(native_pb2.AuditRequest())
        return [(each.number, each.target) for each in reversed(page.entries)]


def written(image: DiskImage, name: str = FILE) -> list[str]:
    """What whoever reads the file finds in it, line by line."""
    found = []
    for line in image.read(name).splitlines():
        try:
            found.append(json.loads(line)["target"])
        except ValueError:
            continue
    return found


def test_what_was_noted_is_there_in_the_next_life() -> None:
    """With its number, from which it goes on."""
    image = DiskImage()
    Life(image).note("a", "b")
    second = Life(image)
    second.note("c")
    assert second.seen() == [(1, "a"), (2, "b"), (3, "c")]
    assert written(image) == ["a", "b", "c"]


def test_a_file_that_is_full_makes_room_for_the_next() -> None:
    """So many are kept, the newest, one after the other, and no entry is in two."""
    image = DiskImage()
    life = Life(image, file_bytes=1)
    targets = [f"t{number}" for number in range(limits.AUDIT_FILES_KEPT + 5)]
    life.note(*targets)
    names = ["audit.jsonl", *(f"audit.{n}.jsonl" for n in range(1, limits.AUDIT_FILES_KEPT))]
    assert sorted(image.names()) == sorted(names)
    kept = [target for name in reversed(names) for target in written(image, name)]
    assert kept == targets[-limits.AUDIT_FILES_KEPT :]


def test_numbers_go_on_behind_a_file_that_was_just_begun() -> None:
    """Also if the node ended before anything was in it: what was told of keeps its number."""
    image = DiskImage()
    Life(image).note("a", "b")
    image.rename(FILE, "audit.1.jsonl")
    second = Life(image)
    second.note("c")
    assert second.seen() == [(1, "a"), (2, "b"), (3, "c")]


def test_a_full_disk_costs_what_did_not_fit_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    """What is not on disk is counted, said and still shown; with room again all is written."""
    image = DiskImage()
    life = Life(image)
    life.note("a")
    # A part of the next line fits.
    image.capacity_bytes = image.used_bytes + 10
    with caplog.at_level(logging.ERROR, "ssgovern.node"):
        life.note("b", "c")
    assert life.audit.lost == 2
    assert "1 entries of the audit are not on disk: no space left" in caplog.text
    image.capacity_bytes += 100_000
    life.note("d", "e")
    assert [target for _, target in life.seen()] == ["a", "b", "c", "d", "e"]
    assert written(image) == ["a", "d", "e"]
    assert life.audit.lost == 2


def test_a_torn_line_costs_no_other() -> None:
    """A life that ended within a line is followed by one that begins a new line."""
    image = DiskImage()
    Life(image).note("a", "b")
    image.truncate(FILE, image.size(FILE) - 5)
    second = Life(image)
    second.note("c")
    third = Life(image)
    assert third.seen() == [(1, "a"), (2, "c")]
    assert written(image) == ["a", "c"]


def test_more_than_may_wait_is_counted() -> None:
    """A disk that stands still does not let the audit take all memory."""
    life = Life(DiskImage())
    for number in range(limits.AUDIT_WAITING_MAX + 3):
        life.audit.note(None, "10.0.0.1", "http", "put", f"t{number}")
    assert life.audit.lost == 3
