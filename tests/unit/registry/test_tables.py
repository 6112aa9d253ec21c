"""Subscriptions by key and by prefix, and the directory of services."""

from __future__ import annotations

from builders import BILLING, ORDERS

from ssgovern.model import Pattern, ServiceKey
from ssgovern.registry.directory import Directory
from ssgovern.registry.subscriptions import SubscriptionTable


def pattern(prefix: str) -> Pattern:
    return Pattern("prod", "default", prefix)


def test_an_audience_has_each_once() -> None:
    """However many subscriptions cover a service, a subscriber is in its audience once."""
    table: SubscriptionTable[str] = SubscriptionTable()
    for target in (ORDERS, ORDERS, pattern("ord"), pattern("")):
        table.add("f", target)
    table.add("g", pattern("orders"))
    assert table.audience(ORDERS) == ["f", "g"]
    assert table.audience(BILLING) == ["f"]
    assert table.has_audience(BILLING)
    assert not table.has_audience(ServiceKey("test", "default", "orders"))
    table.validate()


def test_removing_one_of_several() -> None:
    """A subscription that is dropped leaves the others of the same subscriber."""
    table: SubscriptionTable[str] = SubscriptionTable()
    table.add("f", ORDERS)
    table.add("f", ORDERS)
    table.add("f", pattern("o"))
    table.remove("f", ORDERS)
    table.remove("f", pattern("o"))
    assert table.audience(ORDERS) == ["f"]
    table.remove("f", ORDERS)
    assert table.audience(ORDERS) == []
    assert (table.count, table._exact, table._patterns) == (0, {}, {})
    table.validate()


def test_the_directory_is_sorted() -> None:
    """Keys come in the order of their names, from any start, while keys come and go."""
    directory = Directory()
    keys = [ServiceKey("n", "g", name) for name in ("b", "a", "ab", "c")]
    directory.fill(keys[:2])
    directory.add(keys[2])
    directory.add(keys[3])
    directory.remove(keys[0])
    names = [key.service for key in directory.after(ServiceKey("n", "g", ""))]
    assert names == ["a", "ab", "c"]
    assert [key.service for key in directory.after(ServiceKey("n", "g", "aa"))] == ["ab", "c"]
    assert len(directory) == 3


def test_the_directory_by_pattern() -> None:
    """A pattern finds what begins with it, in its namespace and group only."""
    directory = Directory()
    directory.fill(
        ServiceKey(namespace, group, service)
        for namespace in ("n", "m")
        for group in ("g", "h")
        for service in ("a", "ab", "b")
    )
    found = list(directory.matching(Pattern("n", "g", "a")))
    assert found == [ServiceKey("n", "g", "a"), ServiceKey("n", "g", "ab")]
    assert len(list(directory.matching(Pattern("n", "g", "")))) == 3


def test_many_patterns_find_the_same_audience_as_few() -> None:
    """With more patterns than a name has letters they are looked up, with the same result."""
    table: SubscriptionTable[str] = SubscriptionTable()
    key = ServiceKey("n", "g", "pay")
    for prefix in ("", "p", "pay", "pays", "x"):
        table.add(prefix or "all", Pattern("n", "g", prefix))
    few = table.audience(key)
    for number in range(50):
        table.add("stranger", Pattern("n", "g", f"other-{number}"))
    assert sorted(table.audience(key)) == sorted(few) == ["all", "p", "pay"]
    table.validate()
