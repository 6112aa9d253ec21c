"""Passwords: argon2id, in threads of its own, because one takes tens of milliseconds.

Needs a library that clients and simulations have not; it is imported with the first password.
At most `limits.ACCESS_PASSWORDS_WAITING_MAX` wait, so that log-ins cannot be piled up.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from ssgovern import limits
from ssgovern.errors import InvalidArgumentError, OverloadedError

_THREADS = 2


def check_password(password: str) -> None:
    """Raise InvalidArgumentError for one that is too short, or too long to be hashed."""
    least, most = limits.ACCESS_PASSWORD_CHARS_MIN, limits.ACCESS_PASSWORD_BYTES_MAX
    if len(password) < least or len(password.encode()) > most:
        raise InvalidArgumentError(
            f"a password has at least {least} characters and at most {most} bytes",
            field="password",
        )


def hash_now(password: str) -> str:
    """Return the hash of a password, which takes its time. For who has no loop to keep going."""
    from argon2 import PasswordHasher

    check_password(password)
    return PasswordHasher().hash(password)


def _verify(hashed: str, password: str) -> bool:
    from argon2 import PasswordHasher
    from argon2.exceptions import InvalidHashError, VerificationError

    hasher = PasswordHasher()
    try:
        # Of somebody who is not there, a hash is compared all the same: it takes as long.
        hasher.verify(hashed or _nobodys_hash(), password)
        return bool(hashed)
    except (VerificationError, InvalidHashError):
        return False


_NOBODY: list[str] = []


def _nobodys_hash() -> str:
    if not _NOBODY:
        from argon2 import PasswordHasher

        _NOBODY.append(PasswordHasher().hash("nobody has this password"))
    return _NOBODY[0]


class Passwords:
    """Hashes and compares beside the loop. `close` it."""

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """Return the hash of a password. Raises InvalidArgumentError, OverloadedError."""
        check_password(password)
        return str(await self._run(hash_now, password))

    async def verify(self, hashed: str, password: str) -> bool:
        """Tell whether a password is right; none is if there is no hash. Raises OverloadedError."""
        if len(password.encode()) > limits.ACCESS_PASSWORD_BYTES_MAX:
            return False
        return bool(await self._run(_verify, hashed, password))

    async def _run(self, function: object, *args: str) -> object:
        if self._waiting >= limits.ACCESS_PASSWORDS_WAITING_MAX:
            raise OverloadedError(
                "too many passwords are being looked at: try again in a moment",
                limit=limits.ACCESS_PASSWORDS_WAITING_MAX,
            )
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="ssgovern-password")
        assert callable(function)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """End the threads, after what they are at."""
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
