"""What an operation gives back: a document, or a stream. Knows no sockets."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from pydantic import BaseModel


@dataclass(frozen=True, slots=True)
class Answer:
    """A document. `tag` is equal as long as it is, whichever node of the cluster answers."""

    body: BaseModel | bytes
    """A model, or one that was encoded before."""
    tag: str = ""
    status: int = 200
    """Of a change that made something new: 201. Unchanged since what was named: 304."""


@dataclass(frozen=True, slots=True)
class Stream:
    """Server-sent events, one after the other. It ends when whoever makes them is done."""

    events: AsyncGenerator[bytes]
    wake: Callable[[], None]
    """Have the next event made at once, be it a comment: nobody may listen any more."""
