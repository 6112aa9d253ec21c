"""The tree of commands: help, misspelt words, exit codes, and what is imported when."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ssgovern.cli.app import _COMMANDS, app, tell
from ssgovern.errors import OverloadedError

WITH_EXAMPLES = [name for name in _COMMANDS if name not in ("wal", "bench")]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


def test_help_lists_every_command_and_the_exit_codes() -> None:
    """Who asks for help sees all there is."""
    result = run("--help")
    assert result.exit_code == 0
    assert all(f"\n  {name} " in result.output for name in _COMMANDS)
    for code in ("0    done", "1    not", "2    wrong", "3    no server", "130  interrupted"):
        assert code in result.output


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_every_command_shows_examples(name: str) -> None:
    """--help of a command has lines to copy."""
    result = run(name, "--help")
    assert result.exit_code == 0
    assert "Examples:" in result.output
    assert f"\n    ss-govern {name}" in result.output.replace("SS_GOVERN_LISTEN_PORT=7500 ", "")


def test_wal_inspect_shows_examples() -> None:
    """The command below a command does, too."""
    assert "Examples:" in run("wal", "inspect", "--help").output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("serve",), 2, "did you mean 'server'?"),
        (("zork",), 2, "see --help for all"),
        (("get",), 2, "Missing argument 'SERVICE'"),
        (("get", "a b"), 2, "spaces, '*', '?' and '@@' are not allowed"),
        (("get", "orders", "--timeout", "0"), 2, "--timeout"),
        (("get", "orders", "-s", "host:x"), 2, "expected host, host:port or [IPv6]:port"),
        (("register", "orders"), 2, "Missing option '-p'"),
        (("register", "orders", "-p", "0", "--host", "h"), 2, "allowed are 1 to 65535"),
        (("register", "orders", "-p", "1", "-m", "lane"), 2, "'lane' is not key=value"),
        (("register", "orders", "-p", "1", "-m", "a=1", "-m", "a=2"), 2, "'a' is given twice"),
        (("update", "orders", "x"), 2, "nothing to change"),
        (("watch", "a*b"), 2, "a '*' may only be at the end"),
        (("wal", "inspect", "/nowhere"), 2, "there is no directory /nowhere"),
        (("get", "orders", "-s", "127.0.0.1:1", "--timeout", "0.2"), 3, "`ss-govern server`"),
        (("watch", "orders", "-s", "127.0.0.1:1", "--timeout", "0.2"), 3, "`ss-govern server`"),
    ],
)
def test_failures_end_in_one_sentence_and_a_documented_code(
    arguments: tuple[str, ...], code: int, message: str
) -> None:
    """No traceback, and the code says what kind of failure it was."""
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert message in result.output
    assert "Traceback" not in result.output
    assert result.output.splitlines()[-1].startswith("Error: ")


def test_failures_are_json_for_programs() -> None:
    """With --json a failure is an object on standard error and nothing is on standard output."""
    result = run("get", "orders", "--json", "-s", "127.0.0.1:1", "--timeout", "0.2")
    assert result.exit_code == 3
    assert result.stdout == ""
    assert json.loads(result.stderr)["error"]["code"] == "UNAVAILABLE"


def test_debug_shows_where_a_failure_came_from() -> None:
    """--debug adds the traceback, for reports."""
    result = run("wal", "inspect", "/nowhere", "--debug")
    assert result.exit_code == 2
    assert "Traceback" in result.output


def test_what_to_do_next_follows_the_message(capsys: pytest.CaptureFixture[str]) -> None:
    """Message and next step make one sentence."""
    tell(OverloadedError("the queue is full."), as_json=False)
    assert capsys.readouterr().err == (
        "Error: the queue is full; the node is busy; try again in a moment.\n"
    )


def test_an_empty_directory_has_no_log(tmp_path: Path) -> None:
    """`wal inspect` says so and fails."""
    result = run("wal", "inspect", str(tmp_path), "--json")
    assert result.exit_code == 1
    assert json.loads(result.output)["end"]["message"] == "there is no log"


def test_without_click_the_command_asks_for_it() -> None:
    """The bare distribution has the command, which says how to get the rest."""
    done = python(
        "import sys; sys.modules['click'] = None\nfrom ssgovern.cli.main import main; main()"
    )
    assert done.returncode == 2
    assert "pip install 'ss-govern[cli]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_package_of_the_node_is_named() -> None:
    """Who has the command alone and asks for a server is told what to install."""
    done = python(
        "import sys; sys.modules['pydantic'] = None; sys.argv = ['ss-govern', 'server']\n"
        "from ssgovern.cli.main import main; main()"
    )
    assert done.returncode == 1
    assert "needs the package pydantic: pip install 'ss-govern[server]'" in done.stderr


def test_help_imports_nothing_heavy() -> None:
    """Help and completion stay fast: no tables, no node, no validation library."""
    done = python(
        "import sys\nfrom click.testing import CliRunner\nfrom ssgovern.cli.app import app\n"
        "CliRunner().invoke(app, ['--help'])\n"
        "heavy = {'rich', 'pydantic', 'uvloop', 'ssgovern.node', 'ssgovern.storage'}\n"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    assert (done.returncode, done.stderr) == (0, "")
