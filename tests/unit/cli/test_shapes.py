"""How instances and their changes are put into words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ssgovern.cli.output import Cell
from ssgovern.cli.shapes import difference, instance_document, print_instances, state
from ssgovern.model import Instance, Status

ONE = Instance("10.0.0.1:80", "10.0.0.1", 80, metadata={"lane": "gray", "b": "1"})


@pytest.mark.parametrize(
    ("instance", "cell"),
    [
        (ONE, Cell("up", "good")),
        (replace(ONE, enabled=False), Cell("disabled", "warn")),
        (replace(ONE, healthy=False, enabled=False), Cell("disabled, unhealthy", "bad")),
        (replace(ONE, status=Status.STARTING), Cell("starting", "warn")),
        (replace(ONE, weight=0.0), Cell("no weight", "warn")),
    ],
)
def test_state_tells_every_reason(instance: Instance, cell: Cell) -> None:
    """What keeps an instance out of traffic is said, all of it; only `up` is good."""
    assert state(instance) == cell
    assert (cell.text == "up") is instance.available


def test_difference_names_what_changed_and_nothing_else() -> None:
    """Old and new value of each field, added and removed pairs of metadata."""
    new = replace(ONE, weight=50.0, enabled=False, metadata={"lane": "blue", "c": "2"}, zone="z")
    assert difference(ONE, new) == (
        "state up -> disabled, weight 100 -> 50, zone - -> z, -b, +c=2, lane=gray -> blue"
    )
    assert difference(ONE, replace(ONE, revision=9)) == "registered again"


def test_addresses_have_a_column_only_if_ids_do_not_tell_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A table does not say the same thing twice."""
    print_instances([ONE])
    assert "ADDRESS" not in capsys.readouterr().out
    print_instances([ONE, replace(ONE, id="other")])
    out = capsys.readouterr().out
    assert out.splitlines()[0].split()[:2] == ["INSTANCE", "ADDRESS"]
    assert out.splitlines()[2].split()[:2] == ["other", "10.0.0.1:80"]


def test_the_document_has_every_field() -> None:
    """Programs see all of an instance, under stable names."""
    assert list(instance_document(ONE)) == [
        "id",
        "host",
        "port",
        "weight",
        "status",
        "healthy",
        "enabled",
        "available",
        "ephemeral",
        "zone",
        "version",
        "metadata",
        "revision",
        "registered_at_ms",
    ]
