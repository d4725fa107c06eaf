"""The script that replays a recording in shards on Ray: its rules, and a cluster where Ray is (`make soak`)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from adawise.sink import layout
from tests.deadlines import DEADLINE_S
from tests.deploy.scripts import loaded
from tests.deploy.watching import DEPLOY
from tests.models import PairFolder
from tests.replay import crowd, runs

SCRIPT = str(DEPLOY / "ray" / "replay.py")
HEAD, NODE = "10.213.7.1", "10.213.7.2"
RAY = (sys.executable, "-m", "ray.scripts.scripts", "start", "--num-cpus=1", "--object-store-memory=100000000")
SHARDS = 6


def test_the_dearest_shard_is_taken_first_and_one_that_fails_is_tried_again_and_then_given_up(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shards = loaded("ray/replay").Shards([1.0, 3.0, 2.0], retries=1)
    assert [shards.left.pop(0), shards.left.pop(0)] == [1, 2]
    shards.failed(1, "its node was lost")
    assert shards.left == [1, 0], "before the cheaper one, which was not begun"
    assert "shard 1 goes on elsewhere: its node was lost" in capsys.readouterr().err
    shards.left.remove(1)
    shards.failed(1, "it was killed")
    assert (shards.left, shards.given_up) == ([0], {1: "it was killed"})


def test_a_shard_that_goes_on_elsewhere_does_not_go_back_in_the_progress() -> None:
    board = loaded("ray/replay").Board()
    for part in (0.2, 0.7, 0.1):
        board.report(3, part)
    assert board.parts() == {3: 0.7}


@pytest.mark.parametrize(
    ("config", "gpus", "expected"),
    [
        ("", 0.0, {"model.device": "cpu", "model.threads": 2, "decode.threads": 2}),
        ("[model]\nthreads = 4\ndevice = 'auto'", 1.0, {"decode.threads": 2}),
    ],
)
def test_an_actor_uses_its_own_device_unless_the_file_says_otherwise(
    config: str, gpus: float, expected: dict[str, object]
) -> None:
    assert loaded("ray/replay")._settings(config, gpus, 2) == expected


@pytest.mark.parametrize(("text", "words"), [(None, "No such file"), ("model = [", "expected a file of settings")])
def test_a_file_of_settings_that_is_not_one_is_refused_before_anything_is_written(
    text: str | None, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, output = tmp_path / "adawise.toml", tmp_path / "out"
    if text is not None:
        file.write_text(text)
    assert loaded("ray/replay").main(["rec", "-o", str(output), "--plan", "2", "--config", str(file)]) == 2
    assert words in capsys.readouterr().err
    assert not output.exists()


def test_a_recording_that_is_not_there_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "adawise.toml").touch()
    options = ["--plan", "2", "--config", str(tmp_path / "adawise.toml")]
    assert loaded("ray/replay").main([str(tmp_path / "none"), "-o", str(tmp_path / "out"), *options]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("replay.py: ")
    assert printed.count("\n") == 1


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token of its own, and nothing of Ray's in the user's home."""
    pytest.importorskip("ray", reason="`make soak` installs it")
    for name, value in {
        "HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(Path("pipeline").resolve()), os.environ.get("PYTHONPATH", "")]),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": os.urandom(32).hex(),
        "RAY_USAGE_STATS_ENABLED": "0",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.mark.soak
@pytest.mark.usefixtures("environment")
def test_a_cluster_of_this_machine_alone_has_every_port_on_loopback() -> None:
    code = f"""
import runpy, psutil
runpy.run_path({SCRIPT!r})["_connect"](None)
started = psutil.Process().children(recursive=True)
ports = [each.laddr.ip for process in started for each in process.net_connections("tcp") if each.status == "LISTEN"]
print(len(ports) > 4, sorted({{*ports}} - {{"127.0.0.1", "::1", "::ffff:127.0.0.1"}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.stdout.splitlines()[-1] == "True []", done.stderr


@pytest.fixture
def two_machines() -> Iterator[tuple[list[str], list[str]]]:
    """Two network namespaces that a cable joins: the words before a command to run in each of them."""
    names = [f"adawise-{os.getpid()}-{number}" for number in range(2)]

    def ip(words: str) -> None:
        done = subprocess.run(["ip", *words.split()], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"needs network namespaces: ip {words}: {done.stderr.strip()}")

    if shutil.which("ip") is None:
        pytest.skip("needs ip (iproute2)")
    with ExitStack() as stack:
        for name in names:
            ip(f"netns add {name}")
            stack.callback(subprocess.run, ["ip", "netns", "del", name], check=True)
            stack.callback(kill_all, name)
        ip(f"link add cable netns {names[0]} type veth peer name cable netns {names[1]}")
        for name, address in zip(names, (HEAD, NODE), strict=True):
            ip(f"-n {name} addr add {address}/24 dev cable")
            for device in ("lo", "cable"):
                ip(f"-n {name} link set {device} up")
        first, second = (["ip", "netns", "exec", name] for name in names)
        yield first, second


def kill_all(name: str) -> None:
    """Kill the processes of a namespace, as if its machine had lost power."""
    found = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=True)
    for number in found.stdout.split():
        os.kill(int(number), signal.SIGKILL)


@pytest.mark.soak
@pytest.mark.usefixtures("environment")
def test_shards_on_two_nodes_of_which_one_is_lost_have_the_rows_of_the_whole(
    two_machines: tuple[list[str], list[str]], pair_folder: PairFolder, tmp_path: Path
) -> None:
    first, second = two_machines
    runs.write_settings(tmp_path, "none:9092", crowd.TOPIC, pair_folder)
    file = tmp_path / "adawise.toml"
    file.write_text(file.read_text().replace("flush_rows = 48", "flush_rows = 8"))
    recording, output = crowd.record(tmp_path / "recording", count=1500), tmp_path / "out"
    folder = tempfile.mkdtemp(prefix="ray-")  # the names of sockets are short
    try:
        subprocess.run(
            [*first, *RAY, "--head", f"--node-ip-address={HEAD}", "--port=6379", f"--temp-dir={folder}"],
            check=True,
            capture_output=True,
            timeout=DEADLINE_S,
        )
        subprocess.run(
            [*second, *RAY, f"--address={HEAD}:6379", f"--node-ip-address={NODE}"],
            check=True,
            capture_output=True,
            timeout=DEADLINE_S,
        )
        command = [*first, sys.executable, SCRIPT, str(recording), "-o", str(output), "--plan", str(SHARDS)]
        with subprocess.Popen(
            [*command, "--address", f"{HEAD}:6379"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as driver:
            give_up_s = time.monotonic() + DEADLINE_S
            while len({path.parts[len(output.parts)] for path in output.rglob("predictions/**/*.parquet")}) < 2:
                assert time.monotonic() < give_up_s
                assert driver.poll() is None
                threading.Event().wait(0.05)
            kill_all(second[-1])  # each of the first two shards has a segment, and is not done
            out, err = driver.communicate(timeout=DEADLINE_S)
        assert driver.returncode == 0, err
        assert f"by {SHARDS} of {SHARDS} shards" in out
        assert "goes on elsewhere: " in err
    finally:
        kill_all(first[-1])
        shutil.rmtree(folder, ignore_errors=True)
    assert runs.adawise(tmp_path, "replay", str(recording), "-o", "whole") == 0
    roots = [layout.shard_root(str(output), number) for number in range(SHARDS)]
    assert crowd.rows_of(roots) == crowd.rows_of([tmp_path / "whole"])
    assert runs.adawise(tmp_path, "diff", "whole", str(output), "--whole") == 0
