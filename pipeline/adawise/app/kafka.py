"""Settings -> the clients of Kafka: the source, the dead letters, the login. Loads no model and no torch."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Literal, cast

import structlog

from adawise.errors import SettingsError
from adawise.kafka.batches import BatchLimits
from adawise.kafka.client import EMBEDDED_SESSION_MS, Reach
from adawise.kafka.group import check_group
from adawise.kafka.log import PATIENCE_S, KafkaLog
from adawise.kafka.oauth import CalledTokens, ClientCredentials, TokenProvider
from adawise.kafka.own_topic import OwnTopics
from adawise.kafka.source import KafkaSource
from adawise.kafka.tls import CertificateFile, read_certificates
from adawise.kafka.topic import KafkaTopics
from adawise.ports import DeadLetters
from adawise.publish.dead_letters.sink import NoDeadLetters, dead_letter_topics, open_dead_letters
from adawise.publish.results.sink import KafkaResults, open_results, result_topics
from adawise.settings import KafkaSettings, SecuritySettings, Settings
from adawise.text import as_duration

_TIMEOUT_S = 10.0  # for a message that is sent
_DAY_S = 86_400

_log = structlog.get_logger("kafka")


def kafka_source(
    settings: KafkaSettings,
    *,
    group: bool = True,
    origin: Literal["earliest", "latest"] | int | None = None,
    on_compacted: Literal["fail", "skip"] = "skip",
) -> KafkaSource:
    """Return the source of the settings' topic; without `group`, of all its partitions and without commits."""
    return KafkaSource(
        **reach(settings),
        topic=settings.topic,
        group=settings.group if group else None,
        origin=_origin(settings) if origin is None else origin,
        static_member=settings.static_member if group else None,
        session_timeout_ms=settings.session_timeout_ms,
        max_poll_interval_ms=settings.max_poll_interval_ms,
        max_poll_records=settings.max_poll_records,
        max_partition_fetch_bytes=settings.max_partition_fetch_bytes,
        batch_limits=batch_limits(settings),
        on_compacted=on_compacted,
        on_unreadable=settings.on_unreadable,
    )


def kafka_topics(settings: KafkaSettings, *, connect_ms: int | None = None) -> KafkaTopics:
    """Return the client that queries the brokers about topics and groups."""
    return KafkaTopics(**reach(settings), connect_ms=connect_ms)


def kafka_log(settings: KafkaSettings, *, max_partition_fetch_bytes: int, patience_s: float = PATIENCE_S) -> KafkaLog:
    """Return the client that reads any topic of the brokers offset by offset, without a group."""
    return KafkaLog(
        **reach(settings),
        max_partition_fetch_bytes=max_partition_fetch_bytes,
        batch_limits=batch_limits(settings),
        patience_s=patience_s,
    )


def batch_limits(settings: KafkaSettings) -> BatchLimits:
    """Return the limits beyond which a batch is not read."""
    return BatchLimits(settings.max_batch_bytes, settings.max_batch_records)


def _origin(settings: KafkaSettings) -> Literal["earliest", "latest"] | int:
    if settings.origin_ms is not None:
        return settings.origin_ms
    return "latest" if settings.origin == "latest" else "earliest"


def dead_letters(settings: KafkaSettings, max_message_bytes: int) -> DeadLetters:
    """Return the dead-letter topic of the settings, or none."""
    if not settings.dead_letters:
        return NoDeadLetters()
    return open_dead_letters(
        own_dead_letter_topics(settings, max_message_bytes),
        topic=settings.dead_letters_to,
        worker=f"{socket.gethostname()}:{os.getpid()}",
        max_message_bytes=max_message_bytes,
        max_inflight_bytes=4 * max_message_bytes,
        timeout_s=_TIMEOUT_S,
    )


def own_dead_letter_topics(settings: KafkaSettings, max_message_bytes: int) -> OwnTopics:
    """Return how the dead-letter topic is created and checked."""
    return dead_letter_topics(
        reach(settings),
        retention_s=settings.dead_letter_days * _DAY_S,
        retention_bytes=settings.dead_letter_bytes,
        max_message_bytes=max_message_bytes,
    )


def results(
    settings: Settings,
    topic: str,
    *,
    partitions: int,
    source: Callable[[], str],
    classes: Sequence[str],
    model_fingerprint: str,
) -> KafkaResults:
    """Return the publisher of results to a topic, which is created with `partitions` if it is absent.

    `source` returns the root that the results are from.
    """
    wanted = settings.results
    return open_results(
        result_topic(settings, partitions),
        topic=topic,
        source=source,
        classes=classes,
        model_fingerprint=model_fingerprint,
        column="scene_label" if settings.scene.is_served else "label",
        when=wanted.when,
        per=wanted.per,
        form=wanted.form,
        timeout_s=_TIMEOUT_S,
    )


def result_topic(settings: Settings, partitions: int = 1) -> OwnTopics:
    """Return how the topic of results is created and checked."""
    return result_topics(reach(settings.kafka), partitions=partitions, retention_s=settings.results.days * _DAY_S)


def check_joining(settings: KafkaSettings, *, is_embedded: bool) -> None:
    """Check the group as `check_group` does, with the session timeout that a worker has."""
    timeout_ms = settings.session_timeout_ms
    check_group(
        **reach(settings),
        topic=settings.topic,
        group=settings.group,
        session_timeout_ms=min(timeout_ms, EMBEDDED_SESSION_MS) if is_embedded else timeout_ms,
    )


def reach(settings: KafkaSettings) -> Reach:
    """Return the arguments that every client begins with."""
    return {
        "bootstrap_servers": settings.bootstrap_servers,
        "client_id": settings.client_id,
        "security": security(settings),
    }


def security(settings: KafkaSettings) -> dict[str, object]:
    """Return kafka-python's arguments for TLS and SASL."""
    chosen = settings.security
    arguments = {
        "security_protocol": chosen.protocol,
        "ssl_cafile": chosen.ssl_ca and str(chosen.ssl_ca),
        "ssl_certfile": chosen.ssl_certificate and str(chosen.ssl_certificate),
        "ssl_keyfile": chosen.ssl_key and str(chosen.ssl_key),
        "ssl_password": chosen.ssl_key_password and chosen.ssl_key_password.get_secret_value(),
        "sasl_mechanism": chosen.sasl_mechanism,
        "sasl_plain_username": chosen.sasl_username and _user_name(chosen),
        "sasl_plain_password": chosen.sasl_password and chosen.sasl_password.get_secret_value(),
        "sasl_oauth_token_provider": _tokens(chosen) if chosen.sasl_mechanism == "OAUTHBEARER" else None,
    }
    return {name: value for name, value in arguments.items() if value is not None}


def certificates(settings: KafkaSettings) -> list[CertificateFile]:
    """Return the files of certificates that the settings name and that can be read."""
    chosen = settings.security
    named = (("ssl_ca", chosen.ssl_ca), ("ssl_certificate", chosen.ssl_certificate), ("oauth_ca", chosen.oauth_ca))
    found = [
        read_certificates(f"kafka.security.{name}", Path(file), are_authorities=name != "ssl_certificate")
        for name, file in named
        if file is not None
    ]
    return [each for each in found if each is not None]


def renewal(found: CertificateFile, now: datetime) -> str:
    """Return what to do about a certificate that ends soon."""
    left = as_duration((found.ends - now).total_seconds())
    return (
        f"{found.setting}: {found.file} expires at {found.until}, in {left}; then no new connection is accepted. "
        "Replace it, and restart the processes that use it"
    )


def log_certificates(settings: KafkaSettings) -> None:
    """Log a warning for each certificate that ends soon; one that has ended fails the connection, which reports it."""
    now = datetime.now(UTC)
    for found in certificates(settings):
        if found.ends_soon(now):
            _log.warning(
                "certificate_aged",
                setting=found.setting,
                file=str(found.file),
                ends=found.until,
                note=renewal(found, now),
            )


def _user_name(chosen: SecuritySettings) -> str:
    """Return the user name as it is sent.

    SCRAM reserves two characters (RFC 5802, 5.1), which kafka-python does not escape.
    """
    name = chosen.sasl_username or ""
    is_scram = (chosen.sasl_mechanism or "").startswith("SCRAM")
    return name.replace("=", "=3D").replace(",", "=2C") if is_scram else name


@lru_cache(maxsize=8)
def _tokens(chosen: SecuritySettings) -> TokenProvider:
    """Return the token provider of all clients of the process, so that they share tokens."""
    if chosen.oauth_function is not None:
        return CalledTokens(_function(chosen.oauth_function))
    assert chosen.oauth_token_endpoint is not None
    assert chosen.oauth_client_id is not None
    assert chosen.oauth_client_secret is not None
    return ClientCredentials(
        endpoint=chosen.oauth_token_endpoint,
        client_id=chosen.oauth_client_id,
        client_secret=chosen.oauth_client_secret.get_secret_value(),
        scope=chosen.oauth_scope,
        ca=chosen.oauth_ca,
    )


def _function(named: str) -> Callable[[], str]:
    module, _, name = named.partition(":")
    setting = f"kafka.security.oauth_function: {named}"
    try:
        found = getattr(import_module(module), name)
    except ImportError as error:
        raise SettingsError(f"{setting}: {error}; install the package, or correct the name") from error
    except AttributeError:
        raise SettingsError(f"{setting}: {module} has no {name}; correct the name") from None
    if not callable(found):
        raise SettingsError(f"{setting}: expected a function, got a {type(found).__name__}; correct the name")
    return cast("Callable[[], str]", found)
