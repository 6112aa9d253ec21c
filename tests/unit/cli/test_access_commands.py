"""Setting up the first admin, without a node."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from ssgovern.cli.app import app
from ssgovern.controller.access import AccessState
from ssgovern.errors import UnauthenticatedError
from ssgovern.model import NodeId
from ssgovern.node.access_passwords import Passwords
from ssgovern.node.access_store import load
from ssgovern.node.config_load import load_config
from ssgovern.node.identity import Identity, create
from ssgovern.runtime.real import RealRuntime
from ssgovern.service.access import Access


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        app.main(list(args))
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def state_in(directory: Path) -> AccessState:
    async def read() -> AccessState:
        disk = RealRuntime().open_disk(str(directory))
        try:
            return load(disk)
        finally:
            await disk.close()

    return asyncio.run(read())


def verified(hashed: str, password: str) -> bool:
    async def verify() -> bool:
        passwords = Passwords()
        try:
            return await passwords.verify(hashed, password)
        finally:
            passwords.close()

    return asyncio.run(verify())


def test_init_makes_an_admin_that_the_node_will_know(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The token and the password that are printed are good, and only their hashes are kept."""
    code, out, _ = run(capsys, "access", "init", "--data-dir", str(tmp_path / "d"), "--json")
    made = json.loads(out)
    state = state_in(tmp_path / "d")
    access = Access(lambda: 0, bytes)
    access.replace(state)
    assert code == 0
    access.check_everywhere(access.authenticate(made["token"]), "admin")
    assert verified(access.password_hash("admin"), made["password"])
    assert not verified(access.password_hash("admin"), made["password"] + "x")
    assert not verified(access.password_hash("nobody"), made["password"])
    kept = (tmp_path / "d" / "access").read_bytes()
    assert made["password"].encode() not in kept
    assert made["token"].split("_")[2].encode() not in kept
    assert (tmp_path / "d" / "access").stat().st_mode & 0o007 == 0


def test_init_does_not_add_to_what_is_there_unless_it_is_to_recover(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody who is set up stays the only one, until it is said that the admin is lost."""
    directory = str(tmp_path / "d")
    _, first, _ = run(capsys, "access", "init", "--data-dir", directory, "--json")
    code, _, err = run(capsys, "access", "init", "--data-dir", directory)
    assert code == 2
    assert "--recover" in err
    code, second, _ = run(capsys, "access", "init", "--data-dir", directory, "--recover", "--json")
    access = Access(lambda: 0, bytes)
    access.replace(state_in(tmp_path / "d"))
    for out in (first, second):
        access.check_everywhere(access.authenticate(json.loads(out)["token"]), "admin")
    assert not verified(access.password_hash("admin"), json.loads(first)["password"])


def test_init_keeps_away_from_a_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory of a node of a cluster is not written to: its log says who may do what."""

    async def make() -> None:
        disk = RealRuntime().open_disk(str(tmp_path))
        await create(disk, Identity(bytes(16), NodeId(1), bytes(16), clustered=True))
        await disk.close()

    asyncio.run(make())
    code, _, err = run(capsys, "access", "init", "--data-dir", str(tmp_path))
    assert code == 2
    assert "--cluster" in err
    assert not (tmp_path / "access").exists()


def test_init_for_a_cluster_prints_what_its_configuration_takes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The line goes into a configuration as it is, and the token is admin where it is."""
    _, out, _ = run(capsys, "access", "init", "--cluster", "--json")
    made = json.loads(out)
    config = load_config(None, {}, {"access.admin_token_hash": made["admin_token_hash"]})
    access = Access(lambda: 0, bytes, admin_tokens=config.admin_tokens)
    access.check_everywhere(access.authenticate(made["token"]), "admin")
    with pytest.raises(UnauthenticatedError):
        access.authenticate(made["token"][:-2] + "zz")


@pytest.mark.parametrize(
    ("args", "fault"),
    [
        (("roles", "set", "r", "--grant", "prod read"), "say namespace, service and actions"),
        (("tokens", "create", "--role", "reader", "--expires", "soon"), "a number and s, m, h"),
        (("init",), "say --data-dir"),
    ],
)
def test_wrong_usage(args: tuple[str, ...], fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be meant is refused before a node is asked, and says how to say it."""
    code, _, err = run(capsys, "access", *args)
    assert code == 2
    assert fault in err
