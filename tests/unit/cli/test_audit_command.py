"""`audit` and the same over HTTP, against a real node and against none."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from click.testing import CliRunner, Result
from nodes import Stage, for_real

from ssgovern import limits
from ssgovern.cli.app import app
from ssgovern.cli.audit import line_of
from ssgovern.errors import PermissionDeniedError
from ssgovern.node.config import config_keys
from ssgovern.service.access import Principal
from ssgovern.wire.pb import native_pb2

ANN = Principal("ann", "user:ann")


def call(address: str, *arguments: str) -> Result:
    cleared = {key.variable: None for key in config_keys()}
    return CliRunner().invoke(app, ["audit", *arguments, "-s", address], env=cleared)


def test_what_was_done_is_shown_and_counted_out(tmp_path: Path) -> None:
    """As lines, the oldest first, and as a document, the newest first, over all pages."""

    async def body(stage: Stage) -> None:
        address = f"127.0.0.1:{stage.ready.port}"
        audit = stage.node.audit
        for number in range(limits.AUDIT_PAGE_MAX + 10):
            audit.note(None, "10.0.0.1", "http", "put", f"/n{number}")
        audit.note(ANN, "10.0.0.2", "native", "update", "x", changes=[("weight", "1", "2")])
        audit.note(ANN, "10.0.0.2", "native", "purge", error=PermissionDeniedError("no"))

        def commands() -> None:
            lines = call(address, "--limit", "3").output.splitlines()
            assert len(lines) == 3
            assert "anybody from 10.0.0.1 (http): put /n509" in lines[0]
            assert "ok  ann from 10.0.0.2 (native): update x, weight 1 -> 2" in lines[1]
            assert "permission_denied" in lines[2]
            found = json.loads(call(address, "--limit", "2000", "--json").output)
            assert not found["more"]
            numbers = [each["number"] for each in found["entries"]]
            assert numbers == list(range(limits.AUDIT_PAGE_MAX + 12, 0, -1))
            of_ann = json.loads(call(address, "--who", "ann", "--json").output)["entries"]
            assert [each["action"] for each in of_ann] == ["purge", "update"]
            assert of_ann[1]["changes"] == [{"name": "weight", "before": "1", "after": "2"}]
            assert json.loads(call(address, "--limit", "1", "--json").output)["more"]
            assert call(address, "--who", "nobody").exit_code == 0

        await asyncio.to_thread(commands)

    for_real(body, tmp_path)


def test_a_line_cannot_be_broken_by_what_somebody_asked_for() -> None:
    """Control characters in what was asked for are shown, not obeyed."""
    entry = native_pb2.AuditEntry(
        who="a\x1b[2J", target="x\ny", detail="z\rz", outcome="ok", time_ms=1_700_000_000_000
    )
    assert line_of(entry).isprintable()
