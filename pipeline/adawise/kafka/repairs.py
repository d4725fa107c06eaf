"""Repairs of kafka-python 3.0, which the pin `<3.1` keeps true; look at each when it moves.

Header names: a producer may put any bytes into the name of a header, and the broker stores them. The client decodes the
name as UTF-8, raises CorruptRecordError in the middle of a fetch, and its next poll spins for ever on what is left of
the batch (measured): one hostile message would hang its partition. Repaired, a byte beyond ASCII in such a name is "?".

Sockets: the client leaves the socket of each refused connection to the garbage collector, for as long as anybody keeps
the error, that of a TLS handshake that failed, and that of a connection that still has bytes to send when the client is
closed. Repaired, all are closed.
Reading from a connection that another thread has just closed is logged as an error with a traceback. Repaired, it is
the end of that connection. And what a broker says in its last words is thrown away if they come together with the end
of the connection: why it lets nobody in, first of all. Repaired, they are read first, and the end is found after them.

Rebalances: a member whose JoinGroup and SyncGroup are answered while nobody polls forgets the answer and joins again,
which makes every other member join again too. A worker is busy with forwards between two polls, so most answers come
then, and a group of busy members goes from rebalance to rebalance. Repaired, the next poll takes the answer that came.
And a leader that joins because its topic got partitions forgets, once it has dealt them out, that it joined: if the
answer comes while nobody polls, it never takes it, sends no heartbeat and has nothing more to read, for ever. Repaired,
a member needs to join until it has taken the answer.

Expulsion: a member that hears of it while it joins (it was frozen meanwhile) does not let go of what it had, joins as a
new member, and says nothing of partitions that it gets again. Whoever saw that it was expelled would wait for them for
ever. Repaired, it begins to join anew: what it had is lost, and what it gets is new.

Claims: a member that joins tells the group which partitions it has. One that was expelled tells of those that it had
before. What the leader then gives to others is held back until this one has let go of it, which it did long ago: such a
partition is nobody's until somebody joins or leaves, and one that another has is taken from it. Repaired, a member
claims what is assigned to it.

Paused partitions: what was fetched of one and not delivered is put aside, and taken up again after `resume` if the
fetcher has nothing else in hand. It takes what it has delivered to its end for something in hand. So a partition that
is paused while others go on is silent for ever, whoever resumes it. Repaired, what is at its end is nothing.

Leaving: a broker answers the requests of a connection one after the other, and a JoinGroup only when the group is
complete. A member that is told to stop meanwhile sends its LeaveGroup behind that, waits in vain and is gone without a
word; the group then waits for it. Repaired, a member that is joining leaves by another connection to the same broker.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partialmethod
from typing import Any

from kafka.consumer.fetcher import Fetcher
from kafka.coordinator.consumer import ConsumerCoordinator
from kafka.errors import KafkaConnectionError
from kafka.net.compat import KafkaNetClient
from kafka.net.inet import KafkaNetSocket
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.util import decode_varint

_fetch_records = Fetcher.fetch_records
_read_record = DefaultRecordBatch._read_msg
_receive = KafkaTCPTransport._sock_recv
_receive_encrypted = KafkaSSLTransport._sock_recv
_shake_hands = KafkaSSLTransport.handshake
_connect_socket = KafkaNetSocket.sock_connect
_close = KafkaNetClient.close
_join_and_sync = ConsumerCoordinator._do_join_and_sync_async
_complete_join = ConsumerCoordinator._on_join_complete_async
_needs_to_join = ConsumerCoordinator.need_rejoin
_claims = ConsumerCoordinator.group_protocols
_reset = ConsumerCoordinator.reset_generation
_leave = ConsumerCoordinator.maybe_leave_group_async


class NetClient(KafkaNetClient):  # type: ignore[misc]
    """The client's network half, which can be told to end its attempts to connect."""

    @property
    def thread(self) -> threading.Thread | None:
        """Its own, if it has one; else it runs on whoever calls it."""
        found: threading.Thread | None = self._net._io_thread
        return found

    def give_up(self) -> None:
        """End the attempts to find a first broker, as if their time were over; from the thread that makes them."""
        self._manager.closed = True  # what the loop of attempts looks at
        self._manager._bootstrap_wakeup.notify()


def install() -> None:
    """Put the repairs in; again and again is the same as once."""
    Fetcher.fetch_records = _fetch_records_with_an_empty_hand
    DefaultRecordBatch._read_msg = _read_record_with_any_header_name
    KafkaTCPTransport._sock_recv = partialmethod(_receive_last_words, _receive)
    KafkaSSLTransport._sock_recv = partialmethod(_receive_last_words, _receive_encrypted)
    KafkaSSLTransport.handshake = _shake_hands_or_close_socket
    KafkaNetSocket.sock_connect = _connect_or_close_socket
    KafkaNetClient.close = _close_with_all_sockets
    ConsumerCoordinator._do_join_and_sync_async = _join_and_sync_once
    ConsumerCoordinator._on_join_complete_async = _complete_join_once
    ConsumerCoordinator.group_protocols = _claims_of_what_is_assigned
    ConsumerCoordinator.need_rejoin = _needs_to_join_until_joined
    ConsumerCoordinator.reset_generation = _reset_and_begin_to_join_anew
    ConsumerCoordinator.maybe_leave_group_async = _leave_past_a_join


def _read_record_with_any_header_name(batch: Any) -> Any:
    start = batch._pos
    try:
        return _read_record(batch)
    except UnicodeDecodeError:
        for begin, end in _header_name_spans(batch._buffer, start):
            batch._buffer[begin:end] = bytes(byte if byte < 0x80 else ord("?") for byte in batch._buffer[begin:end])
        return _read_record(batch)  # the position has not moved: it is set when a record was read whole


def _header_name_spans(buffer: bytearray, position: int) -> Iterator[tuple[int, int]]:
    """[begin, end) of each header's name in the v2 record (KIP-82) that begins at `position`."""
    for _ in range(4):  # length, attributes, timestamp delta, offset delta
        _, position = decode_varint(buffer, position)
    for _ in range(2):  # key, value
        length, position = decode_varint(buffer, position)
        position += max(length, 0)
    headers, position = decode_varint(buffer, position)
    for _ in range(headers):
        length, position = decode_varint(buffer, position)
        yield position, position + length
        length, position = decode_varint(buffer, position + length)
        position += max(length, 0)


def _fetch_records_with_an_empty_hand(self: Any, *arguments: Any, **options: Any) -> Any:
    if not self._next_partition_records:  # delivered to its end
        self._next_partition_records = None
    return _fetch_records(self, *arguments, **options)


async def _connect_or_close_socket(self: Any, net: Any, sock: Any, *arguments: Any, **options: Any) -> Any:
    try:
        return await _connect_socket(self, net, sock, *arguments, **options)
    except BaseException:
        sock.close()
        raise


async def _shake_hands_or_close_socket(self: Any) -> None:
    try:
        await _shake_hands(self)
    except BaseException:
        self.close()
        raise


def _close_with_all_sockets(self: Any, node_id: Any = None) -> None:
    """Close one connection, or all and the thread; all again is the same as once."""
    if node_id is None and self._net._closed:
        return
    self._manager.closed = self._manager.closed and node_id is not None
    transports = [connection.transport for connection in self._manager._conns.values()]
    _close(self, node_id)
    if node_id is None:
        for transport in transports:
            if transport is not None and transport._sock is not None:
                transport._sock.close()  # the thread that would have sent its last bytes is gone


def _receive_last_words(self: Any, receive: Callable[[Any], Any]) -> Any:
    if self._sock is None:
        return b"", KafkaConnectionError("closed meanwhile")
    data, error = receive(self)
    return data, None if data else error  # the end is still there to be read


async def _join_and_sync_once(self: Any) -> Any:
    """The assignment of this generation: the one that was answered and not taken yet, or the coordinator's answer."""
    generation, assignment = getattr(self, "_answered", (None, None))
    if generation is None or generation is not self._generation:  # none, or the member was expelled since
        assignment = await _join_and_sync(self)
        self._answered = (self._generation, assignment)
    return assignment


async def _complete_join_once(self: Any, *arguments: Any, **options: Any) -> Any:
    self._answered = (None, None)  # taken
    return await _complete_join(self, *arguments, **options)


def _claims_of_what_is_assigned(self: Any) -> Any:
    for assignor in self._assignors.values():
        assignor.member_assignment = sorted(self._subscription.assigned_partitions())
    return _claims(self)


def _needs_to_join_until_joined(self: Any) -> bool:
    return bool(_needs_to_join(self)) or (self.rejoining and bool(self._subscription.partitions_auto_assigned()))


def _reset_and_begin_to_join_anew(self: Any, *arguments: Any, **options: Any) -> None:
    _reset(self, *arguments, **options)
    self.rejoining = False


async def _leave_past_a_join(self: Any, *arguments: Any, **options: Any) -> Any:
    own = str(self.coordinator_id)
    if self._join_task is not None and not self._join_task.is_done and own.startswith("coordinator-"):
        self.coordinator_id = int(own.removeprefix("coordinator-"))  # the broker without a connection of its own
    return await _leave(self, *arguments, **options)
