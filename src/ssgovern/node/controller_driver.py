"""The duty of the elected candidate: one `Controller`, its log, its passes and who asks it.

One decision at a time: what is decided next has to see what was decided before, so a decision is
appended right behind what was replayed, and the next is made when it came back. A heartbeat waits
for none of that, nor for a disk.

Leases. `controller.settings` holds the arithmetic; what this driver owes it: a lease is granted
only while the log confirms that a majority obeyed this candidate within `CONTROLLER_CONFIRMED_MS`
(`confirmed_at`: no other had been elected before that moment). A controller that was cut off,
paused or overtaken therefore grants nothing that a successor does not wait out, and it need not
know that it has one. Nor is a lease granted to a node whose fencing is being appended. Time in
which this node's own loop stood still is nobody's silence.

A decision whose outcome is not known ends the duty; the log says what became of it, and the next
duty, here or elsewhere, begins with that. Refuses to know how the log agrees and how links live.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from ssgovern import limits
from ssgovern.controller.access_codec import command_from_wire
from ssgovern.controller.codec import (
    encode_entry,
    in_sync_from_wire,
    registration_from_wire,
    resigned_from_wire,
)
from ssgovern.controller.controller import Controller
from ssgovern.controller.nodes import Registration, Stopping
from ssgovern.controller.replicas import InSyncRequest, Resigned
from ssgovern.controller.requests import Candidates, Request, decide_requests, sentences
from ssgovern.controller.rows import NOBODY
from ssgovern.controller.rules import Decision
from ssgovern.controller.state import NodesFenced, Record, Settings
from ssgovern.errors import (
    FencedError,
    InvalidArgumentError,
    LimitExceededError,
    NotControllerError,
    OverloadedError,
    ShuttingDownError,
    SsGovernError,
    UnavailableError,
    UnsupportedTypeError,
)
from ssgovern.model import LogPosition, NodeId, ShardId, ShardMap
from ssgovern.node.candidates import change_candidates, demote_leaving
from ssgovern.node.commands import AddCandidate, RemoveCandidate, TransferController, command_of
from ssgovern.node.controller_seams import AgreedLog, PushLinks
from ssgovern.node.founder import Founder
from ssgovern.node.founding import Claim
from ssgovern.node.metadata import Metadata
from ssgovern.node.metadata_feed import MetadataFeed
from ssgovern.runtime import Runtime
from ssgovern.wire.codec import decode, encode
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import native_pb2, peer_pb2

log = logging.getLogger("ssgovern.controller")

_CLUSTER_ID_BYTES = 16
_PASSES_IN_A_ROW_MAX = 16
_RETRY_PAUSE_S = 0.05


class _Waiting:
    """A request and who waits for what is decided."""

    __slots__ = ("answer", "request")

    def __init__(self, request: Request, answer: asyncio.Future[tuple[str, int]]) -> None:
        self.request = request
        self.answer = answer


class ControllerDriver:
    """On every candidate; idle unless this one leads. Owned by the node, driven by `run`."""

    def __init__(
        self,
        me: NodeId,
        agreed: AgreedLog,
        metadata: Metadata,
        links: PushLinks,
        runtime: Runtime,
        *,
        settings: Settings,
        claims: Callable[[], Mapping[NodeId, Claim]],
        inherited: Callable[[], tuple[Registration, ShardMap] | None] = lambda: None,
        addresses: Mapping[NodeId, str] | None = None,
    ) -> None:
        """`settings`, `claims` and `inherited` are for the founding (`Founder`); `addresses` are
        those of the candidates as configured, for who asks the wrong one.
        """
        self._me = me
        self._log = agreed
        self._metadata = metadata
        self._links = links
        self._addresses = dict(addresses or {})
        self._wall_ms = runtime.wall_ms
        self._loop = asyncio.get_running_loop()
        self._controller: Controller | None = None
        self._term = 0
        self._waiting: deque[_Waiting] = deque()
        self._woken = asyncio.Event()
        self._last_run_ms = self._now_ms()
        self._changing_candidates = False
        # Sessions that end with what is being appended: they get no lease any more.
        self._ending: dict[NodeId, None] = {}
        self._feed = MetadataFeed(metadata, links, self._members)
        self._founder = Founder(
            me, agreed, metadata, runtime, settings=settings, claims=claims, inherited=inherited
        )
        metadata.record_listeners.append(self._on_records)
        metadata.listeners.append(lambda _change: self._woken.set())

    def __repr__(self) -> str:
        duty = repr(self._controller) if self._controller else "idle"
        return f"<ControllerDriver node={self._me} term={self._term} {duty}>"

    @property
    def is_controller(self) -> bool:
        """Whether this node decides now."""
        return self._in_office() is not None

    @property
    def trouble(self) -> str:
        """Why there is no cluster yet, for people; empty if there is, or others have to say."""
        return "" if self._metadata.state.cluster_id else self._founder.trouble

    def wake(self) -> None:
        """Say that leadership may have changed: the duty begins or ends at once."""
        self._woken.set()

    async def run(self) -> None:
        """Decide, whenever this candidate leads. Ends by cancellation."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch_stalls(), name="controller-stalls")
                while True:
                    self._woken.clear()
                    self._look_at_duty()
                    if self._controller is not None:
                        await self._decide_what_is_due()
                    elif self._log.is_leader and not self._metadata.state.cluster_id:
                        await self._founder.maybe_found()
                    await self._pause()
        finally:
            self._refuse_waiting(ShuttingDownError("the node is stopping"))

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(limits.CONTROLLER_PASS_MS / 1000.0):
                await self._woken.wait()

    def _now_ms(self) -> float:
        return self._loop.time() * 1000.0

    # --- stalls ----------------------------------------------------------------------------

    async def _watch_stalls(self) -> None:
        while True:
            await asyncio.sleep(limits.CONTROLLER_PASS_MS / 1000.0)
            self._note_running()

    def _note_running(self) -> float:
        """Return the time, having made good for any that this loop did not run.

        Called before silence is judged: after a stall nobody knows what comes first.
        """
        now_ms = self._now_ms()
        late_ms = now_ms - self._last_run_ms - limits.CONTROLLER_PASS_MS
        self._last_run_ms = now_ms
        if late_ms > limits.CONTROLLER_PASS_MS and self._controller is not None:
            log.warning("this node stood still for %.0f ms: nobody is silent for that", late_ms)
            self._controller.suspend(late_ms)
        return now_ms

    # --- beginning and ending the duty -----------------------------------------------------

    def _in_office(self) -> Controller | None:
        """Return the controller if this node is it now, as far as it knows."""
        controller = self._controller
        if controller is None or not self._log.is_leader or self._log.term != self._term:
            return None
        return controller if controller.state is self._metadata.state else None

    def _look_at_duty(self) -> None:
        self._metadata.note_controller(self._log.leader_id or NOBODY, self._log.term)
        if self._controller is not None and self._in_office() is None:
            self._step_down("another candidate may lead")
        if self._controller is None and self._log.is_leader and self._metadata.state.cluster_id:
            self._take_office()

    def _take_office(self) -> None:
        self._term = self._log.term
        self._last_run_ms = self._now_ms()
        self._controller = Controller(self._metadata.state, self._last_run_ms)
        log.info(
            "node %d is the controller in term %d: %r", self._me, self._term, self._metadata.state
        )
        self._feed.begin()

    def _step_down(self, why: str) -> None:
        self._controller = None
        self._feed.end()
        log.info("node %d is no longer the controller of term %d: %s", self._me, self._term, why)
        self._refuse_waiting(self._not_controller())

    def _refuse_waiting(self, error: SsGovernError) -> None:
        """Nothing was done for those who wait in the queue."""
        while self._waiting:
            answer = self._waiting.popleft().answer
            if not answer.done():
                answer.set_exception(error)

    def _not_controller(self) -> NotControllerError:
        controller = self._log.leader_id or NOBODY
        known = self._metadata.state.nodes.get(controller)
        address = known.address if known is not None else self._addresses.get(controller, "")
        where = f"node {controller} is" if controller not in (NOBODY, self._me) else "nobody is yet"
        return NotControllerError(
            f"node {self._me} is not the controller, {where}",
            controller=NOBODY if controller == self._me else controller,
            address="" if controller == self._me else address,
        )

    # --- deciding --------------------------------------------------------------------------

    async def _decide_what_is_due(self) -> None:
        """Decide for those who wait, then look at everything, until nothing is left to do."""
        for _ in range(_PASSES_IN_A_ROW_MAX):
            if not await self._serve_waiting():
                return
            if not await self._pass() and not self._waiting:
                break
        else:
            self._woken.set()
        await self._follow_candidates()

    async def _serve_waiting(self) -> bool:
        """Decide what was asked; False if the duty has ended."""
        while self._waiting:
            controller = self._in_office()
            if controller is None:
                return False
            batch: list[_Waiting] = []
            while self._waiting and len(batch) < limits.CONTROLLER_BATCH_MAX:
                waiting = self._waiting.popleft()
                if not waiting.answer.done():
                    batch.append(waiting)
            decided = decide_requests(
                controller.state,
                controller.soft,
                controller.rules,
                [waiting.request for waiting in batch],
                self._note_running(),
            )
            try:
                index = await self._append(decided.records)
            except (FencedError, OverloadedError):
                # Nothing was done, and this is still its office, or the next look will tell.
                self._waiting.extendleft(reversed(batch))
                await asyncio.sleep(_RETRY_PAUSE_S)
                return self._in_office() is not None
            except LimitExceededError as error:
                _answer_all(batch, [error] * len(batch), 0)
            except SsGovernError as error:
                ended = self._ended(error)
                _answer_all(batch, [ended] * len(batch), 0)
                self._step_down(str(error))
                return False
            else:
                _answer_all(batch, decided.outcomes, index)
        return True

    def _ended(self, error: SsGovernError) -> SsGovernError:
        if isinstance(error, NotControllerError):
            return self._not_controller()
        return UnavailableError(
            f"the controller lost its office; whether this was decided is not known: {error}"
        )

    async def _append(self, records: Sequence[Record]) -> int:
        """Commit records right behind what was replayed; return up to where the log is then."""
        after = self._metadata.index
        if not records:
            return after
        self._ending = _fenced_by(records)
        try:
            body = encode_entry(records, self._wall_ms())
            index = await self._log.append(body, after=after)
        finally:
            self._ending = {}
        assert self._metadata.index >= index, "an entry was committed and not replayed here"
        return index

    async def _pass(self) -> bool:
        """Look at everything; whether something was done."""
        controller = self._in_office()
        if controller is None:
            return False
        now_ms = self._note_running()
        for node in controller.state.sorted_nodes():
            if node.live and node.id != self._me:
                controller.note_gone(node.id, gone=self._links.is_refused(node.id))
        decision = controller.decide_pass(now_ms)
        return await self._carry_out(decision)

    async def _carry_out(self, decision: Decision) -> bool:
        """Append what a pass decided; whether that worked and there was something."""
        if not decision.records:
            if decision.sentence:
                log.warning(decision.sentence)
            return False
        try:
            await self._append(decision.records)
        except (FencedError, OverloadedError) as error:
            log.debug("not decided yet: %s", error)
            await asyncio.sleep(_RETRY_PAUSE_S)
            return False
        except SsGovernError as error:
            self._step_down(str(error))
            return False
        log.info(decision.sentence)
        return True

    def _on_records(self, records: Sequence[Record]) -> None:
        controller = self._controller
        if controller is None or controller.state is not self._metadata.state:
            return
        now_ms = self._now_ms()
        for record in records:
            controller.notice(record, now_ms)

    # --- candidates ------------------------------------------------------------------------

    async def _follow_candidates(self) -> None:
        """Let nodes know who votes, and let those who leave vote no more."""
        controller = self._in_office()
        if controller is None or self._changing_candidates:
            return
        request = Candidates(self._members())
        decided = decide_requests(
            controller.state, controller.soft, controller.rules, [request], self._now_ms()
        )
        if decided.records:
            sentence = "; ".join(record.reason for record in decided.records)
            await self._carry_out(Decision(decided.records, f"{sentence}."))
        elif (going := demote_leaving(controller.state, self._log.candidates)) is not None:
            await self._drop_candidate(going)

    def _members(self) -> tuple[NodeId, ...]:
        return (*self._log.candidates, *self._log.learners)

    async def _drop_candidate(self, node: NodeId) -> None:
        voters = [voter for voter in self._log.candidates if voter != node]
        try:
            if node == self._me:
                await self._log.transfer(max(voters))
            else:
                await self._log.change_members(voters)
                log.info("Node %d votes no more, because it is leaving.", node)
        except SsGovernError as error:
            log.debug("node %d still votes: %s", node, error)

    # --- requests --------------------------------------------------------------------------

    async def on_request(self, source: NodeId, type_: int, body: bytes) -> bytes:
        """Answer what a node asks of the controller. Raises NotControllerError elsewhere.

        A node asks in its own name; commands it may pass on for anybody.
        """
        if type_ == MessageType.NODE_HEARTBEAT:
            return self.on_heartbeat(source, body)
        if type_ == MessageType.METADATA_FETCH:
            return self._metadata.message(decode(peer_pb2.MetadataFetchRequest, body).after)
        if type_ == MessageType.FORWARDED_COMMAND:
            forwarded = decode(peer_pb2.ForwardedCommandRequest, body)
            if forwarded.HasField("access"):
                sentence, _ = await self._decide(command_from_wire(forwarded.access))
            else:
                sentence = await self.command(forwarded.command)
            return encode(native_pb2.ClusterCommandResponse(sentence=sentence))
        request = _request_of(type_, body)
        _check_own_name(source, request.node)
        if isinstance(request, Registration):
            # Whatever its configuration says: who votes is agreed upon.
            request = replace(request, candidate=request.node in self._members())
        sentence, index = await self._decide(request)
        if not isinstance(request, Registration):
            return encode(peer_pb2.ControllerResponse(sentence=sentence, index=index))
        state = self._metadata.state
        return encode(
            peer_pb2.NodeRegisterResponse(
                session=state.nodes[request.node].session, cluster_id=state.cluster_id, index=index
            )
        )

    def on_heartbeat(self, source: NodeId, body: bytes) -> bytes:
        """Answer a heartbeat, at once."""
        said = decode(peer_pb2.NodeHeartbeatRequest, body)
        node = NodeId(said.node_id)
        _check_own_name(source, node)
        controller = self._in_office_or_refuse()
        known = controller.state.nodes.get(node)
        if node in controller.state.retired:
            raise FencedError(f"node {node} has left the cluster", node=node, left=1)
        if known is None or known.session < said.session:
            # Whoever granted that session came later than all that this candidate knows.
            raise self._not_controller()
        now_ms = self._note_running()
        positions = {
            ShardId(told.shard): LogPosition(told.epoch, told.revision)
            for told in said.positions[: limits.NODE_POSITIONS_MAX]
            if told.shard < len(controller.state.rows)
        }
        controller.hear(node, said.session, now_ms, positions)
        lease_ms = limits.NODE_LEASE_MS if self._may_grant(node, now_ms) else 0
        return encode(peer_pb2.NodeHeartbeatResponse(lease_ms=lease_ms, index=self._metadata.index))

    def _may_grant(self, node: NodeId, now_ms: float) -> bool:
        """Whether whoever fences this node next will have waited until its lease is over."""
        unconfirmed_ms = now_ms - self._log.confirmed_at * 1000.0
        return unconfirmed_ms <= limits.CONTROLLER_CONFIRMED_MS and node not in self._ending

    def _in_office_or_refuse(self) -> Controller:
        controller = self._in_office()
        if controller is None and self._log.is_leader:
            # Elected a moment ago; or there is no cluster yet.
            self._look_at_duty()
            controller = self._in_office()
            if controller is None:
                raise UnavailableError(self.trouble or "the cluster is about to be founded")
        if controller is None:
            raise self._not_controller()
        return controller

    async def _decide(self, request: Request) -> tuple[str, int]:
        """Have something decided; return what, and the index of the log that shows it."""
        self._in_office_or_refuse()
        if len(self._waiting) >= limits.CONTROLLER_REQUESTS_MAX:
            raise OverloadedError(f"{len(self._waiting)} requests wait for the controller already")
        waiting = _Waiting(request, self._loop.create_future())
        self._waiting.append(waiting)
        self._woken.set()
        return await waiting.answer

    async def command(self, request: native_pb2.ClusterCommandRequest) -> str:
        """Do what an operator wants; return one sentence about it.

        Raises NotControllerError, InvalidArgumentError, NotFoundError with the reason.
        """
        wanted = command_of(request)
        if isinstance(wanted, AddCandidate | RemoveCandidate):
            return await self._change_candidates(wanted)
        if isinstance(wanted, TransferController):
            return await self._transfer_controller(wanted.to)
        sentence, _ = await self._decide(wanted)
        return sentence

    async def _transfer_controller(self, to: NodeId) -> str:
        self._in_office_or_refuse()
        if to == self._me:
            return f"Node {to} is the controller already."
        if not await self._log.transfer(to):
            raise UnavailableError(
                f"node {to} did not take over in time: this node is still the controller"
            )
        return f"Node {to} takes over as the controller."

    async def hand_over(self) -> None:
        """Let another candidate be the controller if this one is: its node is about to stop.

        Asks those that are here, one after the other; who finds nobody stays the controller.
        """
        for node in self._log.candidates:
            if not self._log.is_leader:
                return
            if node == self._me or self._links.is_refused(node):
                continue
            if not self._metadata.state.is_live(node):
                continue
            try:
                if await self._log.transfer(node):
                    log.info("Node %d takes over as the controller.", node)
                    return
            except SsGovernError as error:
                log.debug("node %d does not take over as the controller: %s", node, error)

    async def _change_candidates(self, wanted: AddCandidate | RemoveCandidate) -> str:
        controller = self._in_office_or_refuse()
        if self._changing_candidates:
            raise OverloadedError("another change of the candidates is under way: one at a time")
        self._changing_candidates = True
        try:
            sentence = await change_candidates(
                self._log, controller.state, self._me, wanted, self._tell_candidates
            )
        finally:
            self._changing_candidates = False
            self._woken.set()
        log.info(sentence)
        return sentence

    async def _tell_candidates(self, members: tuple[NodeId, ...]) -> None:
        await self._decide(Candidates(members))


def _request_of(type_: int, body: bytes) -> Registration | InSyncRequest | Resigned | Stopping:
    match type_:
        case MessageType.NODE_REGISTER:
            return registration_from_wire(decode(peer_pb2.NodeRegisterRequest, body))
        case MessageType.IN_SYNC_CHANGE:
            return in_sync_from_wire(decode(peer_pb2.InSyncChangeRequest, body))
        case MessageType.SHARD_RESIGNED:
            return resigned_from_wire(decode(peer_pb2.ShardResignedRequest, body))
        case MessageType.NODE_STOPPING:
            stopping = decode(peer_pb2.NodeStoppingRequest, body)
            return Stopping(NodeId(stopping.node_id), stopping.session)
        case _:
            raise UnsupportedTypeError(f"the controller knows no request of type {type_}")


def _fenced_by(records: Sequence[Record]) -> dict[NodeId, None]:
    return {
        node: None
        for record in records
        if isinstance(record.change, NodesFenced)
        for node in record.change.nodes
    }


def _check_own_name(source: NodeId, node: NodeId) -> None:
    if source != node:
        raise InvalidArgumentError(
            f"node {source} asks in the name of node {node}", field="node_id"
        )


def _answer_all(
    batch: Sequence[_Waiting], outcomes: Sequence[Decision | SsGovernError], index: int
) -> None:
    for sentence in sentences([waiting.request for waiting in batch], outcomes):
        log.info(sentence)
    for waiting, outcome in zip(batch, outcomes, strict=True):
        if waiting.answer.done():
            continue
        if isinstance(outcome, Decision):
            waiting.answer.set_result((outcome.sentence, index))
        else:
            waiting.answer.set_exception(outcome)
