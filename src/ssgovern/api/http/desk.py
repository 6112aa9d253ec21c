"""What the operations of the open API share: the node, and what is kept between requests.

One per HTTP port. Knows no request.
"""

from __future__ import annotations

from collections import OrderedDict

from ssgovern import limits
from ssgovern.api.http.backend import Backend
from ssgovern.api.http.watches import Watches
from ssgovern.model import ServiceKey


class Desk:
    """Where the operations find everything they need."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.pages = PageCache()
        self.watches = Watches()


class PageCache:
    """First pages of services as they were sent, by the tag that says what state they show.

    Bounded by bytes; what was not asked for longest goes first.
    """

    def __init__(self, bytes_max: int = limits.HTTP_PAGE_CACHE_BYTES) -> None:
        self._bytes_max = bytes_max
        self._kept: OrderedDict[ServiceKey, tuple[str, bytes]] = OrderedDict()
        self.bytes = 0

    def get(self, key: ServiceKey, tag: str) -> bytes | None:
        """Return the page of a service if it is still that of `tag`."""
        kept = self._kept.get(key)
        if kept is None or kept[0] != tag:
            return None
        self._kept.move_to_end(key)
        return kept[1]

    def put(self, key: ServiceKey, tag: str, page: bytes) -> None:
        """Keep a page instead of the one before it."""
        before = self._kept.pop(key, None)
        if before is not None:
            self.bytes -= len(before[1])
        self._kept[key] = (tag, page)
        self.bytes += len(page)
        while self.bytes > self._bytes_max:
            _, (_, oldest) = self._kept.popitem(last=False)
            self.bytes -= len(oldest)
