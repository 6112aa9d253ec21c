"""Changes of who may do what, as a node takes them from operators.

Makes of a request what may be passed on and written down: a password becomes a hash here, a token
is made here and said once. Who decides is the controller, or the node by itself; that is behind
`decide`. One at a time, in the order in which they came.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from ssgovern import limits
from ssgovern.errors import InvalidArgumentError, OverloadedError, SsGovernError
from ssgovern.node.access_passwords import Passwords
from ssgovern.runtime import Runtime
from ssgovern.service.access import TOKEN_PREFIX, new_token
from ssgovern.wire.codec import error_to_wire
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import native_pb2

Decide = Callable[[native_pb2.AccessRequest], Awaitable[str]]
"""Decides and writes down; returns a sentence."""


class Asker(Protocol):
    """The connection that is answered."""

    in_flight: int

    def reply(self, type_: int, request_id: int, body: bytes) -> None: ...

    def reply_error(self, type_: int, request_id: int, error: native_pb2.Error) -> None: ...

    def flush(self) -> None: ...


OnDone = Callable[[Asker, str, str, SsGovernError | None], None]
"""Told of each change that was asked for: by whom, what, of what, and why it was not done."""


class _Waiting(NamedTuple):
    asker: Asker
    request_id: int
    request: native_pb2.AccessRequest


class AccessCommands:
    """See the module. `run` is its task."""

    def __init__(self, decide: Decide, runtime: Runtime, on_done: OnDone) -> None:
        self._decide = decide
        self._on_done = on_done
        self._runtime = runtime
        self.passwords = Passwords()
        self._waiting: deque[_Waiting] = deque()
        self._woken = asyncio.Event()
        self._turn = asyncio.Lock()

    def administer(self, asker: Asker, request_id: int, request: native_pb2.AccessRequest) -> None:
        """Take a request that is answered later. Raises OverloadedError."""
        if len(self._waiting) >= limits.ACCESS_COMMANDS_MAX:
            raise OverloadedError(
                "too many changes of access wait already", limit=limits.ACCESS_COMMANDS_MAX
            )
        if request.revoke_token.startswith(f"{TOKEN_PREFIX}_"):
            # It was shown whole: its secret has no business in answers and in the audit.
            request.revoke_token = request.revoke_token.split("_")[1]
        self._waiting.append(_Waiting(asker, request_id, request))
        self._woken.set()

    async def run(self) -> None:
        """Carry out what was taken, for ever."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            while self._waiting:
                await self._answer(self._waiting.popleft())

    async def _answer(self, waiting: _Waiting) -> None:
        asker, request_id, request = waiting
        try:
            response = await self.ask(request)
        except SsGovernError as error:
            self._on_done(asker, *_named(request), error)
            asker.reply_error(MessageType.ACCESS, request_id, error_to_wire(error))
        else:
            action, target = _named(request)
            self._on_done(asker, action, target or response.sentence, None)
            asker.reply(MessageType.ACCESS, request_id, response.SerializeToString())
        finally:
            asker.in_flight -= 1
        asker.flush()

    async def ask(self, request: native_pb2.AccessRequest) -> native_pb2.AccessResponse:
        """Have a change decided. The answer has the text of a new token, this once.

        Raises what is wrong with it, or why it could not be decided.
        """
        wanted = native_pb2.AccessRequest()
        wanted.CopyFrom(request)
        wanted.time_ms = self._runtime.wall_ms()
        text = ""
        kind = wanted.WhichOneof("command")
        if kind in (None, "question"):
            raise InvalidArgumentError("a command this node does not know", field="command")
        if kind == "user":
            await self._hash(wanted.user)
        elif kind == "token":
            made = new_token(self._runtime.random_bytes)
            text = made.text
            wanted.token.id, wanted.token.hash = made.id, made.hash
            wanted.token.created_at_ms = wanted.time_ms
            wanted.token.revoked = False
        async with self._turn:
            sentence = await self._decide(wanted)
        return native_pb2.AccessResponse(sentence=sentence, token=text)

    async def _hash(self, user: native_pb2.AccessUserChange) -> None:
        if user.HasField("password_hash"):
            raise InvalidArgumentError("say the password, not a hash", field="password_hash")
        if user.HasField("password"):
            hashed = await self.passwords.hash(user.password) if user.password else ""
            user.ClearField("password")
            user.password_hash = hashed


def _named(request: native_pb2.AccessRequest) -> tuple[str, str]:
    """Return what is asked for, and of whom; no password and no hash."""
    kind = request.WhichOneof("command")
    match kind:
        case "user":
            return "set_user", request.user.name
        case "role":
            return "set_role", request.role.name
        case "remove_user" | "remove_role" | "revoke_token":
            return kind, str(getattr(request, kind))
        case "token":
            return "create_token", request.token.id
        case _:
            return "access", ""
