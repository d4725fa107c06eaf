"""Every command that asks a broker, on the secured one, as a user with some rules and no others."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from adawise.__main__ import main
from adawise.app.worker import run_worker
from adawise.worker.events import Event, RetryScheduled, SegmentCommitted
from tests.brokers import Broker, broker_of, create_topic, fresh_name
from tests.hostile import picture
from tests.kafka.secured import Secured
from tests.models import PairFolder
from tests.worker.cameras import Shot, Topic, settings_for
from tests.worker.loop import Journal

GOOD, BAD = 6, 2
ENVIRONMENT = "ADAWISE_KAFKA__SECURITY__"


@dataclass
class Yard:
    """A topic with good and bad messages of one camera, its companions, and who asks for them."""

    kafka: Secured
    pair: PairFolder
    folder: Path
    user: str = field(default_factory=lambda: fresh_name("user"))
    name: str = field(default_factory=lambda: fresh_name("yard"))
    group: str = field(default_factory=lambda: fresh_name("group"))

    def __post_init__(self) -> None:
        self.kafka.add_user(self.user)
        self.folder.mkdir(parents=True, exist_ok=True)
        create_topic(self.plain, self.name)
        self.topic = Topic(self.plain, self.name)
        self.produce()
        (self.folder / "password").write_text(self.kafka.login(self.user)["sasl_password"] + "\n")

    def produce(self) -> None:
        """Good messages, and some that nobody can read."""
        good, bad = (Shot(0, b"camera-0", picture(random.Random(1))), Shot(0, b"camera-0", b"\xff\xd8\xff broken"))
        self.topic.produce([*([good] * GOOD), *([replace(bad, reason="undecodable_image", dead=True)] * BAD)])

    @property
    def plain(self) -> Broker:
        """To administrate."""
        return broker_of(self.kafka.kafka)

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def worker_rules(self) -> list[str]:
        """What a worker without results needs; its letters have a topic."""
        needed = ("Read --topic frames", "Read --group adawise", "Write --topic frames.dlq")
        return [self.named(f"--operation {each}") for each in needed]

    def named(self, line: str) -> str:
        """A rule of the guide, for this yard: there the topic is frames, and the group adawise."""
        line = line.replace("--group adawise", f"--group {self.group}")
        line = line.replace("adawise-replay-frames", f"adawise-replay-{self.name}")
        return line.replace("--topic frames", f"--topic {self.name}")

    def environ(self) -> dict[str, str]:
        """Settings of whoever asks: the password is in a file."""
        login = self.kafka.login(self.user)
        return {
            "ADAWISE_KAFKA__BOOTSTRAP_SERVERS": self.kafka.at("LOGIN"),
            "ADAWISE_KAFKA__TOPIC": self.name,
            "ADAWISE_KAFKA__GROUP": self.group,
            "ADAWISE_SINK__ROOT": str(self.root),
            "ADAWISE_HTTP__ENABLED": "false",
            f"{ENVIRONMENT}PROTOCOL": login["protocol"],
            f"{ENVIRONMENT}SSL_CA": login["ssl_ca"],
            f"{ENVIRONMENT}SASL_MECHANISM": login["sasl_mechanism"],
            f"{ENVIRONMENT}SASL_USERNAME": self.user,
            f"{ENVIRONMENT}SASL_PASSWORD_FILE": str(self.folder / "password"),
        }

    def model(self) -> dict[str, str]:
        """Settings of the pair."""
        pair = self.pair
        named = {"architecture": pair.theta_0, "theta_0": pair.theta_0, "theta_1": pair.theta_1}
        named |= {"classes": str(pair.classes), "templates": str(pair.templates), "precision": "fp32", "threads": "1"}
        return {f"ADAWISE_MODEL__{name.upper()}": str(value) for name, value in named.items()}

    def worker(self, observer: Ending, **changes: dict[str, object]) -> int:
        """A worker until all is written."""
        login = self.kafka.login(self.user)
        security = {"kafka": {"bootstrap_servers": self.kafka.at("LOGIN"), "security": login}}
        settings = settings_for(
            self.topic, self.pair, self.root, self.group, **security, http={"enabled": False}, **changes
        )
        return run_worker(settings, observer=observer)


class Ending(Journal):
    """Ends the worker once so many rows are written. `refused` is what is forbidden; `mend` is called at the first."""

    def __init__(self, rows: int, mend: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self._left, self._mend = rows, mend
        self.refused: list[str] = []

    def observe(self, event: Event) -> None:
        super().observe(event)
        if isinstance(event, RetryScheduled) and "the broker does not allow it" in str(event.error):
            self.refused.append(str(event.error))
            if len(self.refused) == 1:
                self._mend()
        elif isinstance(event, SegmentCommitted):
            before, self._left = self._left, self._left - event.commit.rows * event.commit.won
            if self._left <= 0 < before:
                os.kill(os.getpid(), signal.SIGTERM)


def called(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *line: str
) -> tuple[int, str, str]:
    """Exit code, output and error output of a command."""
    with monkeypatch.context() as patch:
        for name, value in {**yard.environ(), **yard.model()}.items():
            patch.setenv(name, value)
        patch.chdir(yard.folder)
        capsys.readouterr()
        code = main(list(line))
        output = capsys.readouterr()
    return code, output.out, output.err
