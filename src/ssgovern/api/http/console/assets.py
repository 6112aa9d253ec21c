"""Files that pages of the console refer to: scripts, styles, the icon.

Knows names, types and bytes, and no page. Invariant: the address of a file holds a hash of its
bytes, so it may be kept for ever, and a page of one version never gets a script of another.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from importlib import resources

from starlette.responses import Response

from ssgovern.errors import NotFoundError

PATH = "/static/{hash}/{name}"

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_KEPT = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Asset:
    """One file."""

    address: str
    media_type: str
    body: bytes
    packed: bytes


class Assets:
    """All files, read and compressed once."""

    def __init__(self) -> None:
        self._by_name: dict[str, Asset] = {}
        folder = resources.files(__package__) / "static"
        for file in sorted(folder.iterdir(), key=lambda each: each.name):
            media_type = _TYPES.get("." + file.name.rpartition(".")[2])
            if media_type is None:
                continue
            body = file.read_bytes()
            digest = hashlib.sha256(body).hexdigest()[:16]
            self._by_name[file.name] = Asset(
                f"/static/{digest}/{file.name}", media_type, body, gzip.compress(body, 6, mtime=0)
            )

    def address(self, name: str) -> str:
        """Return where a page finds a file."""
        return self._by_name[name].address

    def answer(self, digest: str, name: str, accept_encoding: str) -> Response:
        """Return a file. Raises NotFoundError if there is none, or only another version."""
        asset = self._by_name.get(name)
        if asset is None or asset.address != f"/static/{digest}/{name}":
            raise NotFoundError("no such file")
        headers = {"cache-control": _KEPT, "vary": "accept-encoding"}
        body = asset.body
        if "gzip" in accept_encoding:
            headers["content-encoding"] = "gzip"
            body = asset.packed
        return Response(body, headers=headers, media_type=asset.media_type)
