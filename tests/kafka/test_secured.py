"""Ways in to a real broker, and what is said where there is none: the true cause, and what to do."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer

from adawise.app.kafka import check_joining, kafka_source, own_dead_letter_topics, reach, security
from adawise.errors import BrokerUnavailable, FatalError, SettingsError
from adawise.kafka.client import kafka_errors, open_client
from adawise.produce.sender import ensure_topic
from adawise.settings import KafkaSettings
from tests.brokers import fresh_name
from tests.kafka.certificates import Authority
from tests.kafka.identity import Identity, identity
from tests.kafka.secured import PASSWORD, Secured

pytestmark = pytest.mark.check("secured")

Ways = dict[str, Any]
FUNCTION = "tests.kafka.test_secured:token"
_provider: list[Identity] = []


def token() -> str:
    """What `kafka.security.oauth_function` names."""
    return _provider[0].token("by-function")


@pytest.fixture(scope="module")
def kafka(secured_broker: Secured) -> Secured:
    secured_broker.add_user("alice")
    secured_broker.add_user("a,b=c")
    secured_broker.identity.clients["worker"] = "s3cret/of+it"
    _provider[:] = [secured_broker.identity]
    return secured_broker


def connect(servers: str, way: Ways, *, patience_ms: int = 10_000) -> set[str]:
    """The brokers that are there, or how it ends."""
    arguments = security(KafkaSettings.model_validate({"security": way}))
    with (
        closing(
            open_client(KafkaAdminClient, servers, arguments, client_id="test", bootstrap_timeout_ms=patience_ms)
        ) as admin,
        kafka_errors(servers, "ask for the brokers"),
    ):
        return {str(broker["port"]) for broker in admin.describe_cluster()["brokers"]}


def oauth(kafka: Secured, **changes: Any) -> Ways:
    """Tokens of the broker's own provider."""
    client = {"oauth_client_id": "worker", "oauth_client_secret": "s3cret/of+it"}
    endpoint = {"oauth_token_endpoint": kafka.identity.url("/token")}
    return tls(kafka, protocol="SASL_SSL", sasl_mechanism="OAUTHBEARER", **(client | endpoint | changes))


def tls(kafka: Secured, **more: Any) -> Ways:
    return {"protocol": "SSL", "ssl_ca": str(kafka.ours.certificate), **more}


def mutual(kafka: Secured, certificate: Path, key: Path | None, **more: Any) -> Ways:
    keys = {} if key is None else {"ssl_key": str(key)}
    return tls(kafka, ssl_certificate=str(certificate), **keys, **more)


def clients_of(kafka: Secured, name: str, **wrong: Any) -> Ways:
    pair = kafka.ours.pair(name, **wrong)
    return mutual(kafka, pair.certificate, pair.key)


def foreign(kafka: Secured) -> Ways:
    pair = kafka.theirs.pair("foreign")
    return mutual(kafka, pair.certificate, pair.key)


def hidden(kafka: Secured, **more: Any) -> Ways:
    pair = kafka.ours.pair("hidden", key_password="geheim")
    return mutual(kafka, pair.certificate, pair.key, **more)


WAYS: dict[str, tuple[str, Callable[[Secured], Ways]]] = {
    "tls": ("TLS", tls),
    "mutual": ("MUTUAL", lambda k: mutual(k, k.client.certificate, k.client.key)),
    "mutual, one file": ("MUTUAL", lambda k: mutual(k, k.client.both, None)),
    "mutual, hidden key": (
        "MUTUAL",
        lambda k: hidden(k, ssl_key_password="geheim"),
    ),
    "plain": ("LOGIN", lambda k: k.login("plain", "PLAIN")),
    "scram 256": ("LOGIN", lambda k: k.login("alice", "SCRAM-SHA-256")),
    "scram 512": ("LOGIN", lambda k: k.login("alice", "SCRAM-SHA-512")),
    "scram, a name with its own characters": ("LOGIN", lambda k: k.login("a,b=c")),
    "scram in clear text": ("CLEAR", lambda k: k.login("alice") | {"protocol": "SASL_PLAINTEXT", "ssl_ca": None}),
    "tokens of an endpoint": ("LOGIN", oauth),
    "tokens of a function": (
        "LOGIN",
        lambda k: tls(k, protocol="SASL_SSL", sasl_mechanism="OAUTHBEARER", oauth_function=FUNCTION),
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_in_is_open(way: str, kafka: Secured) -> None:
    listener, made = WAYS[way]
    assert connect(kafka.at(listener), made(kafka)) == {str(kafka.ports[listener])}


def unreadable(kafka: Secured) -> Ways:
    return tls(kafka, ssl_ca=str(kafka.folder))


def written(kafka: Secured, name: str, text: str) -> str:
    path = kafka.folder / name
    path.write_text(text)
    return str(path)


# what is wrong: the listener, the settings, and what is said of it
WRONG: dict[str, tuple[str, Callable[[Secured], Ways], tuple[str, ...]]] = {
    "password of SCRAM": (
        "LOGIN",
        lambda k: k.login("alice") | {"sasl_password": "wrong"},
        ("invalid credentials with SASL mechanism SCRAM-SHA-512", "Check the user (kafka.security.sasl_username"),
    ),
    "password of PLAIN": (
        "LOGIN",
        lambda k: k.login("plain", "PLAIN") | {"sasl_password": "wrong"},
        ("Invalid username or password", "Check the user (kafka.security.sasl_username and sasl_password"),
    ),
    "nobody of that name": ("LOGIN", lambda k: k.login("mallory"), ("invalid credentials", "Check the user")),
    "authority": (
        "TLS",
        lambda k: tls(k, ssl_ca=str(k.theirs.certificate)),
        ("signed by an untrusted authority", "set kafka.security.ssl_ca to the certificate of the authority"),
    ),
    "authority that expired": (
        "TLS",
        lambda k: tls(k, ssl_ca=str(Authority(k.folder, "gone", days=-1).certificate)),
        ("kafka.security.ssl_ca: ", "gone-ca.pem expired at 20", "name the authority's new certificate"),
    ),
    "no authority": ("TLS", lambda k: tls(k, ssl_ca=None), ("signed by an untrusted authority",)),
    "host name": ("STRANGE", tls, ("for another name", "'127.0.0.1'", "connect by a name in its certificate")),
    "expired": ("EXPIRED", tls, ("the broker's certificate has expired", "renew it, or correct the clock")),
    "no certificate of the client": (
        "MUTUAL",
        tls,
        ("requires a client certificate", "ssl_certificate and kafka."),
    ),
    "certificate of another authority": ("MUTUAL", foreign, ("rejects the certificate", "theirs-foreign.crt")),
    "certificate of the client that expired": (
        "MUTUAL",
        lambda k: clients_of(k, "old", days=-1),
        ("ours-old.crt expired at 20", "renew it, or correct the clock of this machine"),
    ),
    "key without its password": (
        "MUTUAL",
        hidden,
        ("kafka.security.ssl_key: ", "has a password, but kafka.security.ssl_key_password is not set: set it"),
    ),
    "key with another password": (
        "MUTUAL",
        lambda k: hidden(k, ssl_key_password="other"),
        ("ours-hidden.key: it cannot be opened with kafka.security.ssl_key_password", "correct the password"),
    ),
    "certificate and key swapped": (
        "MUTUAL",
        lambda k: mutual(k, k.client.key, k.client.certificate),
        ("expected a certificate (PEM), but it has private key", "swap it with"),
    ),
    "key of another certificate": (
        "MUTUAL",
        lambda k: mutual(k, k.client.certificate, k.ours.pair("other").key),
        ("ours-other.key: it is not the key of the certificate", "give a matching pair"),
    ),
    "certificate alone": (
        "MUTUAL",
        lambda k: mutual(k, k.client.certificate, None),
        ("expected a private key (PEM), but it has certificate", "or set kafka.security.ssl_key"),
    ),
    "no such file": (
        "TLS",
        lambda k: tls(k, ssl_ca="gone.pem"),
        ("kafka.security.ssl_ca: gone.pem: there is no such",),
    ),
    "file that cannot be read": ("TLS", unreadable, ("it cannot be read: Is a directory", "correct the path")),
    "file of something else": (
        "TLS",
        lambda k: tls(k, ssl_ca=written(k, "notes", "hello")),
        ("expected certificates (PEM), but it is not PEM", "openssl x509 -inform der"),
    ),
    "damaged certificate": (
        "TLS",
        lambda k: tls(
            k, ssl_ca=written(k, "cut", k.ours.certificate.read_text()[:200] + "\n-----END CERTIFICATE-----")
        ),
        ("expected certificates (PEM), but one is damaged",),
    ),
    "mechanism": (
        "SCRAMONLY",
        lambda k: k.login("plain", "PLAIN"),
        ("sasl_mechanism is PLAIN", "offers SCRAM-SHA-", "set it to one of these"),
    ),
    "login where there is none": (
        "TLS",
        lambda k: k.login("alice"),
        ("accepts no login", "set kafka.security.protocol to SSL"),
    ),
    "no login where there is one": ("LOGIN", tls, ("requires a login (PLAIN, ", "set it to SASL_SSL")),
    "no login in clear text": ("CLEAR", lambda k: {}, ("requires a login (PLAIN, ", "set it to SASL_PLAINTEXT")),
    "TLS to a plain port": ("PLAINTEXT", tls, ("does not use TLS", "set kafka.security.protocol to PLAINTEXT")),
    "plain to a port of TLS": ("TLS", lambda k: {}, ("uses only TLS", "set kafka.security.protocol to SSL")),
    "client's secret": (
        "LOGIN",
        lambda k: oauth(k, oauth_client_secret="wrong"),
        ("it answers 401 invalid_client", "correct kafka.security.oauth_client_id and oauth_client_secret"),
    ),
    "audience of a token": ("LOGIN", lambda k: oauth(k, oauth_client_id="for-others"), ("that the broker expects of",)),
    "function that is not there": (
        "LOGIN",
        lambda k: tls(k, protocol="SASL_SSL", sasl_mechanism="OAUTHBEARER", oauth_function="json:tokens"),
        ("kafka.security.oauth_function: json:tokens: json has no tokens; correct the name",),
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_whatever_is_wrong_is_told_with_its_true_cause_and_the_remedy(
    what: str, kafka: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adawise.kafka.tls.ssl.SSLContext.load_cert_chain", without_requests())
    listener, made, found = WRONG[what]
    if what == "audience of a token":
        kafka.identity.clients["for-others"] = "s3cret/of+it"
        monkeypatch.setattr(type(kafka.identity), "token", _for_others)
    with pytest.raises(SettingsError) as raised:
        connect(kafka.at(listener), made(kafka), patience_ms=1_500)
    message = str(raised.value)
    assert [part for part in found if part not in message] == []
    assert "Check that the broker is running" not in message
    assert "Error:" not in message
    for secret in ("geheim", "s3cret", PASSWORD % "alice"):
        assert secret not in message


@pytest.mark.parametrize(
    "what", ["no login where there is one", "no login in clear text", "TLS to a plain port", "plain to a port of TLS"]
)
def test_another_protocol_is_told_at_once_and_not_when_the_patience_is_over(what: str, kafka: Secured) -> None:
    listener, made, found = WRONG[what]
    for servers in (kafka.at(listener), f"{kafka.at(listener)},localhost:{kafka.ports[listener]}"):
        with pytest.raises(SettingsError, match=re.escape(found[0])):
            connect(servers, made(kafka), patience_ms=3_600_000)  # beyond any test's end


def test_a_port_of_another_protocol_keeps_nobody_from_a_server_that_is_right(kafka: Secured) -> None:
    servers = f"{kafka.at('PLAINTEXT')},{kafka.at('TLS')}"
    assert connect(servers, tls(kafka)) == {str(kafka.ports["TLS"])}


def _for_others(self: Identity, subject: str) -> str:
    return _TOKEN(self, subject, audience="others")


_TOKEN = Identity.token


def without_requests() -> Callable[..., None]:
    """As OpenSSL loads a key, but that it may not ask the terminal."""
    import ssl

    load = ssl.SSLContext.load_cert_chain

    def load_cert_chain(self: ssl.SSLContext, certificate: Path, key: Path | None, password: object) -> None:
        assert callable(password), "OpenSSL would ask for the password on the terminal"
        load(self, certificate, key, password)

    return load_cert_chain


def test_the_name_that_a_broker_is_called_by_later_is_looked_at_too(kafka: Secured) -> None:
    """Bootstrapping goes to a name of the certificate, and the broker tells clients another."""
    with pytest.raises(SettingsError, match=r"for another name .*advertised\.listeners"):
        connect(f"localhost:{kafka.ports['STRANGE']}", tls(kafka))


def test_a_port_with_nobody_behind_it_is_a_broker_that_is_away(kafka: Secured) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{held.getsockname()[1]}"
        for way in (tls(kafka), kafka.login("alice"), {}):
            with pytest.raises(BrokerUnavailable, match="Check that the broker is running"):
                connect(where, way, patience_ms=300)


def test_one_server_of_two_that_refuses_keeps_nobody_out(kafka: Secured) -> None:
    servers = f"{kafka.at('EXPIRED')},{kafka.at('TLS')}"
    assert connect(servers, tls(kafka)) == {str(kafka.ports["TLS"])}


def test_tokens_are_shared_by_clients_and_renewed_before_they_end(kafka: Secured) -> None:
    way = oauth(kafka, oauth_scope="frames:read frames:write")
    kafka.identity.given.clear()
    kafka.identity.requests.clear()
    for _ in range(3):
        connect(kafka.at("LOGIN"), way)
    assert len(kafka.identity.given) == 1
    assert kafka.identity.requests == [{"grant_type": ["client_credentials"], "scope": ["frames:read frames:write"]}]


@pytest.mark.soak
def test_a_session_goes_on_beyond_the_life_of_its_token(kafka: Secured) -> None:
    """The broker ends a session with its token (KIP-368): the client logs in again in time, with a new one."""
    way = oauth(kafka, oauth_scope="short")
    kafka.identity.lifetime_s = 10
    kafka.identity.given.clear()
    kafka.allow("worker", "--operation Describe --topic short")
    try:
        arguments = security(KafkaSettings.model_validate({"security": way}))
        with closing(open_client(KafkaConsumer, kafka.at("LOGIN"), arguments, client_id="test")) as consumer:
            connections = set()
            while len(kafka.identity.given) < 3:
                consumer.poll(timeout_ms=50)
                consumer.topics()
                connections |= {id(each) for each in consumer._client._manager._conns.values()}
            assert len(connections) == 1
    finally:
        kafka.identity.lifetime_s = 300
        kafka.forbid("worker", "--operation Describe --topic short")


def test_a_token_endpoint_is_believed_by_its_certificate_alone(kafka: Secured) -> None:
    pair = kafka.ours.pair("login", hosts=("127.0.0.1",))
    with identity(pair.both) as provider:
        provider.key, provider.clients = kafka.identity.key, kafka.identity.clients
        way = oauth(kafka, oauth_token_endpoint=provider.url("/token"), oauth_ca=str(kafka.ours.certificate))
        assert connect(kafka.at("LOGIN"), way)
        with pytest.raises(SettingsError, match=r"its certificate is signed by .* kafka\.security\.oauth_ca"):
            connect(kafka.at("LOGIN"), way | {"oauth_ca": None})
        gone = provider.url("/token")
    with pytest.raises(BrokerUnavailable, match=f"no token from {re.escape(gone)}: .*refused.* check it"):
        connect(kafka.at("LOGIN"), way | {"oauth_token_endpoint": gone, "oauth_scope": "x"}, patience_ms=3_000)


def test_a_missing_right_is_named(kafka: Secured) -> None:
    topic = fresh_name("yard")
    with kafka.admin() as admin:
        admin.create_topics({topic: {"num_partitions": 1}}, wait_for_metadata=True)
    settings = KafkaSettings.model_validate(
        {"bootstrap_servers": kafka.at("LOGIN"), "topic": topic, "security": kafka.login("alice")}
    )
    refused = r"the broker does not allow it\. Give the user the ACL "
    expected = rf"topic '{topic}' at 127\.0\.0\.1:\d+: {refused}"
    with pytest.raises(FatalError, match=f"{expected}READ on the topic"):
        kafka_source(settings)
    with pytest.raises(SettingsError, match=rf"\.dlq' at \S+: {refused}CREATE"):
        own_dead_letter_topics(settings, 10_000).check(settings.dead_letters_to)
    with pytest.raises(FatalError, match=f"{expected}WRITE on the topic"):
        ensure_topic(**reach(settings), topic=topic, create=False)
    kafka.allow("alice", f"--operation Read --topic {topic}")
    with pytest.raises(FatalError, match=rf"join group .* {refused}READ"):
        check_joining(settings, is_embedded=False)
    with closing(kafka_source(settings, group=False)) as source:
        assert source.log.identity(topic).partitions == 1
