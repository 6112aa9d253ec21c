"""What became of a log entry, for whoever proposed it."""

from __future__ import annotations

from ssgovern.errors import SsGovernError


class Outcome:
    """Either an error (the entry changed nothing) or what applying it found.

    `removed`: there was something to remove. `encoded`: the instance as it is now, encoded.
    """

    __slots__ = ("encoded", "error", "removed")

    def __init__(
        self,
        *,
        error: SsGovernError | None = None,
        removed: bool = False,
        encoded: bytes = b"",
    ) -> None:
        self.error = error
        self.removed = removed
        self.encoded = encoded


DONE = Outcome()
"""The outcome of an entry that has nothing to report."""
