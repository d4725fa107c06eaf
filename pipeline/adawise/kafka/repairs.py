"""Repairs of kafka-python 3.0, which hold while the pin is `<3.1`; review each when the pin moves.

Header names: a producer may put any bytes into the name of a header, and the broker stores them. The client decodes the
name as UTF-8, raises CorruptRecordError in the middle of a fetch, and its next poll spins for ever on what is left of
the batch (measured): one hostile message would hang its partition. Repaired, a byte beyond ASCII in such a name becomes
"?".

Sockets: three kinds are left to the garbage collector: that of a refused connection, for as long as a reference to the
error exists; that of a TLS handshake that failed; and that of a connection that still has bytes to send when the client
is closed. Repaired, all are closed. Reading from a connection that another thread has just closed is logged as an error
with a traceback. Repaired, it counts as the end of that connection. The broker's last bytes are dropped if they arrive
together with the end of the connection, and with them the reason of a refused login. Repaired, they are read first, and
the end is found after them.

Rebalances: a member whose JoinGroup and SyncGroup are answered between two polls forgets the answer and joins again,
which makes every other member join again too. A worker is busy with forward passes between two polls, so most answers
come then, and a group of busy members goes from rebalance to rebalance. Repaired, the next poll takes the answer that
came. A leader that joins because its topic got partitions forgets, once it has assigned them, that it joined: if the
answer comes between two polls, it never takes it, sends no heartbeat and has nothing more to read, for ever. Repaired,
a member needs to join until it has taken the answer.

Expulsion: a member that learns of its expulsion while it joins (it was frozen meanwhile) does not release its
partitions. It joins as a new member, and reports nothing about partitions that it gets again. A caller that saw the
expulsion would wait for them for ever. Repaired, it begins to join anew: its old partitions are lost, and those it gets
are new.

Claims: a member that joins names the partitions that it has. One that was expelled names its former ones. What the
leader then gives to others is held back until this member has released it, which it did long ago. Such a partition has
no owner until the next member joins or leaves, and one that another member owns is taken from it. Repaired, a member
claims what is assigned to it.

Paused partitions: records of a paused partition that were fetched and not delivered are put aside, and taken up again
after `resume` if the fetcher has no other records in hand. It also counts records that it has delivered to the end as
in hand. So a partition that is paused while others go on delivers nothing for ever, even once it is resumed. Repaired,
records delivered to the end do not count.

Leaving: a broker answers the requests of a connection one after the other, and a JoinGroup only when the group is
complete. A member that must stop meanwhile sends its LeaveGroup behind that, waits in vain and vanishes without
leaving; the group then waits for it. Repaired, a member that is joining leaves over another connection to the same
broker.

Missing topics: a producer that has ever sent to a topic that is deleted asks for new metadata in each turn of its
thread, and each request wakes the thread, so that it takes a whole core of the processor until the topic is there
again (measured: 472 turns between two answers of the broker, in place of 7). Repaired, a request that is pending is
not made again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partialmethod
from typing import Any

from kafka.cluster import ClusterMetadata
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
_request_update = ClusterMetadata.request_update


class NetClient(KafkaNetClient):  # type: ignore[misc]
    """The client's network half, with a way to end its attempts to connect."""

    @property
    def thread(self) -> threading.Thread | None:
        """The client's own thread if it has one, else None: it then runs on its caller's thread."""
        found: threading.Thread | None = self._net._io_thread
        return found

    def give_up(self) -> None:
        """End the attempts to find a first broker, as if their time were over. Call it on the thread that attempts."""
        self._manager.closed = True  # what the loop of attempts checks
        self._manager._bootstrap_wakeup.notify()


def install() -> None:
    """Apply the repairs; more calls have no further effect."""
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
    ClusterMetadata.request_update = _request_update_once


def _read_record_with_any_header_name(batch: Any) -> Any:
    start = batch._pos
    try:
        return _read_record(batch)
    except UnicodeDecodeError:
        for begin, end in _header_name_spans(batch._buffer, start):
            batch._buffer[begin:end] = bytes(byte if byte < 0x80 else ord("?") for byte in batch._buffer[begin:end])
        return _read_record(batch)  # the position has not moved: it is set after a whole record


def _header_name_spans(buffer: bytearray, position: int) -> Iterator[tuple[int, int]]:
    """Yield [begin, end) of each header's name in the v2 record (KIP-82) that begins at `position`."""
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
    """Close one connection, or all of them and the thread; closing all again has no effect."""
    if node_id is None and self._net._closed:
        return
    # A client that gave up looks closed already, and the original `close` would leave it open.
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
    return data, None if data else error  # the next read finds the end of the connection


async def _join_and_sync_once(self: Any) -> Any:
    """Return this generation's assignment: one that was answered and not taken yet, else the coordinator's answer."""
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
        self.coordinator_id = int(own.removeprefix("coordinator-"))  # the broker's id, reached over another connection
    return await _leave(self, *arguments, **options)


def _request_update_once(self: Any) -> Any:
    with self._lock:
        pending = self._future if self._need_update and self._refresh_loop_future is not None else None
    # The loop that refreshes was woken by the first request, and asks the broker once its pause between two is over.
    return pending if pending is not None and not pending.is_done else _request_update(self)
