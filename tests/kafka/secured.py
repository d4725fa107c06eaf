"""An Apache Kafka that lets nobody in without a password, a certificate or a token, and nobody do what no rule allows.

One broker with a listener for each way of talking; the plain one is for administration, by ANONYMOUS, who may all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
    UserScramCredentialUpsertion,
)

from tests.kafka.certificates import Authority, Pair
from tests.kafka.cluster import ApacheKafka, free_ports
from tests.kafka.identity import AUDIENCE, ISSUER, Identity, identity

SCRAM = ("SCRAM-SHA-256", "SCRAM-SHA-512")
PASSWORD = "pa55-of-%s"

_LISTENERS = {  # name: (protocol, which broker certificate, whether the client needs one)
    "PLAINTEXT": ("PLAINTEXT", "", False),
    "CONTROLLER": ("PLAINTEXT", "", False),
    "TLS": ("SSL", "broker", False),
    "MUTUAL": ("SSL", "broker", True),
    "LOGIN": ("SASL_SSL", "broker", False),
    "CLEAR": ("SASL_PLAINTEXT", "", False),
    "SCRAMONLY": ("SASL_SSL", "broker", False),
    "EXPIRED": ("SSL", "expired", False),
    "STRANGE": ("SSL", "strange", False),
}
_JAAS = "org.apache.kafka.common.security"


@dataclass
class Secured:
    """What a test needs of it."""

    kafka: ApacheKafka
    ports: dict[str, int]
    ours: Authority
    theirs: Authority
    client: Pair
    identity: Identity
    folder: Path

    @contextmanager
    def admin(self) -> Iterator[KafkaAdminClient]:
        """One who may do everything. A new one each time: the broker hangs up on clients that are idle."""
        with KafkaAdminClient(bootstrap_servers=self.kafka.bootstrap_servers) as admin:
            yield admin

    def at(self, listener: str) -> str:
        """HOST:PORT of a listener."""
        return f"127.0.0.1:{self.ports[listener]}"

    def login(self, user: str, mechanism: str = "SCRAM-SHA-512") -> dict[str, Any]:
        """The settings `kafka.security` of a user with a password."""
        return {
            "protocol": "SASL_SSL",
            "ssl_ca": str(self.ours.certificate),
            "sasl_mechanism": mechanism,
            "sasl_username": user,
            "sasl_password": PASSWORD % user,
        }

    def add_user(self, user: str, password: str | None = None) -> None:
        """One who logs in by SCRAM; PLAIN knows `plain` alone."""
        with self.admin() as admin:
            for mechanism in SCRAM:  # of one user, the broker changes one in a request
                wanted = UserScramCredentialUpsertion(user, mechanism, password or PASSWORD % user)
                assert admin.alter_user_scram_credentials([wanted]) == {user: None}

    def allow(self, user: str, *lines: str) -> None:
        """Rules as `kafka-acls --add` takes them: `--operation Read --topic frames`."""
        with self.admin() as admin:
            admin.create_acls([rule for line in lines for rule in rules(user, line)])

    def forbid(self, user: str, *lines: str) -> None:
        """Take rules back."""
        with self.admin() as admin:
            admin.delete_acls([each for line in lines for each in rules(user, line, as_filter=True)])


def rules(user: str, line: str, *, as_filter: bool = False) -> list[Any]:
    """The rules of a line of options of `kafka-acls`."""
    options = re.findall(r"--([a-z-]+)(?: ([^-\s]\S*))?", line)
    operations = [value for name, value in options if name == "operation"]
    prefixed = ("resource-pattern-type", "prefixed") in options
    kind = ACLResourcePatternType.PREFIXED if prefixed else ACLResourcePatternType.LITERAL
    places = [
        (ResourceType[{"transactional-id": "TRANSACTIONAL_ID"}.get(name, name.upper())], value or "kafka-cluster")
        for name, value in options
        if name in ("topic", "group", "cluster", "transactional-id")
    ]
    pattern: Any = ResourcePatternFilter if as_filter else ResourcePattern
    rule: Any = ACLFilter if as_filter else ACL
    return [
        rule(f"User:{user}", "*", ACLOperation[_upper(op)], ACLPermissionType.ALLOW, pattern(*place, kind))
        for place in places
        for op in operations
    ]


def _upper(operation: str) -> str:
    """DescribeConfigs -> DESCRIBE_CONFIGS."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", operation).upper()


@contextmanager
def secured(folder: Path) -> Iterator[Secured]:
    """The broker, its certificates in `folder`. Raises Unavailable where Apache Kafka cannot be had."""
    ours, theirs = Authority(folder, "ours"), Authority(folder, "theirs")
    certificates = {
        "broker": ours.pair("broker", hosts=("127.0.0.1", "localhost")),
        "expired": ours.pair("expired", hosts=("127.0.0.1",), days=-1),
        "strange": ours.pair("strange", hosts=("localhost",)),
    }
    first = free_ports(len(_LISTENERS))
    ports = {name: first + number for number, name in enumerate(_LISTENERS)}
    with identity() as provider:
        settings = _settings(ports, certificates, ours, provider)
        java = f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={provider.url('/jwks')}"
        with ApacheKafka(settings=settings, port=first, java=java) as kafka:
            yield Secured(kafka, ports, ours, theirs, ours.pair("worker"), provider, folder)


def _settings(
    ports: dict[str, int], certificates: dict[str, Pair], ours: Authority, provider: Identity
) -> dict[str, str]:
    addresses = [f"{name}://127.0.0.1:{port}" for name, port in ports.items()]
    found = {
        "listeners": ",".join(addresses),
        "advertised.listeners": ",".join(each for each in addresses if not each.startswith("CONTROLLER")),
        "listener.security.protocol.map": ",".join(f"{name}:{what[0]}" for name, what in _LISTENERS.items()),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "connection.failed.authentication.delay.ms": "0",  # so that the answer and the end come together
        "sasl.oauthbearer.jwks.endpoint.url": provider.url("/jwks"),
        "sasl.oauthbearer.expected.audience": AUDIENCE,
        "sasl.oauthbearer.expected.issuer": ISSUER,
    }
    for name, (protocol, certificate, needs_one) in _LISTENERS.items():
        here = f"listener.name.{name.lower()}."
        if certificate:
            found |= {
                f"{here}ssl.keystore.type": "PEM",
                f"{here}ssl.keystore.location": str(certificates[certificate].both),
                f"{here}ssl.truststore.type": "PEM",
                f"{here}ssl.truststore.location": str(ours.certificate),
                f"{here}ssl.client.auth": "required" if needs_one else "none",
            }
        if protocol.startswith("SASL"):
            offered = SCRAM if name == "SCRAMONLY" else ("PLAIN", *SCRAM, "OAUTHBEARER")
            found[f"{here}sasl.enabled.mechanisms"] = ",".join(offered)
            for mechanism in offered:
                found[f"{here}{mechanism.lower()}.sasl.jaas.config"] = _login_module(mechanism)
            if "OAUTHBEARER" in offered:
                handler = f"{_JAAS}.oauthbearer.OAuthBearerValidatorCallbackHandler"
                found[f"{here}oauthbearer.sasl.server.callback.handler.class"] = handler
    return found


def _login_module(mechanism: str) -> str:
    if mechanism == "PLAIN":
        return f'{_JAAS}.plain.PlainLoginModule required user_plain="{PASSWORD % "plain"}";'
    if mechanism == "OAUTHBEARER":
        return f"{_JAAS}.oauthbearer.OAuthBearerLoginModule required;"
    return f"{_JAAS}.scram.ScramLoginModule required;"
