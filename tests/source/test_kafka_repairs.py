from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.errors import CorruptRecordError
from kafka.net.inet import KafkaNetSocket
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from pipeline.source import kafka_repairs
from tests.source.kafka_bench import BytesName

Record = tuple[bytes | None, bytes | None, list[tuple[bytes, bytes | None]]]

TRICKY = b"\xff\xfe"
names = st.binary(max_size=20) | st.sampled_from([TRICKY, b"content-type", "höhe".encode()])
records = st.lists(
    st.tuples(
        st.none() | st.binary(max_size=50) | st.just(TRICKY),
        st.none() | st.binary(max_size=300) | st.just(TRICKY * 3),
        st.lists(st.tuples(names, st.none() | st.binary(max_size=50) | st.just(TRICKY)), max_size=4),
    ),
    min_size=1,
    max_size=5,
)


def batch_of(content: list[Record], compression: int) -> DefaultRecordBatch:
    builder = DefaultRecordBatchBuilder(2, compression, False, -1, -1, -1, 1 << 20)
    for offset, (key, value, headers) in enumerate(content):
        builder.append(offset, 1_700_000_000_000, key, value, [(BytesName(name), data) for name, data in headers])
    return DefaultRecordBatch(bytes(builder.build()))


def as_read(headers: list[tuple[bytes, bytes | None]]) -> list[tuple[str, bytes | None]]:
    """Names as they come out: if one of a record is not UTF-8, all of that record's are reduced to ASCII."""
    try:
        return [(name.decode(), data) for name, data in headers]
    except UnicodeDecodeError:
        return [("".join(chr(byte) if byte < 0x80 else "?" for byte in name), data) for name, data in headers]


@given(records, st.sampled_from([DefaultRecordBatch.CODEC_NONE, DefaultRecordBatch.CODEC_GZIP]))
def test_any_header_name_is_read_and_changes_nothing_else(content: list[Record], compression: int) -> None:
    kafka_repairs.install()
    found = [(record.key, record.value, record.headers) for record in batch_of(content, compression)]
    assert found == [(key, value, as_read(headers)) for key, value, headers in content]


def test_without_the_repair_one_such_name_breaks_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DefaultRecordBatch, "_read_msg", kafka_repairs._read_record)
    with pytest.raises(CorruptRecordError):
        list(batch_of([(None, b"x", [(TRICKY, b"")])], DefaultRecordBatch.CODEC_NONE))


def test_the_socket_of_a_refused_connection_is_closed_at_once() -> None:
    kafka_repairs.install()

    class Refused(KafkaNetSocket):  # type: ignore[misc]
        SCHEMES = ()

        def connect_ex(self, sock: socket.socket, address: object) -> int:
            raise ConnectionRefusedError(111, "refused")

    sock = socket.socket()
    attempt = KafkaNetSocket.sock_connect(Refused(), None, sock, ("127.0.0.1", 1))
    with pytest.raises(Exception, match="111"):
        attempt.send(None)
    assert sock.fileno() == -1
