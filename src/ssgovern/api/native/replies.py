"""Answers to requests that wait for the log.

Each is the `Waiter` of its proposals and answers once, when the last of them is decided. An
answer is put together for its connection and leaves with others of the same batch.
"""

from __future__ import annotations

from typing import Protocol

from ssgovern.model import Outcome
from ssgovern.replication.primary import Proposal
from ssgovern.wire.codec import encode, error_to_wire
from ssgovern.wire.frames import MessageType
from ssgovern.wire.handmade import register_response
from ssgovern.wire.pb import model_pb2, native_pb2
from ssgovern.wire.records import Registered

_REGISTER = int(MessageType.REGISTER)


class ReplyTo(Protocol):
    """The connection a request came on."""

    in_flight: int

    def reply(self, type_: int, request_id: int, body: bytes) -> None:
        """Answer a request."""

    def reply_error(self, type_: int, request_id: int, error: native_pb2.Error) -> None:
        """Refuse a request."""


class _Reply:
    __slots__ = ("_connection", "_request_id")

    def __init__(self, connection: ReplyTo, request_id: int) -> None:
        self._connection = connection
        self._request_id = request_id


class RegisterReply(_Reply):
    """Answers a registration of one instance, the common case."""

    __slots__ = ()

    def on_outcome(self, proposal: Proposal, outcome: Outcome) -> None:
        self._connection.in_flight -= 1
        self._connection.reply(_REGISTER, self._request_id, encode_result(proposal, outcome))


class RegisterBatchReply(_Reply):
    """Answers a batch. Results leave in the order of the request, whatever commits first."""

    __slots__ = ("_outcomes", "_proposals")

    def __init__(self, connection: ReplyTo, request_id: int) -> None:
        super().__init__(connection, request_id)
        self._outcomes: dict[Proposal, Outcome] = {}
        self._proposals: list[Proposal] = []

    def expect(self, proposals: list[Proposal]) -> None:
        """Say which proposals make up the batch, in order; none is decided before."""
        self._proposals = proposals

    def on_outcome(self, proposal: Proposal, outcome: Outcome) -> None:
        self._outcomes[proposal] = outcome
        if len(self._outcomes) < len(self._proposals):
            return
        results = [encode_result(each, self._outcomes[each]) for each in self._proposals]
        self._connection.in_flight -= 1
        self._connection.reply(_REGISTER, self._request_id, b"".join(results))


def encode_result(proposal: Proposal, outcome: Outcome) -> bytes:
    """Return a `RegisterResponse` with what became of one registration.

    Joined, such responses are the response of a batch: protobuf merges what is concatenated.
    """
    record = proposal.record
    assert isinstance(record, Registered), f"{proposal!r} answers a registration"
    if outcome.error is None:
        return register_response(record.instance_id, proposal.epoch, proposal.revision)
    result = native_pb2.RegisterResult(
        instance_id=record.instance_id, error=error_to_wire(outcome.error)
    )
    return encode(native_pb2.RegisterResponse(results=[result]))


class DeregisterReply(_Reply):
    """Answers a removal."""

    __slots__ = ()

    def on_outcome(self, proposal: Proposal, outcome: Outcome) -> None:
        connection = self._connection
        connection.in_flight -= 1
        if outcome.error is not None:
            connection.reply_error(
                MessageType.DEREGISTER, self._request_id, error_to_wire(outcome.error)
            )
            return
        response = native_pb2.DeregisterResponse(
            epoch=proposal.epoch, revision=proposal.revision, removed=outcome.removed
        )
        connection.reply(MessageType.DEREGISTER, self._request_id, response.SerializeToString())


class UpdateReply(_Reply):
    """Answers a change of an instance with the instance as it became."""

    __slots__ = ()

    def on_outcome(self, proposal: Proposal, outcome: Outcome) -> None:
        connection = self._connection
        connection.in_flight -= 1
        if outcome.error is not None:
            connection.reply_error(
                MessageType.UPDATE, self._request_id, error_to_wire(outcome.error)
            )
            return
        response = native_pb2.UpdateResponse(
            epoch=proposal.epoch,
            revision=proposal.revision,
            instance=model_pb2.Instance.FromString(outcome.encoded),
        )
        connection.reply(MessageType.UPDATE, self._request_id, encode(response))


class GoodbyeReply(_Reply):
    """Answers a goodbye when the session's end is committed in all its shards."""

    __slots__ = ("_error", "_open", "_retry")

    def __init__(self, connection: ReplyTo, request_id: int, retry: RetryEnd) -> None:
        super().__init__(connection, request_id)
        self._open = 0
        self._error: native_pb2.Error | None = None
        self._retry = retry

    def expect(self, proposals: int) -> None:
        """Say how many proposals there are; with none it answers at once."""
        self._open += proposals
        if not self._open:
            self._finish()

    def on_outcome(self, proposal: Proposal, outcome: Outcome) -> None:
        if outcome.error is not None:
            self._error = error_to_wire(outcome.error)
            self._retry.on_outcome(proposal, outcome)
        self._open -= 1
        if not self._open:
            self._finish()

    def _finish(self) -> None:
        connection = self._connection
        connection.in_flight -= 1
        if self._error is not None:
            connection.reply_error(MessageType.GOODBYE, self._request_id, self._error)
        else:
            connection.reply(MessageType.GOODBYE, self._request_id, b"")


class RetryEnd(Protocol):
    """Who sees to it that a session's end that the log refused is proposed again."""

    def on_outcome(self, proposal: Proposal, outcome: Outcome) -> None:
        """As in `Waiter`."""
