"""Access control on the native port: who is let in, what each request takes, what changes do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from builders import ORDERS
from google.protobuf.message import Message
from nodes import (
    ClosedByNodeError,
    Raw,
    RefusedError,
    Stage,
    config_of,
    run_world,
    serving,
    simulate,
)

from ssgovern.api.native.access import GUARDS, guarded
from ssgovern.api.native.server import NativeServer
from ssgovern.errors import ErrorCode
from ssgovern.model import ServiceKey
from ssgovern.sim.runtime import SimRuntime
from ssgovern.wire.codec import key_to_wire
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import access_pb2, native_pb2

CART = ServiceKey("prod", "default", "shop-cart")
SHOP = access_pb2.AccessRole(
    name="shop",
    grants=[
        access_pb2.AccessGrant(
            namespace="prod", service="default/shop-*", actions=["read", "register"]
        )
    ],
)


async def command(raw: Raw, **wanted: Any) -> native_pb2.AccessResponse:
    answer = await raw.ask(MessageType.ACCESS, native_pb2.AccessRequest(**wanted))
    return native_pb2.AccessResponse.FromString(answer)


async def new_token(raw: Raw, *roles: str, **more: Any) -> str:
    answer = await command(raw, token=access_pb2.AccessToken(roles=roles, **more))
    return answer.token


async def who(stage: Stage, token: str, name: str) -> Raw:
    raw = await stage.connect(name)
    await raw.hello(token=token)
    return raw


async def refused(what: Any) -> ErrorCode:
    with pytest.raises(RefusedError) as caught:
        await what
    return caught.value.code


async def set_up(stage: Stage) -> tuple[Raw, str]:
    """Make an admin, by which access begins to be controlled; return it and its token."""
    raw = await stage.client("before")
    token = await new_token(raw, "admin")
    return await who(stage, token, "admin"), token


def test_what_is_set_up_first_closes_the_door() -> None:
    """While nobody is set up all may do all; with the first token, strangers who are there are
    sent away, and those who come are refused."""

    async def body(stage: Stage) -> None:
        stranger = await stage.client("stranger")
        await stranger.register("a")
        await set_up(stage)
        assert await stranger.closed() is ErrorCode.UNAUTHENTICATED
        late = await stage.connect("late")
        assert await refused(late.hello()) is ErrorCode.UNAUTHENTICATED
        assert await refused(late.get()) is ErrorCode.HELLO_REQUIRED

    simulate(body)


def test_the_answer_to_a_hello_says_who_one_is() -> None:
    """The principal is named where access is controlled, and nobody where it is not."""

    async def body(stage: Stage) -> None:
        raw = await stage.connect("a")
        assert (await raw.hello()).principal == ""
        _, token = await set_up(stage)
        raw = await stage.connect("b")
        assert (await raw.hello(token=token)).principal == f"token {token.split('_')[1]}"

    simulate(body)


@pytest.mark.parametrize("change", ["tampered", "cut", "unknown", "internal"])
def test_what_is_not_the_token_is_refused(change: str) -> None:
    """A token with a digit changed, cut, of nobody, or of what only a node may be is refused."""

    async def body(stage: Stage) -> None:
        _, token = await set_up(stage)
        last = "0" if token[-1] != "0" else "1"
        wrong = {
            "tampered": token[:-1] + last,
            "cut": token[:-1],
            "unknown": "ssg_0000000000_" + token.split("_")[2],
            "internal": stage.node.access.internal_token(bytes(16)),
        }[change]
        raw = await stage.connect("b")
        assert await refused(raw.hello(token=wrong)) is ErrorCode.UNAUTHENTICATED

    simulate(body)


def test_a_revoked_token_ends_its_connections_within_a_second() -> None:
    """Who is connected by a token is sent away when it is revoked, and does not come back."""

    async def body(stage: Stage) -> None:
        admin, _ = await set_up(stage)
        token = await new_token(admin, "registrar")
        client = await who(stage, token, "c")
        await client.register("a")
        await command(admin, revoke_token=token.split("_")[1])
        assert await client.closed() is ErrorCode.UNAUTHENTICATED
        again = await stage.connect("c")
        assert await refused(again.hello(token=token)) is ErrorCode.UNAUTHENTICATED

    simulate(body)


def test_an_expired_token_ends_its_connections() -> None:
    """A connection ends with the time of what it showed."""

    async def body(stage: Stage) -> None:
        admin, _ = await set_up(stage)
        state = (await command(admin, question=native_pb2.AccessQuestion())).state
        soon = state.tokens[0].created_at_ms + 5_000
        client = await who(stage, await new_token(admin, "reader", expires_at_ms=soon), "c")
        assert await client.closed() is ErrorCode.UNAUTHENTICATED

    simulate(body, session={"ttl_ms": 60_000})


def test_a_role_that_changes_counts_for_who_is_connected() -> None:
    """Rights that are taken are gone with the next request; who follows what it may no longer
    see is sent away."""

    async def body(stage: Stage) -> None:
        admin, _ = await set_up(stage)
        await command(admin, role=SHOP)
        token = await new_token(admin, "shop")
        writer, reader = await who(stage, token, "w"), await who(stage, token, "r")
        await writer.register("a", key=CART)
        await reader.subscribe(CART)
        only_register = access_pb2.AccessRole()
        only_register.CopyFrom(SHOP)
        only_register.grants[0].actions[:] = ["register"]
        await command(admin, role=only_register)
        assert await reader.closed() is ErrorCode.PERMISSION_DENIED
        await writer.register("b", key=CART)
        assert await refused(writer.get(CART)) is ErrorCode.PERMISSION_DENIED

    simulate(body)


def test_a_right_is_for_its_services() -> None:
    """Another namespace, group or name is refused, for reading as for registering, and the error
    names the right that is missing."""

    async def body(stage: Stage) -> None:
        admin, _ = await set_up(stage)
        await command(admin, role=SHOP)
        client = await who(stage, await new_token(admin, "shop"), "c")
        await client.register("a", key=CART)
        assert await client.ids(CART) == ["a"]
        for key in (ORDERS, CART._replace(namespace="test"), CART._replace(group="other")):
            assert await refused(client.register("a", key=key)) is ErrorCode.PERMISSION_DENIED
            assert await refused(client.subscribe(key)) is ErrorCode.PERMISSION_DENIED
            with pytest.raises(RefusedError, match="lacks the right 'read'") as caught:
                await client.get(key)
            assert caught.value.fields["namespace"] == key.namespace
            assert caught.value.fields["action"] == "read"

    simulate(body)


def _cases() -> dict[str, tuple[MessageType, Message, str]]:
    key = key_to_wire(CART)
    change, out = (
        native_pb2.InstanceChange(weight=2.0),
        native_pb2.InstanceChange(out_of_service=True),
    )
    return {
        "register": (
            MessageType.REGISTER,
            native_pb2.RegisterRequest(registrations=[native_pb2.Registration(service=key)]),
            "register",
        ),
        "own": (
            MessageType.UPDATE,
            native_pb2.UpdateRequest(service=key, instance_id="a", change=change),
            "register",
        ),
        "any-owner": (
            MessageType.UPDATE,
            native_pb2.UpdateRequest(service=key, instance_id="a", change=change, any_owner=True),
            "write",
        ),
        "out-of-service": (
            MessageType.UPDATE,
            native_pb2.UpdateRequest(service=key, instance_id="a", change=out),
            "write",
        ),
        "deregister": (
            MessageType.DEREGISTER,
            native_pb2.DeregisterRequest(service=key, instance_id="a"),
            "register",
        ),
        "deregister-any": (
            MessageType.DEREGISTER,
            native_pb2.DeregisterRequest(service=key, instance_id="a", any_owner=True),
            "write",
        ),
        "get": (MessageType.GET, native_pb2.GetRequest(service=key), "read"),
        "list": (
            MessageType.LIST_SERVICES,
            native_pb2.ListServicesRequest(namespace="prod"),
            "read",
        ),
        "subscribe": (MessageType.SUBSCRIBE, native_pb2.SubscribeRequest(service=key), "read"),
        "subscribe-prefix": (
            MessageType.SUBSCRIBE,
            native_pb2.SubscribeRequest(
                pattern=native_pb2.Pattern(namespace="prod", group="default")
            ),
            "read",
        ),
        "status": (MessageType.STATUS, native_pb2.StatusRequest(), "read"),
        "read-shard": (MessageType.READ_SHARD, native_pb2.ReadShardRequest(shard=1), "read"),
        "claim": (MessageType.CLAIM, native_pb2.ClaimRequest(), "register"),
        "command": (MessageType.CLUSTER_COMMAND, native_pb2.ClusterCommandRequest(stay=1), "admin"),
        "access": (
            MessageType.ACCESS,
            native_pb2.AccessRequest(question=native_pb2.AccessQuestion()),
            "admin",
        ),
    }


CASES = _cases()
ROLES = {
    "reader": {"read"},
    "registrar": {"read", "register"},
    "operator": {"read", "register", "write"},
    "admin": {"read", "register", "write", "admin"},
}


@pytest.mark.parametrize("role", ROLES)
def test_each_role_may_do_what_it_is_for(role: str) -> None:
    """For each request and each built-in role: it is refused for lack of a right exactly if the
    role has not the right."""

    async def body(stage: Stage) -> None:
        admin, _ = await set_up(stage)
        client = await who(stage, await new_token(admin, role), "c")
        for name, (type_, request, action) in CASES.items():
            denied = False
            try:
                await client.ask(type_, request)
            except RefusedError as error:
                denied = error.code is ErrorCode.PERMISSION_DENIED
            assert denied is (action not in ROLES[role]), name

    simulate(body)


def test_every_request_says_what_it_takes() -> None:
    """A type of request that is added has to be named with what it takes."""
    assert set(NativeServer.handlers) == set(GUARDS)


def test_a_type_that_is_not_named_takes_the_right_to_everything() -> None:
    """What nobody thought of is refused to all but admins."""

    async def body(stage: Stage) -> None:
        admin, _ = await set_up(stage)
        operator = await who(stage, await new_token(admin, "operator"), "o")
        answered: list[str] = []
        handlers = {9_999: lambda connection, *_: answered.append(connection.principal.name)}
        stage.node.server.handlers = guarded(handlers)  # type: ignore[arg-type]
        assert await refused(operator.ask(9_999)) is ErrorCode.PERMISSION_DENIED
        assert answered == []

    simulate(body)


def test_hashes_and_tokens_are_told_to_nobody() -> None:
    """What is listed has no hash in it, and a token is in one answer only."""

    async def body(stage: Stage) -> None:
        admin, token = await set_up(stage)
        answer = await command(admin, question=native_pb2.AccessQuestion())
        assert answer.enforced
        assert [each.id for each in answer.state.tokens] == [token.split("_")[1]]
        assert answer.state.tokens[0].hash == b""
        assert token.split("_")[2].encode() not in answer.SerializeToString()
        with_hash = native_pb2.AccessUserChange(name="ann", create=True, password_hash="x")
        assert await refused(command(admin, user=with_hash)) is ErrorCode.INVALID_ARGUMENT

    simulate(body)


def test_it_holds_after_a_restart() -> None:
    """Who was set up is there again when the node is, before anybody can connect."""
    tokens: list[str] = []

    def life(body: Callable[[Stage], Any]) -> Callable[[SimRuntime], Any]:
        async def run(runtime: SimRuntime) -> None:
            async with serving(config_of("/srv/node"), runtime) as stage:
                await body(stage)

        return run

    async def first(stage: Stage) -> None:
        admin, token = await set_up(stage)
        revoked = await new_token(admin, "reader")
        await command(admin, revoke_token=revoked.split("_")[1])
        tokens.extend([token, revoked])

    async def second(stage: Stage) -> None:
        late = await stage.connect("late")
        assert await refused(late.hello()) is ErrorCode.UNAUTHENTICATED
        late = await stage.connect("late")
        assert await refused(late.hello(token=tokens[1])) is ErrorCode.UNAUTHENTICATED
        admin = await who(stage, tokens[0], "admin")
        assert await admin.ids() == []

    run_world(3, life(first), life(second))


def test_the_last_admin_stays() -> None:
    """Nobody locks everybody out by mistake, themselves included."""

    async def body(stage: Stage) -> None:
        admin, token = await set_up(stage)
        mine = token.split("_")[1]
        assert await refused(command(admin, revoke_token=mine)) is ErrorCode.INVALID_ARGUMENT
        await new_token(admin, "admin")
        await command(admin, revoke_token=mine)
        with pytest.raises(ClosedByNodeError):
            await admin.receive()

    simulate(body)


def test_changes_of_operators_and_refusals_are_written_down() -> None:
    """Who changed access, or what is another's, and who was refused: with what, from where, and
    without any secret. What clients do with their own is not."""

    async def body(stage: Stage) -> None:
        admin, _ = await set_up(stage)
        token = await new_token(admin, "reader")
        owner = await who(stage, await new_token(admin, "registrar"), "owner")
        await owner.register("a")
        await owner.ask(
            MessageType.UPDATE,
            native_pb2.UpdateRequest(
                service=key_to_wire(ORDERS),
                instance_id="a",
                change=native_pb2.InstanceChange(weight=3.0),
            ),
        )
        reader = await who(stage, token, "r")
        assert await refused(reader.register("b")) is ErrorCode.PERMISSION_DENIED
        await admin.deregister("a", any_owner=True)
        late = await stage.connect("late")
        assert await refused(late.hello(token=token[:-1])) is ErrorCode.UNAUTHENTICATED
        assert await refused(reader.ask(MessageType.AUDIT)) is ErrorCode.PERMISSION_DENIED
        answer = native_pb2.AuditResponse.FromString(await admin.ask(MessageType.AUDIT))
        seen = [(each.action, each.outcome) for each in reversed(answer.entries)]
        assert seen == [
            ("create_token", "ok"),
            ("create_token", "ok"),
            ("create_token", "ok"),
            ("register", "permission_denied"),
            ("deregister", "ok"),
            ("hello", "unauthenticated"),
            ("audit", "permission_denied"),
        ]
        assert all(each.origin and each.time_ms for each in answer.entries)
        assert [each.number for each in answer.entries] == list(range(7, 0, -1))
        assert token.split("_")[2].encode() not in answer.SerializeToString()
        page = native_pb2.AuditRequest(limit=2, before=4)
        answer = native_pb2.AuditResponse.FromString(await admin.ask(MessageType.AUDIT, page))
        assert [each.number for each in answer.entries] == [3, 2]

    simulate(body)


def test_a_token_is_revoked_by_its_whole_text_too() -> None:
    """Also if there is none: its secret is neither in an answer nor in the audit."""

    async def body(stage: Stage) -> None:
        admin, _ = await set_up(stage)
        token = await new_token(admin, "reader")
        reader = await who(stage, token, "r")
        await command(admin, revoke_token=token)
        with pytest.raises(ClosedByNodeError):
            await reader.receive()
        with pytest.raises(RefusedError) as caught:
            await command(admin, revoke_token=token.replace("ssg_", "ssg_f"))
        secret = token.split("_")[2]
        assert secret not in str(caught.value)
        answer = await admin.ask(MessageType.AUDIT)
        assert b"revoke_token" in answer
        assert secret.encode() not in answer

    simulate(body)


def test_a_change_is_written_down_with_what_was_before() -> None:
    """When it is committed, field by field; one that was not possible with why, and what was
    wanted; of an instance that is gone where it was."""

    async def body(stage: Stage) -> None:
        admin, _ = await set_up(stage)
        owner = await who(stage, await new_token(admin, "registrar"), "owner")
        await owner.register("a")

        async def update(instance_id: str, **fields: object) -> None:
            wanted = native_pb2.InstanceChange(**fields)  # type: ignore[arg-type]
            request = native_pb2.UpdateRequest(
                service=key_to_wire(ORDERS),
                instance_id=instance_id,
                any_owner=True,
                change=wanted,
            )
            await admin.ask(MessageType.UPDATE, request)

        await update("a", weight=3.0, out_of_service=True, metadata_set={"note": "x"})
        assert await refused(update("b", weight=4.0)) is ErrorCode.NOT_FOUND
        await admin.deregister("a", any_owner=True)
        await admin.deregister("a", any_owner=True)
        answer = native_pb2.AuditResponse.FromString(await admin.ask(MessageType.AUDIT))
        gone, nothing, wanted, changed = [answer.entries[at] for at in (1, 0, 2, 3)]
        assert changed.target == "prod/default/orders/a"
        assert {each.name: (each.before, each.after) for each in changed.changes} == {
            "weight": ("100", "3"),
            "out_of_service": ("no", "yes"),
            "metadata.note": ("", "x"),
        }
        assert (wanted.outcome, list(wanted.changes)) == ("not_found", [])
        assert "weight: 4" in wanted.detail
        [address] = gone.changes
        assert (address.name, address.before, address.after) == ("address", "10.0.0.1:8080", "")
        assert (nothing.action, list(nothing.changes)) == ("deregister", [])

    simulate(body)


def test_the_audit_is_there_after_a_restart() -> None:
    """What was written down is read again, and numbers go on."""
    tokens: list[str] = []

    async def first(runtime: SimRuntime) -> None:
        async with serving(config_of("/srv/node"), runtime) as stage:
            _, token = await set_up(stage)
            tokens.append(token)

    async def second(runtime: SimRuntime) -> None:
        async with serving(config_of("/srv/node"), runtime) as stage:
            admin = await who(stage, tokens[0], "admin")
            await new_token(admin, "reader")
            answer = native_pb2.AuditResponse.FromString(await admin.ask(MessageType.AUDIT))
            assert [each.number for each in answer.entries] == [2, 1]

    run_world(5, first, second)
