"""Secrets are planted in every setting that is one; nothing that is said or written may hold them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from adawise.settings.describe import SETTINGS, environment_name, is_secret
from tests.brokers import create_topic, free_ports
from tests.commands.secured import BAD, GOOD, Yard
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
    return os.environ | found


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
    way: str, secured_broker: Secured, pair_folder: PairFolder, tmp_path: Path
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
    said: dict[str, str] = {}

    def call(*arguments: str) -> None:
        command = [sys.executable, "-m", "adawise", *arguments]
        done = subprocess.run(command, env=environ, cwd=yard.folder, capture_output=True, text=True)
        said[" ".join(arguments)] = done.stdout + done.stderr
        assert done.returncode in (0, 3), said

    log = yard.folder / "worker.log"
    with log.open("wb") as out:
        worker = subprocess.Popen(
            [sys.executable, "-m", "adawise", "run"], env=environ, cwd=yard.folder, stdout=out, stderr=out
        )
        try:
            give_up, never = time.monotonic() + DEADLINE_S, threading.Event()
            while Output(yard.root).rows < GOOD + BAD:
                assert worker.poll() is None, log.read_text()
                assert time.monotonic() < give_up, log.read_text()
                never.wait(0.1)
            said["ps"] = " ".join(psutil.Process(worker.pid).cmdline())
            for path in ("/", "/metrics", "/livez", "/readyz", "/startupz"):
                request = urllib.request.Request(
                    f"http://127.0.0.1:{port}{path}", headers={"authorization": f"Bearer {PLANTED['http.token']}"}
                )
                with urllib.request.urlopen(request) as answer:
                    said[path] = str(answer.headers) + answer.read().decode()
        finally:
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(60) == 0
    call("doctor")
    call("doctor", "--json")
    call("config", "show")
    call("config", "show", "--json")
    call("run", "--help")
    call("status", "--json")
    call("record", "--output", "another")
    call("dlq", "list", "--json")
    call("verify", str(yard.root), "--broker")
    hidden = [MARK, *yard.kafka.identity.given]
    assert len(hidden) > (way == "OAUTHBEARER")
    found = [where for where, text in (*said.items(), *texts(yard.folder)) if any(each in text for each in hidden)]
    assert found == []
    assert "**********" in said["config show"]
