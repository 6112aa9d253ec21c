"""How instances look: a row for people, an object for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ssgovern.cli.output import Cell, print_table
from ssgovern.model import Instance


def instance_document(instance: Instance) -> dict[str, object]:
    """Return an instance as JSON shows it. Keys are stable."""
    return {
        "id": instance.id,
        "host": instance.host,
        "port": instance.port,
        "weight": instance.weight,
        "status": instance.status.name.lower(),
        "healthy": instance.healthy,
        "enabled": instance.enabled,
        "available": instance.available,
        "ephemeral": instance.ephemeral,
        "zone": instance.zone,
        "version": instance.version,
        "metadata": dict(sorted(instance.metadata.items())),
        "revision": instance.revision,
        "registered_at_ms": instance.registered_at_ms,
    }


def print_instances(instances: Sequence[Instance]) -> None:
    """Show instances as a table. Addresses have a column of their own if ids do not tell them."""
    with_address = any(instance.id != instance.address for instance in instances)
    columns = ["INSTANCE", "ADDRESS", "STATE", "WEIGHT", "ZONE", "VERSION", "METADATA"]
    rows = [_row(instance) for instance in instances]
    if not with_address:
        del columns[1]
        for row in rows:
            del row[1]
    print_table(columns, rows, right=("WEIGHT",))


def _row(instance: Instance) -> list[str | Cell]:
    return [
        Cell(instance.id, "strong"),
        instance.address,
        state(instance),
        f"{instance.weight:g}",
        instance.zone or "-",
        instance.version or "-",
        metadata_text(instance.metadata) or "-",
    ]


def state(instance: Instance) -> Cell:
    """Return why an instance takes traffic or does not, all reasons together."""
    reasons = []
    if not instance.enabled:
        reasons.append("disabled")
    if not instance.healthy:
        reasons.append("unhealthy")
    if instance.status.name != "UP":
        reasons.append(instance.status.name.lower())
    if not instance.weight:
        reasons.append("no weight")
    if reasons:
        return Cell(", ".join(reasons), "bad" if not instance.healthy else "warn")
    return Cell("up", "good")


def metadata_text(metadata: Mapping[str, str]) -> str:
    """Return metadata as `key=value key=value`, in the order of keys."""
    return " ".join(f"{key}={value}" for key, value in sorted(metadata.items()))


def difference(old: Instance, new: Instance) -> str:
    """Say in words what became of an instance: `weight 100 -> 50, lane=gray -> lane=blue`."""
    parts = [
        f"{name} {before or '-'} -> {after or '-'}"
        for name, before, after in (
            ("address", old.address, new.address),
            ("state", state(old).text, state(new).text),
            ("weight", f"{old.weight:g}", f"{new.weight:g}"),
            ("zone", old.zone, new.zone),
            ("version", old.version, new.version),
        )
        if before != after
    ]
    for key in sorted({*old.metadata, *new.metadata}):
        before_value, after_value = old.metadata.get(key), new.metadata.get(key)
        if before_value == after_value:
            continue
        if before_value is None:
            parts.append(f"+{key}={after_value}")
        elif after_value is None:
            parts.append(f"-{key}")
        else:
            parts.append(f"{key}={before_value} -> {after_value}")
    return ", ".join(parts) or "registered again"
