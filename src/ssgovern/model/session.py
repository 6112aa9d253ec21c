"""Identity of a client across reconnects.

A session's id is the hash of its secret: any node can check that who names the id also holds
the secret, without having stored either, and ids may be shown to anyone.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import NewType

SessionId = NewType("SessionId", bytes)

SESSION_ID_BYTES = 16
SESSION_SECRET_BYTES = 16


def session_id_of(secret: bytes) -> SessionId:
    """Return the id of the session that holds `secret`."""
    return SessionId(hashlib.sha256(b"ss-govern session\0" + secret).digest()[:SESSION_ID_BYTES])


def session_secret_matches(session_id: bytes, secret: bytes) -> bool:
    """Tell, in constant time, whether `secret` is the session's."""
    return hmac.compare_digest(session_id, session_id_of(secret))
