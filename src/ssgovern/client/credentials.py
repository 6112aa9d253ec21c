"""The token a client shows: said by the program, by the environment, or in a file.

Knows where tokens come from and not what they mean. Invariant: no token is in a `repr`, a log
line or an error.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ssgovern import limits
from ssgovern.errors import InvalidArgumentError

VARIABLE = "SS_GOVERN_TOKEN"
FILE_VARIABLE = "SS_GOVERN_TOKEN_FILE"

TokenSource = str | Callable[[bytes], str]
"""A token, or what makes one for the id of a session."""


def token_of(said: TokenSource | None, session_id: bytes) -> str:
    """Return the token to show; empty: none. Raises InvalidArgumentError.

    None: that of the environment, `SS_GOVERN_TOKEN` or the file `SS_GOVERN_TOKEN_FILE`.
    """
    if callable(said):
        return said(session_id)
    if said is None:
        said = os.environ.get(VARIABLE, "")
        file = os.environ.get(FILE_VARIABLE, "")
        if not said and file:
            said = read_token(file)
    if len(said) > limits.ACCESS_TOKEN_BYTES_MAX or not said.isprintable() or " " in said:
        raise InvalidArgumentError(
            "the token is none: a token is one word, as it was printed", field="token"
        )
    return said


def read_token(file: str) -> str:
    """Return the token in a file, which holds nothing else. Raises InvalidArgumentError."""
    try:
        text = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise InvalidArgumentError(
            f"cannot read a token from {file}: {why}", field="token"
        ) from error
    if not text:
        raise InvalidArgumentError(f"there is no token in {file}", field="token")
    return text
