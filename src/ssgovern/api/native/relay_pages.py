"""Putting together what several nodes list. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ssgovern.wire.pb import native_pb2


def merge_pages(
    pages: Sequence[native_pb2.ListServicesResponse], size: int
) -> native_pb2.ListServicesResponse:
    """Return one page from pages of the same request, each of other shards.

    A node that has more than it could put on its page says up to which name it got; beyond the
    lowest such name nothing is known of that node, so nothing is listed beyond it.
    """
    ends = [_place(page.next_page_token) for page in pages if page.next_page_token]
    end = min(ends, default=None)
    found = sorted(
        (_order(each), number, each) for number, page in enumerate(pages) for each in page.services
    )
    listed = [each for order, _, each in found if end is None or order <= end]
    merged = native_pb2.ListServicesResponse(services=listed[:size])
    if len(listed) > size:
        last = listed[size - 1].service
        merged.next_page_token = f"{last.group} {last.service}"
    elif end is not None:
        merged.next_page_token = " ".join(end)
    return merged


def _order(summary: native_pb2.ServiceSummary) -> tuple[str, str]:
    return summary.service.group, summary.service.service


def _place(token: str) -> tuple[str, str]:
    group, _, service = token.partition(" ")
    return group, service
