"""A replay goes on from what a replay knew at a time of the cameras: all of its segments were written long after."""

from __future__ import annotations

import io
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from PIL import Image

from adawise.commands.replay.options import ReplayCommand
from adawise.commands.replay.run import replay
from adawise.compare.compare import compare
from adawise.errors import SettingsError
from adawise.recording.recorder import FilePolicy, Recorder
from adawise.records import Message
from adawise.settings import Settings
from adawise.sink.read.rows import read_traces
from adawise.store.store import open_store
from tests.fixtures.making import BATCH_IMAGES, IDENTITY, TOPIC, settings
from tests.models import random_images
from tests.sink.footers import read_segment_footers

BEGIN = datetime(2026, 3, 1, 8, tzinfo=UTC)
SENT_MS = 1_777_593_600_000  # two months later, all at once
EVERY = timedelta(seconds=10)
BATCHES = 12
CAMERAS = ("north", "south")  # one in each partition

pytestmark = pytest.mark.usefixtures("logs_of_this_process")


def taken(batch: int) -> datetime:
    """When the last image of a batch was taken."""
    return BEGIN + batch * EVERY


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recording")
    policy = FilePolicy(max_messages=1 << 60, max_bytes=1 << 60, max_age_s=1e9)
    recorder = Recorder(str(folder), topic=TOPIC, identity=IDENTITY, policy=policy, max_buffered_bytes=1 << 60)
    for partition, camera in enumerate(CAMERAS):
        messages = []
        for n, pixels in enumerate(random_images(BATCHES * BATCH_IMAGES, seed=partition)):
            batch, place = divmod(n, BATCH_IMAGES)
            at = taken(batch) - timedelta(milliseconds=100 * (BATCH_IMAGES - 1 - place))
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(jpeg := io.BytesIO(), "JPEG")
            headers = (("content-type", b"image/jpeg"), ("captured-at", at.isoformat().encode()))
            sent = Message(TOPIC, partition, n, camera.encode(), jpeg.getvalue(), headers, timestamp_ms=SENT_MS + n)
            messages.append(sent)
        recorder.begin(messages[0].topic_partition, recorder.folder.begin(messages[0].topic_partition, 0))
        recorder.append(messages, 0.0)
    recorder.flush()
    return folder


def run(recording: Path, output: Path, state_of: str | None = None) -> Path:
    tree = settings(Path("unused")).model_dump()
    tree["sink"] |= {"flush_rows": 2 * BATCH_IMAGES}
    asked = ReplayCommand(
        settings=Settings.model_validate(tree), recording=str(recording), output=str(output), state_of=state_of
    )
    assert replay(asked) == 0
    return output


@pytest.fixture(scope="module")
def first(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(recording, tmp_path_factory.mktemp("runs") / "first")


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(seconds=4)])
def test_states_know_of_no_image_after_the_moment_and_the_replay_goes_on_as_the_first_one_did(
    recording: Path, first: Path, tmp_path: Path, ahead: timedelta
) -> None:
    moment = taken(7) + ahead
    on = run(recording, tmp_path / "on", f"{first}@{moment.isoformat()}")
    assert not compare(first, on).differs
    known = dict(read_segment_footers(open_store(str(first))))
    begun = [footer for _, footer in read_segment_footers(open_store(str(on))) if footer.states_of]
    assert sorted(footer.partition for footer in begun) == [0, 1]
    for footer in begun:
        key = str(footer.states_of).removeprefix(f"{first}/")
        after = min(each for each in known if each > key)  # it is the newest that may be taken
        assert max(known[key].trace["captured_at"].to_pylist()) <= moment
        assert max(known[after].trace["captured_at"].to_pylist()) > moment
    times = read_traces(on, columns=["time"]).table()["time"].to_pylist()
    assert {taken(n) for n in range(8, BATCHES)} <= set(times) < {taken(n) for n in range(1, BATCHES)}


def test_a_moment_before_the_first_image_is_refused_and_says_when_it_was(
    recording: Path, first: Path, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError) as refused:
        run(recording, tmp_path / "none", f"{first}@2026-03-01T07:59:00Z")
    said = str(refused.value)
    assert "by the time of the cameras" in said
    assert "it begins at 2026-03-01T08:00:00+00:00, of camera 'north'. Name a later moment" in said


def test_a_replay_of_a_version_without_owners_is_known_by_its_claim(
    recording: Path, first: Path, tmp_path: Path
) -> None:
    old = Path(shutil.copytree(first, tmp_path / "old"))
    (old / "_owner.json").unlink()
    on = run(recording, tmp_path / "on", f"{old}@{taken(7).isoformat()}")
    assert not compare(first, on).differs
