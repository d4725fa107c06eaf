"""The boundary to kafka-python: it opens clients, and translates their errors and records into ours."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypedDict, TypeVar

from kafka import errors
from typing_extensions import override

from adawise.errors import AdawiseError, BrokerUnavailable, FatalError, SettingsError, SourceError
from adawise.kafka import repairs
from adawise.kafka.oauth import TokenRefused, TokenUnavailable
from adawise.kafka.probe import mismatch
from adawise.kafka.tls import refusal, tls_context
from adawise.records import Message, Missing, stated_ms

Client = TypeVar("Client")

BOOTSTRAP_TIMEOUT_MS = 10_000
REQUEST_TIMEOUT_MS = 10_000


class Reach(TypedDict):
    """The arguments that every client takes.

    Attributes:
        bootstrap_servers: "host:port", several separated by commas.
        client_id: the name under which the client appears at the broker.
        security: kafka-python's arguments for TLS and SASL.
    """

    bootstrap_servers: str
    client_id: str
    security: Mapping[str, object]


TOO_LARGE = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError)
EMBEDDED = "tansu_cluster"
"""The cluster id that the embedded broker reports."""
EMBEDDED_SESSION_MS = 6_000
"""The longest session timeout used with the embedded broker, in ms.

That broker answers a JoinGroup after half of the session timeout, whatever other members there are (measured).
"""

OPENED: ContextVar[list[Any] | None] = ContextVar("opened", default=None)
"""The list in which `open_client` notes the network half of each client that is opened in this context.

Closing that half from another thread ends a request that gets no answer, and also the opening itself.
"""

_RIGHTS = {
    "create": "CREATE on the topic, and WRITE, which is enough where it exists",
    "write": "WRITE on the topic",
    "send": "WRITE on the topic",
}
"""The ACL that was missing, by the first word of what was attempted."""

_ENDED = re.compile("disconnected|Handshake failed|RESET|reset|EPIPE|Broken pipe")
_ATTEMPT = re.compile(r"Bootstrap (?:connection|attempt) to (\S+) failed")
_LOGIN = errors.IllegalSaslStateError | errors.UnsupportedSaslMechanismError
_REFUSED: tuple[tuple[type[Exception], type[FatalError], str], ...] = (
    (errors.TopicAuthorizationFailedError, FatalError, "Give the user the ACL {right}."),
    (errors.GroupAuthorizationFailedError, FatalError, "Give the user the ACL READ on the consumer group."),
    (
        errors.TransactionalIdAuthorizationFailedError,
        FatalError,
        "Give the user the ACLs WRITE and DESCRIBE on the transactional id.",
    ),
    (
        errors.ClusterAuthorizationFailedError,
        FatalError,
        "Give the user the ACL IDEMPOTENT_WRITE on the cluster (from Kafka 2.8 on, WRITE on the topic is enough).",
    ),
    (errors.AuthorizationError, FatalError, "Give the user the right to do so."),
    (
        errors.SaslAuthenticationFailedError,
        SettingsError,
        "Check the user (kafka.security.sasl_username and sasl_password, or for OAUTHBEARER oauth_client_id and "
        "the claims that the broker expects of a token), and that the broker knows it for this mechanism.",
    ),
    (
        errors.UnsupportedSaslMechanismError,
        SettingsError,
        "Set kafka.security.sasl_mechanism to one the broker offers.",
    ),
    (errors.IllegalSaslStateError, SettingsError, "Set kafka.security.protocol to that of this listener."),
    (errors.InvalidSessionTimeoutError, SettingsError, "Set kafka.session_timeout_ms within the broker's limits."),
    (errors.InvalidGroupIdError, SettingsError, "Set kafka.group to a name that is not empty."),
    (errors.InvalidTopicError, SettingsError, "Set kafka.topic to a name of the characters a-z A-Z 0-9 . _ -."),
    (errors.KafkaConfigurationError, SettingsError, "Correct the setting that the message names."),
    (
        errors.InconsistentGroupProtocolError,
        SettingsError,
        "Other members of this group use another assignor: stop them, or set kafka.group to another group.",
    ),
    (
        errors.FencedInstanceIdError,
        FatalError,
        "Another running worker has this static_member: give each a different one.",
    ),
    (errors.GroupMaxSizeReachedError, FatalError, "Stop some members, or raise group.max.size on the broker."),
    (
        errors.UnsupportedCodecError,
        FatalError,
        "Install the codec of this producer: pip install 'kafka-python[lz4,snappy,zstd]'.",
    ),
    (errors.UnsupportedVersionError, FatalError, "Use a broker of Apache Kafka 2.1 or newer."),
    (errors.UnrecognizedBrokerVersion, FatalError, "Use a broker of Apache Kafka 2.1 or newer."),
    (
        errors.CorruptRecordError,
        SourceError,
        "Start again to read it again. If it fails at the same offset, the broker's copy is damaged.",
    ),
    (
        errors.LogTruncationError,
        SourceError,
        "The broker lost messages that were already read (unclean leader election): compare the topic with the chain.",
    ),
    (
        errors.UnknownTopicOrPartitionError,
        SourceError,
        "Create the topic, or set kafka.topic to one that exists: reading never creates it.",
    ),
)


def open_client(
    kind: Callable[..., Client], bootstrap_servers: str, security: Mapping[str, object], **config: Any
) -> Client:
    """Return a connected kafka-python client; leave no thread or socket behind if the broker cannot be reached.

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
    config |= _with_tls(security)
    attempts = _Attempts(opened, security)
    try:
        with kafka_errors(bootstrap_servers, "connect to Kafka", security), attempts:
            return kind(bootstrap_servers=servers, kafka_client=net_client, **config)
    except BaseException as error:
        for client in opened:  # kafka-python leaves its thread and its sockets behind when it cannot bootstrap
            client.close()
        if isinstance(error, AdawiseError) and (attempts.mismatch or attempts.are_unexplained):
            why = attempts.mismatch or mismatch(bootstrap_servers, security)
            if why is not None:
                raise SettingsError(f"could not connect to Kafka at {bootstrap_servers}: {why}.") from error
        if isinstance(error, (OSError, ValueError, TypeError, AssertionError)):
            raise SettingsError(
                f"could not connect to Kafka at {bootstrap_servers}: {type(error).__name__}: {error}. "
                "Check kafka.bootstrap_servers (host:port) and the names in kafka.security."
            ) from error
        raise


class _Attempts(logging.Handler):
    """A log handler that collects why attempts to connect fail: kafka-python logs the cause, and raises a bare timeout.

    While the client is opened, kafka-python's lines (four for each attempt) are not logged elsewhere, as the error
    repeats them. Once every server has refused for a reason that another attempt cannot change, no more attempts are
    made. A server that ends connections without an answer is probed for its protocol, once.

    Args:
        opened: the network halves of the client, as they are opened.
        security: kafka-python's arguments for TLS and SASL.
    """

    _logger = logging.getLogger("kafka.net")

    def __init__(self, opened: Sequence[Any], security: Mapping[str, object]) -> None:
        super().__init__()
        self._opened, self._security = opened, security
        self._opener = threading.current_thread()
        self._error: Exception | None = None
        self._refused: set[str] = set()
        self._tried: set[str] = set()
        self.mismatch: str | None = None

    @property
    def are_unexplained(self) -> bool:
        """True if a server hung up or wants another login, which TLS does not explain: its port must be probed."""
        ended = isinstance(self._error, errors.KafkaConnectionError) and _ENDED.search(str(self._error))
        return not _explained(self._error, self._security) and (
            bool(ended) or isinstance(self._error, errors.KafkaProtocolError | errors.InvalidReceiveError | _LOGIN)
        )

    @override
    def emit(self, record: logging.LogRecord) -> None:
        """Keep the exception that a log record of this client names; other clients may connect at the same time."""
        if threading.current_thread() not in {self._opener, *(client.thread for client in self._opened)}:
            return
        arguments = record.args if isinstance(record.args, tuple) else ()
        named = [a for a in arguments if isinstance(a, Exception) and not isinstance(a, errors.KafkaTimeoutError)]
        self._error = named[-1] if named else self._error
        attempt = _ATTEMPT.match(record.getMessage())
        if attempt is None:
            return
        node, servers = attempt[1], {each.node_id: f"{each.host}:{each.port}" for each in self._bootstrap_servers}
        if self._is_final or self._speaks_otherwise(node, servers.get(node)):
            self._refused.add(node)
            if len(self._refused) >= len(servers):
                for client in self._opened:
                    client.give_up()

    @property
    def _bootstrap_servers(self) -> list[Any]:
        return [each for client in self._opened for each in client.cluster.bootstrap_brokers()]

    def _speaks_otherwise(self, node: str, server: str | None) -> bool:
        """Return True if the server answers with another protocol than the client used. Each server is probed once."""
        if server is None or node in self._tried or not self.are_unexplained:
            return False
        self._tried.add(node)
        found = mismatch(server, self._security)
        self.mismatch = found or self.mismatch
        return found is not None

    @property
    def _is_final(self) -> bool:
        """True if another attempt cannot succeed."""
        final = tuple(refused for refused, _, _ in _REFUSED)
        return isinstance(self._error, final) or _explained(self._error, self._security)

    def __enter__(self) -> None:
        self._logger.addHandler(self)
        self._logger.propagate = False

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._logger.removeHandler(self)
        self._logger.propagate = True
        if isinstance(error, errors.KafkaTimeoutError) and self._error is not None:
            # A final refusal explains more than the timeout and replaces it; any other error is appended to the
            # timeout's message.
            if self._is_final:
                raise self._error from self._error.__context__  # `from` keeps its own context
            if isinstance(self._error, TokenUnavailable):
                raise self._error
            raise errors.KafkaTimeoutError(f"{error.args[0]}; the last attempt: {self._error}")


def _explained(error: Exception | None, security: Mapping[str, object]) -> bool:
    return error is not None and refusal(error, security) is not None


def _with_tls(security: Mapping[str, object]) -> dict[str, Any]:
    """Load the certificates once, up front: kafka-python would do so at every attempt, and leak a socket each time."""
    if security.get("security_protocol") not in ("SSL", "SASL_SSL") or security.get("ssl_context") is not None:
        return dict(security)
    arguments = {name: value for name, value in security.items() if not name.startswith("ssl_")}
    return {**arguments, "ssl_context": tls_context(security)}


@contextmanager
def kafka_errors(bootstrap_servers: str, doing: str, security: Mapping[str, object] | None = None) -> Iterator[None]:
    """Raise kafka-python's errors inside the block as ours; `doing` completes "could not ..."."""
    try:
        yield
    except errors.KafkaError as error:
        raise translated(error, bootstrap_servers, doing, security) from error


def translated(
    error: Exception, bootstrap_servers: str, doing: str, security: Mapping[str, object] | None = None
) -> AdawiseError:
    """Return our error for one of kafka-python's: a fatal one if asking again cannot help, else BrokerUnavailable."""
    begun = f"could not {doing} at {bootstrap_servers}"
    if isinstance(error, TokenRefused):
        return SettingsError(f"{begun}: {error.args[0]}.")
    if isinstance(error, TokenUnavailable):
        return BrokerUnavailable(f"{begun}: {error.args[0]}.")
    if (why := refusal(error, security)) is not None:
        return SettingsError(f"{begun}: {why}.")
    for refused, ours, remedy in _REFUSED:
        if isinstance(error, refused):
            return ours(
                f"{begun}: {_refusal(error)}. {remedy.format(right=_RIGHTS.get(doing.split()[0], 'READ on the topic'))}"
            )
    return BrokerUnavailable(
        f"{begun}: {_refusal(error)}. Check that the broker is running and can be reached from here. Start one with "
        f"`deploy/kafka/kafka start` or `adawise broker --port {_port(bootstrap_servers)}`, or name "
        "another with --kafka.bootstrap-servers (kafka.bootstrap_servers)."
    )


def _refusal(error: Exception) -> str:
    """Return the broker's own words without class names and whole requests; for any other error, its text as it is."""
    if isinstance(error, errors.AuthorizationError):
        return "the broker does not allow it"
    if isinstance(error, errors.SaslAuthenticationFailedError):
        reason = str(error.args[0]) if error.args else ""
        return (
            reason.rpartition("SaslAuthenticationFailedError: ")[2].strip().rstrip(".")
            or "the broker refuses the login"
        )
    return str(error)


def _port(bootstrap_servers: str) -> str:
    port = bootstrap_servers.partition(",")[0].rpartition(":")[2]
    return port if port.isdecimal() else "9092"


def message_of(record: Any, missing: Missing | None = None) -> Message:
    """Return our message for a ConsumerRecord; `missing` says which offsets it represents if it is a placeholder."""
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
