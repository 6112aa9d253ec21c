"""One end of a TCP connection, as the kernel of a simulated machine keeps it.

Simulated: the handshake with its retries; segments that are acknowledged, lost, retransmitted
with back-off and given up after the user timeout; buffers and windows at both ends; half close,
close, reset; ends that vanish with their machine's power. Not simulated: congestion control,
keep-alive probes, selective retransmission.

It refuses to know about loops and processes: an `Owner` is told when there is something to do,
and an end without one (its process has closed it or is dead) still says goodbye properly.

Invariants:
- bytes are received in order, once, and none that were not sent;
- what an end knows of its peer it learned from packets that passed the links between them;
- a cut or lossy link makes no error by itself: only a reset or a timeout does.
"""

from __future__ import annotations

import errno
import math
import zlib
from typing import TYPE_CHECKING, Final

from ssgovern.sim import streams
from ssgovern.sim.streams import Bytes, ReceiveStream, Segment, SendStream
from ssgovern.sim.system import Address, Owner, os_error
from ssgovern.sim.trace import Kind

if TYPE_CHECKING:
    from ssgovern.sim.machine import Listener, Machine
    from ssgovern.sim.world import World

# Linux's figures.
RETRANSMIT_SECONDS: Final = 0.2
RETRANSMIT_SECONDS_MAX: Final = 120.0
USER_TIMEOUT_SECONDS: Final = 924.0
# Segments of one direction never arrive in the same instant.
_SPACING_SECONDS: Final = 1e-7


class Endpoint:
    """One end. `Network.connect` makes the client's, the arrival of its SYN the server's."""

    def __init__(
        self,
        world: World,
        machine: Machine,
        remote_machine: Machine,
        local: Address,
        remote: Address,
        *,
        listener: Listener | None = None,
    ) -> None:
        network = world.network
        self.machine = machine
        self.remote_machine = remote_machine
        self.local = local
        self.remote = remote
        self.owner: Owner | None = None
        self._world = world
        self._network = network
        self.link = network.link(machine.name, remote_machine.name)
        self.return_link = network.link(remote_machine.name, machine.name)
        self.number = network.next_endpoint()
        # Of a server's end: where it goes when the handshake is over.
        self._listener = listener
        is_client = listener is None
        self._send = SendStream(0 if is_client else 1)
        self._receive = ReceiveStream(1 if is_client else 0)
        self._peer: Endpoint | None = None
        self._established = False
        self._closed = False
        self._gone = False
        self._error: OSError | None = None
        # Sending: when to act without an acknowledgement, when the timer fires next (it looks
        # then whether it is due), and since when nothing was acknowledged.
        self._due = 0.0
        self._timer_at = math.inf
        self._backoff = 0
        self._progress_at = 0.0
        self._user_timeout = USER_TIMEOUT_SECONDS
        self._last_arrival = 0.0
        # Receiving: acknowledgements are cumulative, so one on the wire at a time will do.
        self._ack_on_wire = False
        self._limit_told = 0
        machine.endpoints[self] = None

    def __repr__(self) -> str:
        state = "gone" if self._gone else "closed" if self._closed else "open"
        return f"<Endpoint {self.number} {self.local} -> {self.remote} {state}>"

    # For the process that holds it

    def is_established(self) -> bool:
        return self._established and not self._gone

    def is_readable(self) -> bool:
        receive = self._receive
        return bool(receive.unread or receive.is_last_received or self._gone)

    def is_writable(self) -> bool:
        return self._gone or self._send.room > 0

    def send(self, payload: Bytes) -> int:
        """Take as many bytes as fit the buffer, at least one, or raise as `socket.send` does."""
        self._raise_error()
        if self._gone or self._closed or self._send.is_finishing:
            raise os_error(errno.EPIPE)
        room = self._send.room
        if room <= 0:
            raise os_error(errno.EAGAIN)
        self._start_clock()
        taken = min(len(payload), room)
        self._send.write(payload if taken == len(payload) else memoryview(payload)[:taken])
        self._flush()
        return taken

    def receive(self, count: int) -> bytes:
        """Return up to `count` bytes, sometimes fewer than there are; empty at the end."""
        unread = self._receive.unread
        if unread:
            rng, network = self._world.net_rng, self._network
            if unread > 1 and rng.random() < network.split_probability:
                count = min(count, rng.randrange(1, unread))
            payload = self._receive.read(count)
            if self._window_grew():
                self._acknowledge()
            return payload
        self._raise_error()
        if self._receive.is_last_received or self._gone:
            return b""
        raise os_error(errno.EAGAIN)

    def finish(self) -> None:
        """Tell the peer that nothing more will be sent; it may go on sending."""
        if self._gone:
            raise os_error(errno.ENOTCONN)
        self._start_clock()
        self._send.finish()
        self._flush()

    def set_user_timeout(self, seconds: float) -> None:
        """Give up after so long without an acknowledgement; 0 is the system's default."""
        self._user_timeout = seconds or USER_TIMEOUT_SECONDS

    def close(self) -> None:
        """Close as `socket.close` does: what was sent still goes out, unread bytes mean a reset."""
        self.owner = None
        if self._gone or self._closed:
            return
        self._closed = True
        if not self._established:
            self.vanish()
        elif self._receive.unread:
            self.abort()
        else:
            self.finish()

    def abort(self) -> None:
        """Forget the connection and send a reset, which may be lost."""
        self._send_reset()
        self.vanish()

    def vanish(self) -> None:
        """Forget the connection without a word, as a power cut does."""
        self._gone = True
        self._send.discard()
        self.machine.endpoints.pop(self, None)

    def reset_by_network(self) -> None:
        """Something between the machines sends a reset to both ends."""
        for end in (self, self._peer):
            if end is not None:
                self._world.after(0.0, end._on_reset)

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def fail(self, code: int) -> None:
        """End it with an error, which the process sees when it next sends or receives."""
        self._error = os_error(code)
        self.vanish()
        if self.owner is None:
            return
        if self._established:
            self.owner.on_readable()
            self.owner.on_writable()
        else:
            self.owner.on_connected(os_error(code, f"Connect call failed {self.remote}"))

    # Handshake, for `ssgovern.sim.handshake`

    def is_connecting(self) -> bool:
        return not self._established and not self._gone

    def is_gone(self) -> bool:
        return self._gone

    def meet(self, peer: Endpoint) -> None:
        """From now on, packets of this end arrive at `peer`."""
        self._peer = peer

    def on_established(self) -> None:
        """The client knows that the server's kernel has accepted."""
        self._established = True
        if self.owner is not None:
            self.owner.on_connected(None)
        self._start_clock()
        self._flush()

    def _on_accepted(self) -> None:
        assert self._listener is not None, "only a server's end gets a first segment"
        self._established = True
        if self._listener.is_open:
            self._listener.offer(self)
        else:
            self.abort()

    # Sending

    def _start_clock(self) -> None:
        """Count the user timeout from now, unless the peer already owes an acknowledgement."""
        if not self._send.is_outstanding:
            self._progress_at = self._world.now

    def _flush(self) -> None:
        """Send what may be sent, and see to the timer."""
        if not self._established:
            return
        send = self._send
        while (segment := send.next_segment()) is not None:
            self._transmit(segment)
        if send.is_outstanding:
            self._arm()

    def _transmit(self, segment: Segment) -> bool:
        """Put a segment on the link; False if the link is cut, so that trying more is idle."""
        world = self._world
        arrival = self._network.transit_or_lose(self.link, len(segment.payload))
        if arrival is not None:
            self._last_arrival = max(arrival, self._last_arrival + _SPACING_SECONDS)
            world.at(self._last_arrival, self._on_segment_at_remote, segment)
        self._due = max(self._due, self._answer_expected() + self._patience())
        return not self.link.cut

    def hold_back(self, delay_s: float) -> None:
        """Have all that is sent from now on arrive so much later, in its order."""
        self._last_arrival = max(self._last_arrival, self._world.now) + delay_s

    def _answer_expected(self) -> float:
        """When an answer to all that was sent would be here: a kernel has measured this."""
        back = self.return_link
        return max(self._world.now, self._last_arrival, back.free_at) + back.latency + back.jitter

    def _patience(self) -> float:
        return min(RETRANSMIT_SECONDS * (1 << self._backoff), RETRANSMIT_SECONDS_MAX)

    def _arm(self) -> None:
        when = max(min(self._due, self._progress_at + self._user_timeout), self._world.now)
        if when < self._timer_at:
            self._timer_at = when
            self._world.at(when, self._on_timer, when)

    def _on_timer(self, when: float) -> None:
        """Retransmit with more patience, ask for a window, or give up."""
        if when != self._timer_at:
            return
        self._timer_at = math.inf
        now = self._world.now
        if self._gone or not self._send.is_outstanding:
            return
        if now >= self._progress_at + self._user_timeout:
            self._world.trace.add(now, Kind.TIMEOUT, self.number)
            self.fail(errno.ETIMEDOUT)
            return
        if now >= self._due:
            self._backoff = min(self._backoff + 1, 10)
            if self._send.unacked:
                self._retransmit()
            else:
                self._probe_window()
        self._arm()

    def _retransmit(self) -> None:
        for segment in self._send.unacked:
            if not self._transmit(segment):
                break

    def _probe_window(self) -> None:
        arrival = self._network.transit_or_lose(self.link)
        if arrival is not None:
            self._world.at(arrival, self._on_probe_at_remote)
        self._due = self._answer_expected() + self._patience()

    def _on_ack(self, upto: int, limit: int) -> None:
        if self._gone:
            return
        advanced = self._send.on_ack(upto, limit)
        if advanced:
            self._backoff = 0
        if advanced or not self._send.unacked:
            # A peer that answers probes without opening its window is alive.
            self._progress_at = self._world.now
            self._due = self._answer_expected() + self._patience()
        self._flush()
        if advanced and self.owner is not None:
            self.owner.on_writable()
        self._vanish_if_done()

    def _send_reset(self) -> None:
        arrival = self._network.transit_or_lose(self.link)
        if arrival is not None:
            # Not before what was sent before it.
            self._last_arrival = max(arrival, self._last_arrival + _SPACING_SECONDS)
            self._world.at(self._last_arrival, self._on_reset_at_remote)

    # Packets of this end, arriving at the other

    def _at_remote(self) -> Endpoint | None:
        """Return the peer, if a packet that arrives now reaches it."""
        return None if self.link.cut or not self.remote_machine.powered else self._peer

    def _on_segment_at_remote(self, segment: Segment) -> None:
        if (peer := self._at_remote()) is not None:
            peer._on_segment(segment)

    def _on_probe_at_remote(self) -> None:
        if (peer := self._at_remote()) is not None:
            peer._on_probe()

    def _on_reset_at_remote(self) -> None:
        if (peer := self._at_remote()) is not None:
            peer._on_reset()

    def _on_ack_at_remote(self, upto: int, limit: int) -> None:
        self._ack_on_wire = False
        if (peer := self._at_remote()) is not None:
            self._limit_told = max(self._limit_told, limit)
            peer._on_ack(upto, limit)
            if self._receive.next > upto or self._window_grew():
                self._acknowledge()

    # Receiving

    def _on_segment(self, segment: Segment) -> None:
        receive, world = self._receive, self._world
        self._network.segments += 1
        world.trace.add(
            world.now, Kind.SEGMENT, self.number, segment.start, zlib.crc32(segment.payload)
        )
        if self._gone:
            self._send_reset()
            return
        if self._closed and segment.payload and segment.end > receive.next:
            # Nobody will read it: say so, or the sender would go on for ever.
            self.abort()
            return
        moved = receive.accept(segment)
        self._acknowledge()
        if not moved:
            return
        if not self._established:
            self._on_accepted()
        elif self.owner is not None:
            self.owner.on_readable()
        self._vanish_if_done()

    def _on_probe(self) -> None:
        if self._gone:
            self._send_reset()
        else:
            self._acknowledge()

    def _acknowledge(self) -> None:
        if self._ack_on_wire:
            return
        arrival = self._network.transit(self.link)
        if arrival is not None:
            self._ack_on_wire = True
            receive = self._receive
            self._world.at(arrival, self._on_ack_at_remote, receive.next, receive.limit)

    def _window_grew(self) -> bool:
        return self._receive.limit - self._limit_told >= streams.RECEIVE_BUFFER_BYTES // 2

    def _on_reset(self) -> None:
        if self._gone:
            return
        self._world.trace.add(self._world.now, Kind.RESET, self.number)
        self.fail(errno.EPIPE if self._receive.is_last_received else errno.ECONNRESET)

    def _vanish_if_done(self) -> None:
        if self._closed and self._send.is_finished and self._receive.is_last_received:
            self.vanish()
