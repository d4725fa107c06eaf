"""The settings of the broker: its address, the topic that is read, and encryption and login."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from datetime import date
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field
from typing_extensions import override

from adawise.settings.group import KAFKA_NAME_EXPECTED, FilePath, Group, KafkaName, Password, Text
from adawise.settings.moments import TIMESTAMP_EXPECTED, NoMoment, milliseconds, parse_timestamp

DEAD_LETTER_SUFFIX = ".dlq"


def _is_port(text: str) -> bool:
    return text.isdecimal() and 0 < int(text[:6]) < 65536


def _servers(value: str) -> str:
    for server in value.split(","):
        host, _, port = server.strip().rpartition(":")
        if not host or not _is_port(port) or re.search(r"\s|/", host):
            raise ValueError(f"{server.strip()!r} is not HOST:PORT")
    return value


def _origin_as_text(value: object) -> object:
    return value.isoformat() if isinstance(value, date) else value  # TOML parses timestamps into `datetime` objects


def _origin(value: str) -> str:
    if value not in {"earliest", "latest"}:
        try:
            parse_timestamp(value)
        except NoMoment as error:
            raise ValueError(error.reason) from error
    return value


_LOGIN_NEEDED = ("sasl_username", "sasl_password")
_OAUTH_NEEDED = ("oauth_token_endpoint", "oauth_client_id", "oauth_client_secret")
_ENDPOINT_ALONE = (*_OAUTH_NEEDED, "oauth_scope", "oauth_ca")


def _endpoint(value: str) -> str:
    try:
        url = urlsplit(value)
        host, _ = url.hostname, url.port
    except ValueError as error:
        raise ValueError("it is not a URL") from error
    if url.scheme not in ("http", "https") or not host or url.username or url.fragment:
        raise ValueError("it is not such a URL, without user and #")
    if url.scheme == "http" and not _is_loopback(host):
        raise ValueError("the client's secret would be sent in clear text; use https")
    return value


def _function(value: str) -> str:
    module, separator, name = value.partition(":")
    if not separator or not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise ValueError("it is not the name of a function in a module")
    return value


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class SecuritySettings(Group):
    """The settings `[kafka.security]`: encryption and login."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="protocol of the broker: encrypted (SSL) or not, with login (SASL) or not"
    )
    ssl_ca: FilePath | None = Field(
        default=None, description="certificates that verify the broker's (PEM); none: the system's"
    )
    ssl_certificate: FilePath | None = Field(default=None, description="client certificate (PEM)")
    ssl_key: FilePath | None = Field(default=None, description="private key of the client certificate (PEM)")
    ssl_key_password: Password | None = Field(default=None, description="password of the private key")
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = Field(
        default=None, description="login mechanism"
    )
    sasl_username: Text | None = Field(default=None, description="user name; not for OAUTHBEARER")
    sasl_password: Password | None = Field(default=None, description="password; not for OAUTHBEARER")
    oauth_token_endpoint: Annotated[str, AfterValidator(_endpoint)] | None = Field(
        default=None,
        description="OAUTHBEARER: URL of the token endpoint (grant client_credentials)",
        json_schema_extra={
            "expected": "a URL such as https://HOST/PATH; http:// only for this machine",
            "metavar": "URL",
        },
    )
    oauth_client_id: Text | None = Field(default=None, description="OAUTHBEARER: client id")
    oauth_client_secret: Password | None = Field(default=None, description="OAUTHBEARER: client secret")
    oauth_scope: Text | None = Field(
        default=None, description="OAUTHBEARER: scope to request; none: the endpoint's default"
    )
    oauth_ca: FilePath | None = Field(
        default=None, description="OAUTHBEARER: certificates that verify the token endpoint's (PEM); none: the system's"
    )

    oauth_function: Annotated[Text, AfterValidator(_function)] | None = Field(
        default=None,
        description="OAUTHBEARER: a function of an installed package, in place of the endpoint: called without "
        "arguments at each login, it returns a valid token, and caches and renews it",
        json_schema_extra={"expected": "MODULE:FUNCTION", "metavar": "MODULE:FUNCTION"},
    )

    @property
    def uses_sasl(self) -> bool:
        """True if the client logs in."""
        return self.protocol.startswith("SASL")

    @property
    def uses_tls(self) -> bool:
        """True if the connection is encrypted."""
        return self.protocol.endswith("SSL")

    @override
    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield mistakes for incomplete logins, and for credentials that would be ignored silently. See `Group`."""
        tokens = self.sasl_mechanism == "OAUTHBEARER"
        by_function = self.oauth_function is not None
        needed = ("sasl_mechanism", *(() if by_function else _OAUTH_NEEDED if tokens else _LOGIN_NEEDED))
        for name in ("sasl_mechanism", *_LOGIN_NEEDED, *_ENDPOINT_ALONE, "oauth_function"):
            value = getattr(self, name)
            if self.uses_sasl and value is None and name in needed:
                needs_it = "sasl_mechanism OAUTHBEARER" if tokens else f"protocol {self.protocol}"
                yield name, f"{needs_it} needs it" + ("" if tokens else " (PLAINTEXT and SSL do not)")
            if self.uses_sasl and value is not None and name != "sasl_mechanism" and name.startswith("oauth") != tokens:
                yield name, f"sasl_mechanism {self.sasl_mechanism} does not use it; leave it out"
            if tokens and by_function and value is not None and name in _ENDPOINT_ALONE:
                yield name, "oauth_function returns the tokens instead of an endpoint; leave one of them out"
            if not self.uses_sasl and value is not None:
                yield name, f"protocol {self.protocol} does not use it; set protocol to SASL_SSL, or leave it out"
        for name in ("ssl_ca", "ssl_certificate", "ssl_key", "ssl_key_password"):
            if not self.uses_tls and getattr(self, name) is not None:
                yield name, f"protocol {self.protocol} does not encrypt; set it to SSL or SASL_SSL, or leave this out"
        if self.ssl_key is not None and self.ssl_certificate is None:
            yield "ssl_certificate", "ssl_key is set without it; set both, or neither"
        if self.ssl_key_password is not None and self.ssl_key is None:
            yield "ssl_key", "ssl_key_password is set without it; set both, or neither"


class KafkaSettings(Group):
    """The settings `[kafka]`: the broker and the topic that images are read from."""

    bootstrap_servers: Annotated[str, AfterValidator(_servers)] = Field(
        default="127.0.0.1:9092",
        description="brokers to connect to first",
        json_schema_extra={"expected": "HOST:PORT, or several separated by commas", "metavar": "HOST:PORT"},
    )
    topic: KafkaName = Field(
        default="frames",
        description="topic with the images, keyed by stream id",
        json_schema_extra={"expected": KAFKA_NAME_EXPECTED},
    )
    group: Text = Field(default="adawise", description="consumer group; workers of one group share the partitions")
    origin: Annotated[str, BeforeValidator(_origin_as_text), AfterValidator(_origin)] = Field(
        default="earliest",
        description="where to begin in a partition without output; one added to the topic later is read from its start",
        json_schema_extra={"expected": f"earliest, latest, or {TIMESTAMP_EXPECTED}"},
    )
    client_id: Text = Field(default="adawise", description="name of this program in the broker's logs")
    static_member: KafkaName | None = Field(
        default=None,
        description="static member name: a restart within the session timeout moves no partitions",
        json_schema_extra={"expected": KAFKA_NAME_EXPECTED},
    )
    session_timeout_ms: int = Field(
        default=45_000, ge=1_000, le=1_800_000, description="milliseconds without a heartbeat until partitions move"
    )
    max_poll_interval_ms: int = Field(
        default=300_000, ge=1_000, le=86_400_000, description="milliseconds between polls until partitions move"
    )
    max_poll_records: int = Field(default=512, ge=1, le=100_000, description="messages taken from the client at once")
    max_partition_fetch_bytes: ByteSize = Field(
        default=ByteSize(8 * 2**20), ge=1024, le=2**31 - 1, description="bytes fetched at once from a partition"
    )
    max_batch_bytes: ByteSize = Field(
        default=ByteSize(64 * 2**20),
        ge=1024,
        le=2**31 - 1,
        description="most bytes of a compressed batch once unpacked; a larger one is skipped",
    )
    max_batch_records: int = Field(
        default=100_000, ge=1, le=10_000_000, description="most messages of a batch; a larger one is skipped"
    )
    on_unreadable: Literal["stop", "skip"] = Field(
        default="stop",
        description="when a batch cannot be unpacked (damaged, unknown codec): block its partition, or record the "
        "gap and go on",
    )
    dead_letters: bool = Field(default=True, description="send messages that cannot be read to a dead-letter topic")
    dead_letter_topic: KafkaName | None = Field(
        default=None,
        description=f"dead-letter topic; none: the topic's name with {DEAD_LETTER_SUFFIX}",
        json_schema_extra={"expected": KAFKA_NAME_EXPECTED},
    )
    dead_letter_days: int = Field(
        default=30,
        ge=1,
        le=36_500,
        description="days for which the dead-letter topic keeps messages, if it is created here",
    )
    dead_letter_bytes: ByteSize = Field(
        default=ByteSize(10 * 2**30),
        ge=2**20,
        le=2**60,
        description="most bytes that the dead-letter topic keeps, if it is created here",
    )
    on_gap: Literal["fail", "skip"] = Field(
        default="fail",
        description="when the broker deleted messages before they were read: stop, or record the gap and go on",
    )
    on_compacted: Literal["fail", "skip"] = Field(
        default="fail",
        description="when the topic has cleanup.policy=compact, with which the broker may remove frames before "
        "they are read: refuse to start, or read the rest and record the gaps",
    )
    security: SecuritySettings = Field(default=SecuritySettings(), description="encryption and login")

    @property
    def origin_ms(self) -> int | None:
        """The `origin` in milliseconds since the epoch; None for earliest and latest."""
        if self.origin in {"earliest", "latest"}:
            return None
        return milliseconds(parse_timestamp(self.origin))

    @property
    def dead_letters_to(self) -> str:
        """The topic of dead letters, whether or not `dead_letters` is on."""
        return self.dead_letter_topic or f"{self.topic}{DEAD_LETTER_SUFFIX}"

    @override
    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield mistakes in the topic of dead letters and in the poll interval. See `Group`.

        Dead letters must not go to the topic that is read, or to one with an illegal name. The poll interval must not
        be shorter than the session timeout.
        """
        if self.dead_letters and self.dead_letter_topic == self.topic:
            yield "dead_letter_topic", "it is the topic that is read, so dead letters would be read again; name another"
        if self.dead_letters and len(self.dead_letters_to) > 249:
            yield "dead_letter_topic", "the topic's name with its suffix has more than 249 characters; set it yourself"
        if self.max_poll_interval_ms < self.session_timeout_ms:
            yield "max_poll_interval_ms", f"it must be at least session_timeout_ms ({self.session_timeout_ms})"
