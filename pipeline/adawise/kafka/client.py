"""The edge to kafka-python: opening its clients, its errors and records in our words."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from kafka import errors
from typing_extensions import override

from adawise.errors import AdawiseError, BrokerUnavailable, FatalError, SettingsError, SourceError
from adawise.kafka import repairs
from adawise.records import Message, Missing, stated_ms

Client = TypeVar("Client")

BOOTSTRAP_TIMEOUT_MS = 10_000
REQUEST_TIMEOUT_MS = 10_000

TOO_LARGE = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError)
EMBEDDED = "tansu_cluster"
"""The id of the embedded broker's cluster."""

OPENED: ContextVar[list[Any] | None] = ContextVar("opened", default=None)
"""Where `open_client` notes the network half of each client that is opened in this context.

Whoever closes it from another thread ends a question that nobody answers, and the opening itself.
"""

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
        "Install what this producer compresses with: pip install 'kafka-python[lz4,snappy,zstd]'.",
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
    repairs.install()
    opened: list[Any] = []

    def net_client(**net_config: Any) -> Any:
        opened.append(repairs.NetClient(**net_config))
        if (noted := OPENED.get()) is not None:
            noted.append(opened[-1])
        return opened[-1]

    servers = [server.strip() for server in bootstrap_servers.split(",") if server.strip()]
    config = {"bootstrap_timeout_ms": BOOTSTRAP_TIMEOUT_MS, "request_timeout_ms": REQUEST_TIMEOUT_MS, **config}
    refusal = _LastRefusal()
    try:
        with kafka_errors(bootstrap_servers, "connect to Kafka"), refusal:
            return kind(bootstrap_servers=servers, kafka_client=net_client, **_with_tls(security), **config)
    except BaseException as error:
        for client in opened:  # kafka-python leaves its thread and its sockets behind when it cannot bootstrap
            client.close()
        if isinstance(error, (OSError, ValueError, TypeError, AssertionError)):
            raise SettingsError(
                f"could not connect to Kafka at {bootstrap_servers}: {type(error).__name__}: {error}. "
                "Check kafka.bootstrap_servers (host:port) and the files and names in kafka.security."
            ) from error
        raise


class _LastRefusal(logging.Handler):
    """Why the last attempt to connect failed: kafka-python logs that, and raises a timeout which does not say it.

    Its lines, four for each attempt, go nowhere else meanwhile: what they say is in the error.
    """

    _logger = logging.getLogger("kafka.net")

    def __init__(self) -> None:
        super().__init__()
        self._error: Exception | None = None

    @override
    def emit(self, record: logging.LogRecord) -> None:
        """Keep the exception that a line of the connection's log names."""
        named = [
            a for a in record.args or () if isinstance(a, Exception) and not isinstance(a, errors.KafkaTimeoutError)
        ]
        self._error = named[-1] if named else self._error

    def __enter__(self) -> None:
        self._logger.addHandler(self)
        self._logger.propagate = False

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._logger.removeHandler(self)
        self._logger.propagate = True
        if isinstance(error, errors.KafkaTimeoutError) and self._error is not None:
            # A refusal that will not change tells more than the timeout; any other is good to know beside it.
            final = isinstance(self._error, tuple(refused for refused, _, _ in _REFUSED))
            raise (
                self._error if final else errors.KafkaTimeoutError(f"{error.args[0]}; the last attempt: {self._error}")
            )


def _with_tls(security: Mapping[str, object]) -> dict[str, Any]:
    """Load the certificates once and now: kafka-python would try again and again, and leak a socket each time."""
    arguments: dict[str, Any] = dict(security)
    if arguments.get("security_protocol") not in ("SSL", "SASL_SSL") or arguments.get("ssl_context") is not None:
        return arguments
    context = ssl.create_default_context(cafile=arguments.pop("ssl_cafile", None))
    context.check_hostname = bool(arguments.pop("ssl_check_hostname", True))
    certificate, key = arguments.pop("ssl_certfile", None), arguments.pop("ssl_keyfile", None)
    password = arguments.pop("ssl_password", None)
    if certificate is not None:
        context.load_cert_chain(certificate, key, password)
    return {**arguments, "ssl_context": context}


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
        f"`adawise broker --port {_port(bootstrap_servers)}`, or set kafka.bootstrap_servers."
    )


def _port(bootstrap_servers: str) -> str:
    port = bootstrap_servers.partition(",")[0].rpartition(":")[2]
    return port if port.isdecimal() else "9092"


def message_of(record: Any, missing: Missing | None = None) -> Message:
    """Our message for a ConsumerRecord, which may stand for others that are `missing`."""
    return Message(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        key=record.key,
        value=record.value,
        headers=tuple((name, value) for name, value in record.headers),
        timestamp_ms=stated_ms(record.timestamp),
        missing=missing,
    )
