"""What is shipped for monitoring asks for metrics that nodes have, and for nothing else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
RULES = ROOT / "deploy/prometheus/ss-govern.rules.yml"
DASHBOARD = ROOT / "deploy/grafana/ss-govern.json"
SOURCES = [
    *sorted((ROOT / "src/ssgovern/node").glob("metrics*.py")),
    ROOT / "src/ssgovern/node/http.py",
]

_MADE = re.compile(r'\b(gauge|counter|labelled|histogram|_of_shards)\(\s*"(\w+)"')
_WHOLE = re.compile(r'(Gauge|Counter)MetricFamily\(\s*"((?:process|ssgovern)_\w+)"')
_ASKED = re.compile(r"\b(?:ssgovern|process)_\w+")


def exported() -> set[str]:
    """Return every name that a sample can have."""
    names = {"ssgovern_node_info"}
    for source in SOURCES:
        text = source.read_text("utf-8")
        for kind, name in _MADE.findall(text):
            suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
            names |= {f"ssgovern_{name}{suffix}" for suffix in suffixes.get(kind, [""])}
        for kind, name in _WHOLE.findall(text):
            names.add(name + "_total" * (kind == "Counter"))
    return names


def expressions() -> Iterator[str]:
    for line in RULES.read_text("utf-8").splitlines():
        if line.strip().startswith("expr: "):
            yield line.partition("expr: ")[2]
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    yield from (each["query"]["query"] for each in dashboard["templating"]["list"][1:])


def test_there_is_something_to_check() -> None:
    """Neither the search for names nor the one for expressions has lost its object."""
    assert len(exported()) > 50
    assert len(list(expressions())) > 40


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_every_metric_that_is_asked_for_exists(expression: str) -> None:
    """A name that was changed or misspelt would leave an alert silent for ever."""
    assert {*_ASKED.findall(expression)} <= exported()
    assert expression.count("(") == expression.count(")")


def test_the_panels_of_the_dashboard_do_not_cover_each_other() -> None:
    """Each has an id and a place of its own."""
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_takes_the_rules() -> None:
    """Prometheus loads them."""
    done = subprocess.run(
        ["promtool", "check", "rules", str(RULES)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
