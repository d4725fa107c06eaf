"""Secrets are planted in every setting that is one; nothing that is said or written may hold them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from urllib.request import Request, urlopen

import pyarrow.parquet as pq
import pytest

from adawise.__main__ import main
from adawise.settings.describe import SETTINGS, environment_name, is_secret
from tests.brokers import create_topic, free_ports
from tests.cli.secured import BAD, GOOD, Yard
from tests.kafka.certificates import Pair
from tests.kafka.secured import Secured
from tests.models import PairFolder
from tests.worker.output import Output
from tests.worker.process import DEADLINE_S

pytestmark = pytest.mark.soak

PLANTED = {
    "kafka.security.sasl_password": "pl4nted-password-of-scram",
    "kafka.security.ssl_key_password": "pl4nted-password-of-a-key",
    "kafka.security.oauth_client_secret": "pl4nted-secret-of-a-client",
    "http.token": "pl4nted-token-of-the-port",
}
MARK = "pl4nted"
PATHS = ("/", "/metrics", "/livez", "/readyz", "/startupz")


def test_every_setting_that_is_a_secret_is_planted() -> None:
    assert set(PLANTED) == {name for name, field in SETTINGS.items() if is_secret(field)}


def environment(yard: Yard, client: Pair, port: int, way: str) -> dict[str, str]:
    """Of a worker that logs in by a password, or by tokens; secrets are in files, or in the environment."""
    found = {**yard.environ(), **yard.model(), "ADAWISE_HTTP__ENABLED": "true", "ADAWISE_HTTP__PORT": str(port)}
    found |= {"ADAWISE_RECORD__ENABLED": "true", "ADAWISE_RECORD__ROOT": str(yard.folder / "recording")}
    found |= {"ADAWISE_RESULTS__ENABLED": "true", "ADAWISE_LOG__LEVEL": "debug", "ADAWISE_SINK__FLUSH_AGE_S": "1"}
    found |= {"ADAWISE_KAFKA__SECURITY__SSL_CERTIFICATE": str(client.certificate)}
    found |= {"ADAWISE_KAFKA__SECURITY__SSL_KEY": str(client.key)}
    login = "kafka.security.sasl_password" if way == "SCRAM-SHA-512" else "kafka.security.oauth_client_secret"
    if way == "OAUTHBEARER":
        found = {name: value for name, value in found.items() if not name.split("__")[-1].startswith("SASL_")}
        found["ADAWISE_KAFKA__SECURITY__SASL_MECHANISM"] = way
        found["ADAWISE_KAFKA__SECURITY__OAUTH_CLIENT_ID"] = yard.user
        found["ADAWISE_KAFKA__SECURITY__OAUTH_TOKEN_ENDPOINT"] = yard.kafka.identity.url("/token")
    for name in (login, "kafka.security.ssl_key_password", "http.token"):
        found.pop(environment_name(f"{name}_file"), None)
        if way == "OAUTHBEARER":
            found[environment_name(name)] = PLANTED[name]
        else:
            file = yard.folder.with_name(f"{yard.folder.name}-secrets") / name
            file.parent.mkdir(exist_ok=True)
            file.write_text(f"{PLANTED[name]}\n")
            found[environment_name(f"{name}_file")] = str(file)
    return found


def ask(port: int, expected: dict[str, str], root: Path) -> None:
    """What the port of a worker answers to whoever has the token, once all is written; then the worker is to end."""
    give_up, never = time.monotonic() + DEADLINE_S, Event()
    while Output(root).rows < GOOD + BAD and time.monotonic() < give_up:
        never.wait(0.1)
    try:
        for path in PATHS:
            headers = {"authorization": f"Bearer {PLANTED['http.token']}"}
            with urlopen(Request(f"http://127.0.0.1:{port}{path}", headers=headers)) as answer:
                expected[path] = str(answer.headers) + answer.read().decode()
    finally:
        os.kill(os.getpid(), signal.SIGTERM)


def texts(folder: Path) -> Iterator[tuple[str, str]]:
    """Everything below a folder, as text; what tables hold, too."""
    for path in folder.rglob("*"):
        if path.is_file():
            yield str(path), path.read_bytes().decode("latin-1")
            if path.suffix == ".parquet":
                table = pq.read_table(path)
                yield f"rows of {path}", str(table.to_pylist()) + str(table.schema.metadata)


@pytest.mark.parametrize("way", ["SCRAM-SHA-512", "OAUTHBEARER"])
def test_no_secret_is_in_anything_that_is_said_or_written(
    way: str,
    secured_broker: Secured,
    pair_folder: PairFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    yard = Yard(secured_broker, pair_folder, tmp_path / "yard")
    yard.kafka.add_user(yard.user, PLANTED["kafka.security.sasl_password"])
    yard.kafka.identity.clients[yard.user] = PLANTED["kafka.security.oauth_client_secret"]
    yard.kafka.identity.given.clear()
    (yard.folder / "password").unlink()
    for suffix in (".dlq", ".results", ".labels"):
        create_topic(yard.plain, f"{yard.name}{suffix}")
    more = [f"--operation Write --topic {yard.name}.results", f"--operation Read --topic {yard.name}.dlq"]
    yard.kafka.allow(yard.user, *yard.worker_rules, *more)
    client = yard.kafka.ours.pair("planted", key_password=PLANTED["kafka.security.ssl_key_password"])
    port = free_ports(1)
    environ = environment(yard, client, port, way)
    fields: dict[str, str] = {}

    def call(*arguments: str) -> None:
        capsys.readouterr()
        code = main(list(arguments))
        output = capsys.readouterr()
        fields[" ".join(arguments)] = output.out + output.err
        assert code in (0, 3), output

    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(yard.folder)
    thread = Thread(target=ask, args=(port, fields, yard.root), daemon=True)
    thread.start()
    call("run")
    thread.join()
    assert set(PATHS) <= set(fields)
    call("doctor")
    call("doctor", "--json")
    call("config", "show")
    call("config", "show", "--json")
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    fields["help"] = capsys.readouterr().out
    call("status", "--json")
    call("record", "--output", "another")
    call("dlq", "list", "--json")
    call("verify", str(yard.root), "--broker")
    hidden = [MARK, *yard.kafka.identity.given]
    assert len(hidden) > (way == "OAUTHBEARER")
    found = [where for where, text in (*fields.items(), *texts(yard.folder)) if any(each in text for each in hidden)]
    assert found == []
    assert "**********" in fields["config show"]
