"""Found by seed 2: a reader of the prefix `orders` was told what one of the service asked for."""

from __future__ import annotations

from ssgovern.model import Pattern, ServiceKey


def test_a_pattern_equals_no_service_key() -> None:
    """What is kept by target tells the service `orders` from the prefix `orders`."""
    key, pattern = ServiceKey("a", "b", "orders"), Pattern("a", "b", "orders")

    by_target: dict[ServiceKey | Pattern, str] = {key: "service", pattern: "prefix"}

    assert by_target == {key: "service", Pattern("a", "b", "orders"): "prefix"}
    assert len(by_target) == 2
