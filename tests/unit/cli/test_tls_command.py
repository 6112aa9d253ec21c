"""`tls`: what it makes can be used, and is never overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ssgovern.cli.app import app
from ssgovern.transport.tls_context import Shown, dialling_context, listening_context


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_init_makes_a_ca_nodes_and_a_client_that_fit_together(tmp_path: Path) -> None:
    """Contexts can be made of them; keys are for their owner alone."""
    out = tmp_path / "tls"
    result = run("tls", "init", "--out", str(out), "--hosts", "a.example,10.0.0.1", "--hosts", "b")
    assert result.exit_code == 0, result.output
    names = ["ca", "node-1", "node-2", "client"]
    assert sorted(path.name for path in out.iterdir()) == sorted(
        f"{name}.{kind}" for name in names for kind in ("pem", "key")
    )
    for name in ("node-1", "node-2"):
        shown = Shown(str(out / f"{name}.pem"), str(out / f"{name}.key"))
        listening_context(shown, str(out / "ca.pem"))
        dialling_context(str(out / "ca.pem"), shown)
    assert {(out / f"{name}.key").stat().st_mode & 0o777 for name in names} == {0o600}
    shown_by = json.loads(run("tls", "show", "--json", str(out / "node-1.pem")).output)
    assert shown_by[0]["hosts"] == ["a.example", "10.0.0.1"]
    assert shown_by[0]["usages"] == ["server", "client"]


def test_init_again_adds_to_the_same_ca(tmp_path: Path) -> None:
    """Nothing that is there is touched."""
    run("tls", "init", "--out", str(tmp_path))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert run("tls", "init", "--out", str(tmp_path), "--hosts", "c").exit_code == 0
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(after) - set(before) == {"node-2.pem", "node-2.key"}
    assert all(after[name] == text for name, text in before.items())
    assert "by      CN=ss-govern test CA" in run("tls", "show", str(tmp_path / "node-2.pem")).output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("init", "--out", "/proc/nowhere"), "cannot write"),
        (("init", "--hosts", ","), "names no host"),
        (("init", "--hosts", "a b"), "expected the name or the address of a host"),
        (("show", "/nowhere.pem"), "/nowhere.pem: cannot be read"),
    ],
)
def test_what_is_wrong_is_said(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    """In a sentence, with an exit code for wrong usage."""
    if arguments[0] == "init" and "--out" not in arguments:
        arguments = (*arguments, "--out", str(tmp_path))
    result = run("tls", *arguments)
    assert result.exit_code == 2
    assert words in result.output
