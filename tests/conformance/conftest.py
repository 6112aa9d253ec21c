"""The fixture of conformance tests."""

from __future__ import annotations

import pytest
from places import PLACES, Run


@pytest.fixture(params=sorted(PLACES))
def run(request: pytest.FixtureRequest) -> Run:
    """Run a coroutine function to its end somewhere, and return its result."""
    return PLACES[request.param]
