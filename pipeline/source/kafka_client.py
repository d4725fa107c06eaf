"""The edge to kafka-python: opening its clients, its errors in our words, and one repair of its record reader.

A producer may put any bytes into the name of a header; the broker stores them. kafka-python 3.0 decodes the name as
UTF-8, raises UnicodeDecodeError in the middle of a fetch and then spins for ever on the drained iterator (measured), so
that one hostile message would hang its partition. `tolerate_header_names` makes such a name readable instead.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from kafka import errors
from kafka.net.compat import KafkaNetClient
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.util import decode_varint

from pipeline.errors import AdawiseError, BrokerUnavailable, FatalError, SettingsError, SourceError

Client = TypeVar("Client")

BOOTSTRAP_TIMEOUT_MS = 10_000
REQUEST_TIMEOUT_MS = 10_000

_REFUSED: tuple[tuple[type[Exception], type[FatalError], str], ...] = (
    (
        errors.TopicAuthorizationFailedError,
        FatalError,
        "Give the user the ACLs READ and DESCRIBE (a producer: WRITE) on the topic.",
    ),
    (errors.GroupAuthorizationFailedError, FatalError, "Give the user the ACL READ on the consumer group."),
    (errors.AuthorizationError, FatalError, "Give the user the rights that the broker's message names."),
    (errors.SaslAuthenticationFailedError, SettingsError, "Check kafka.security: user name, password, mechanism."),
    (
        errors.UnsupportedSaslMechanismError,
        SettingsError,
        "Set kafka.security.sasl_mechanism to one the broker offers.",
    ),
    (errors.IllegalSaslStateError, SettingsError, "Set kafka.security.protocol to what this listener speaks."),
    (errors.InvalidSessionTimeoutError, SettingsError, "Set kafka.session_timeout_ms within the broker's limits."),
    (errors.InvalidGroupIdError, SettingsError, "Set kafka.group to a name that is not empty."),
    (errors.InvalidTopicError, SettingsError, "Set kafka.topic to a name of the characters a-z A-Z 0-9 . _ -."),
    (errors.KafkaConfigurationError, SettingsError, "Correct the setting that the message names."),
    (
        errors.InconsistentGroupProtocolError,
        SettingsError,
        "Other members of this group use another assignor: stop them, or set kafka.group to a group of its own.",
    ),
    (errors.FencedInstanceIdError, FatalError, "Another live worker has this static_member: give each its own."),
    (errors.GroupMaxSizeReachedError, FatalError, "Stop some members, or raise group.max.size on the broker."),
    (
        errors.UnsupportedCodecError,
        FatalError,
        "Install the codec that the producer compresses with: pip install 'kafka-python[lz4,snappy,zstd]'.",
    ),
    (errors.UnsupportedVersionError, FatalError, "Use a broker of Apache Kafka 2.1 or newer."),
    (errors.UnrecognizedBrokerVersion, FatalError, "Use a broker of Apache Kafka 2.1 or newer."),
    (
        errors.CorruptRecordError,
        SourceError,
        "Start again: it is read anew. If it fails at the same place, the broker's copy is damaged.",
    ),
    (
        errors.LogTruncationError,
        SourceError,
        "The broker lost messages that were already read (unclean leader election): compare the topic with the chain.",
    ),
    (
        errors.UnknownTopicOrPartitionError,
        SourceError,
        "Create the topic, or set kafka.topic to one that exists: it is never created by reading.",
    ),
)


def open_client(
    kind: Callable[..., Client], bootstrap_servers: str, security: Mapping[str, object], **config: Any
) -> Client:
    """A connected kafka-python client; nothing of it is left behind if the broker cannot be reached.

    Args:
        kind: KafkaConsumer, KafkaProducer or KafkaAdminClient.
        bootstrap_servers: "host:port", several separated by commas.
        security: kafka-python's arguments for TLS and SASL.
        config: kafka-python's other arguments.

    Raises:
        BrokerUnavailable: no broker answered within 10 s.
        SettingsError: the security settings or another argument cannot work.
    """
    opened: list[Any] = []

    def net_client(**net_config: Any) -> Any:
        opened.append(KafkaNetClient(**net_config))
        return opened[-1]

    servers = [server.strip() for server in bootstrap_servers.split(",") if server.strip()]
    config = {"bootstrap_timeout_ms": BOOTSTRAP_TIMEOUT_MS, "request_timeout_ms": REQUEST_TIMEOUT_MS, **config}
    try:
        with kafka_errors(bootstrap_servers, "connect to Kafka"):
            return kind(bootstrap_servers=servers, kafka_client=net_client, **security, **config)
    except BaseException as error:
        for client in opened:  # kafka-python leaves its thread and its sockets behind when it cannot bootstrap
            client.close()
        if isinstance(error, (ssl.SSLError, OSError, ValueError, TypeError, AssertionError)):
            msg = (
                f"could not connect to Kafka at {bootstrap_servers}: {type(error).__name__}: {error}. "
                "Check kafka.bootstrap_servers (host:port) and the files and names in kafka.security."
            )
            raise SettingsError(msg) from error
        raise


@contextmanager
def kafka_errors(bootstrap_servers: str, doing: str) -> Iterator[None]:
    """Whatever kafka-python raises inside comes out as one of ours; `doing` completes "could not ..."."""
    try:
        yield
    except errors.KafkaError as error:
        raise translated(error, bootstrap_servers, doing) from error


def translated(error: Exception, bootstrap_servers: str, doing: str) -> AdawiseError:
    """Our error for one of kafka-python's: fatal if asking again cannot help, else BrokerUnavailable."""
    where = f"could not {doing} at {bootstrap_servers}: {error}"
    for refused, ours, remedy in _REFUSED:
        if isinstance(error, refused):
            return ours(f"{where}. {remedy}")
    return BrokerUnavailable(
        f"{where}. Is the broker running and reachable from here? Start one with `deploy/kafka/kafka start` or "
        "`adawise broker`, or set kafka.bootstrap_servers."
    )


_read_record = DefaultRecordBatch._read_msg


def tolerate_header_names() -> None:
    """From now on a header's name that is not UTF-8 is delivered with "?" for each byte beyond ASCII."""
    DefaultRecordBatch._read_msg = _read_record_with_any_header_name


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
