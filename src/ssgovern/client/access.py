"""What an admin asks and changes of users, tokens and roles.

Knows how such requests are worded. Any node takes them. Invariant: nothing that makes something
new is repeated after a lost answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import access_pb2, native_pb2

if TYPE_CHECKING:
    from ssgovern.client.registry import Registry

_TIMEOUT_S = 15.0


class AccessAdministration:
    """Access control, as a client that is open sees it. Every method may raise
    UnauthenticatedError and PermissionDeniedError."""

    def __init__(self, registry: Registry) -> None:
        self._session = registry._session

    async def show(self) -> native_pb2.AccessResponse:
        """Return all users, tokens and roles, who asks, and whether access is controlled."""
        request = native_pb2.AccessRequest(question=native_pb2.AccessQuestion())
        return await self._ask(request, repeatable=True)

    async def set_user(
        self,
        name: str,
        *,
        create: bool = False,
        password: str | None = None,
        roles: Iterable[str] | None = None,
        disabled: bool | None = None,
    ) -> str:
        """Make a user or change one; None: what it was. Return a sentence."""
        change = native_pb2.AccessUserChange(
            name=name,
            create=create,
            password=password,
            set_roles=roles is not None,
            roles=() if roles is None else roles,
            disabled=disabled,
        )
        return (await self._ask(native_pb2.AccessRequest(user=change))).sentence

    async def remove_user(self, name: str) -> str:
        """Remove a user and all its tokens."""
        return (await self._ask(native_pb2.AccessRequest(remove_user=name))).sentence

    async def create_token(
        self,
        *,
        owner: str = "",
        roles: Iterable[str] = (),
        note: str = "",
        expires_at_ms: int = 0,
    ) -> native_pb2.AccessResponse:
        """Make a token; the answer has its text, which is kept nowhere."""
        token = access_pb2.AccessToken(
            owner=owner, roles=roles, note=note, expires_at_ms=expires_at_ms
        )
        return await self._ask(native_pb2.AccessRequest(token=token))

    async def revoke_token(self, id_: str) -> str:
        """Let a token be good for nothing, from now on."""
        request = native_pb2.AccessRequest(revoke_token=id_)
        return (await self._ask(request, repeatable=True)).sentence

    async def set_role(self, name: str, grants: Iterable[tuple[str, str, Iterable[str]]]) -> str:
        """Make a role of namespace pattern, service pattern and actions, or replace it."""
        role = access_pb2.AccessRole(
            name=name,
            grants=[
                access_pb2.AccessGrant(namespace=namespace, service=service, actions=actions)
                for namespace, service, actions in grants
            ],
        )
        request = native_pb2.AccessRequest(role=role)
        return (await self._ask(request, repeatable=True)).sentence

    async def remove_role(self, name: str) -> str:
        """Remove a role that nobody has."""
        return (await self._ask(native_pb2.AccessRequest(remove_role=name))).sentence

    async def _ask(
        self, request: native_pb2.AccessRequest, *, repeatable: bool = False
    ) -> native_pb2.AccessResponse:
        deadline = asyncio.get_running_loop().time() + _TIMEOUT_S
        return await self._session.call(
            MessageType.ACCESS,
            request,
            native_pb2.AccessResponse,
            deadline,
            repeatable=repeatable,
        )
