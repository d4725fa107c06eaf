"""The pods of the Job that replays a recording in shards, as processes: their arguments, and what a Job adds."""

from __future__ import annotations

import os
import signal
import subprocess
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from adawise.sink import layout
from adawise.store.store import open_store
from tests.deadlines import DEADLINE_S
from tests.deploy.watching import DEPLOY
from tests.models import PairFolder
from tests.processes import Command
from tests.replay import crowd, runs
from tests.store.clouds import s3_environment, s3_server

JOB = DEPLOY / "kubernetes" / "overlays" / "replay" / "job.yaml"
RECORDING, OUTPUT = "s3://adawise/recording", "s3://adawise/replay"


def spec() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(JOB.read_text())["spec"]
    return found


def containers() -> tuple[dict[str, Any], dict[str, Any]]:
    """The container that makes the plan, and the one that replays a shard."""
    pod = spec()["template"]["spec"]
    (plan,), (replay,) = pod["initContainers"], pod["containers"]
    return plan, replay


def arguments(container: dict[str, Any]) -> list[str]:
    """The arguments of the program, with $(NAME) replaced as Kubernetes does."""
    found: list[str]
    program, *found = container["args"]
    assert program == "adawise"
    for variable in container.get("env", ()):
        found = [each.replace(f"$({variable['name']})", variable["value"]) for each in found]
    return found


def retried(code: int) -> bool:
    """Whether the Job starts another pod for the index after this exit code of a pod that was not evicted."""
    by_code = [rule for rule in spec()["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    return not any(rule["action"] == "FailIndex" and code in rule["onExitCodes"]["values"] for rule in by_code)


def test_the_number_of_shards_of_the_plan_is_that_of_the_job() -> None:
    plan, _ = containers()
    assert arguments(plan)[-2:] == ["--plan", str(spec()["completions"])]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bucket of the manifest, empty, in the environment of this process and of what it starts."""
    for name, value in s3_environment(s3_server()).items():
        monkeypatch.setenv(name, value)
    with urllib.request.urlopen(urllib.request.Request(f"{s3_server()}/adawise", method="PUT")):
        pass


@pytest.mark.check("deploy")
@pytest.mark.usefixtures("bucket")
def test_pods_write_the_rows_of_a_replay_of_the_whole_though_one_is_killed(
    pair_folder: PairFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.write_settings(tmp_path, "none:9092", crowd.TOPIC, pair_folder)
    file = tmp_path / "adawise.toml"
    file.write_text(file.read_text().replace("flush_rows = 48", "flush_rows = 8") + '[log]\nlevel = "debug"\n')
    recording = crowd.record(tmp_path / "recording")
    store = open_store(RECORDING)
    for path in recording.rglob("*.*"):
        store.put(str(path.relative_to(recording)), path.read_bytes())
    plan, replay = containers()

    def ended(container: dict[str, Any], *indices: int) -> list[int]:
        """Run the container of these pods at the same time; their exit codes."""
        with ExitStack() as stack:
            started = [
                stack.enter_context(
                    Command(
                        *arguments(container),
                        cwd=tmp_path,
                        env={**os.environ, "JOB_COMPLETION_INDEX": str(index)},
                        stdout=subprocess.PIPE,
                        stderr=subprocess.PIPE,
                    )
                )
                for index in indices
            ]
            for each in started:
                each.communicate(timeout=DEADLINE_S)
            return [each.returncode for each in started]

    shards = spec()["completions"]
    assert ended(plan, 0, 1) == [0, 0], "each of the first pods may make the plan"
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "0")
    with runs.process(tmp_path, *arguments(replay), pipe_bytes=4096) as running:
        assert any(event["event"] == "segment_committed" for event in runs.events(running.stderr))
        os.kill(running.pid, signal.SIGKILL)
        running.wait(DEADLINE_S)
    assert retried(128 + signal.SIGKILL)
    assert ended(plan, 0) == [0]
    for first in range(0, shards, 2):
        assert ended(replay, first, first + 1) == [0, 0]
    assert runs.adawise(tmp_path, "replay", str(recording), "-o", "whole") == 0
    assert runs.adawise(tmp_path, "diff", "whole", OUTPUT, "--whole") == 0
    roots = [layout.shard_root(OUTPUT, number) for number in range(shards)]
    assert crowd.rows_of(roots) == crowd.rows_of([tmp_path / "whole"])
    (code,) = ended(replay, shards)
    assert code == 2
    assert not retried(code), "the plan has no such shard, and will not have it"
