"""What one node is yet to be told of what this client has applied.

Pure: lists that were applied come in, frames for the node go out, with heartbeats or when the
node asks. Invariants: nothing is said of a list before its callers can read it, nor of one that
waits for a snapshot; what waits is bounded by the lists that the client keeps; a node that did
not ask for it at the hello is told nothing.
"""

from __future__ import annotations

from itertools import islice

from ssgovern import limits
from ssgovern.client.view import ServiceView
from ssgovern.model import ORIGIN
from ssgovern.wire.codec import key_to_wire
from ssgovern.wire.frames import Kind, MessageType, encode_frame
from ssgovern.wire.pb import applied_pb2

_AGE_MS_MAX = 3_600_000


class Applied:
    """See the module."""

    __slots__ = ("_unsaid", "is_wanted")

    def __init__(self) -> None:
        self.is_wanted = False
        self._unsaid: dict[ServiceView, float] = {}
        """Lists that the node told something of since it was told of them, and when."""

    def __repr__(self) -> str:
        return f"<Applied wanted={self.is_wanted} unsaid={len(self._unsaid)}>"

    def begin(self) -> bytes:
        """Start anew on a connection; return the frame that says so."""
        self._unsaid.clear()
        self.is_wanted = True
        return encode_frame(Kind.PUSH, MessageType.APPLIED, 0, b"")

    def end(self) -> None:
        """The connection is gone."""
        self._unsaid.clear()
        self.is_wanted = False

    def note(self, view: ServiceView, now_s: float) -> None:
        """The node told something of a list, which has been applied as far as it fits."""
        self._unsaid[view] = now_s

    def take(self, now_s: float) -> bytes:
        """Return a frame that says some of what is unsaid; nothing if there is none."""
        if not self._unsaid:
            return b""
        said = applied_pb2.Applied()
        for view in list(islice(self._unsaid, limits.APPLIED_PER_MESSAGE_MAX)):
            applied_s = self._unsaid.pop(view)
            if view.has_gap or view.position == ORIGIN:
                # The snapshot that is on its way brings it here again.
                continue
            said.services.add(
                service=key_to_wire(view.key),
                epoch=view.position.epoch,
                revision=view.position.revision,
                age_ms=min(int((now_s - applied_s) * 1000.0), _AGE_MS_MAX),
            )
        if not said.services:
            return b""
        return encode_frame(Kind.PUSH, MessageType.APPLIED, 0, said.SerializeToString())

    def take_all(self, now_s: float) -> bytes:
        """Return frames that say all that is unsaid."""
        frames = []
        while self._unsaid:
            frames.append(self.take(now_s))
        return b"".join(frames)
