"""The cameras' messages, and that they are sent only as far as somebody allows."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from adawise.decode.headers import read_headers
from adawise.demo.producer import Cameras, send
from adawise.demo.script import scripts
from adawise.errors import BrokerUnavailable


class Sent:
    """An acknowledgement that has come."""

    def get(self) -> None: ...


@dataclass
class Recorder:
    """Keeps what it is told to send."""

    messages: list[dict[str, Any]] = field(default_factory=list)

    def send(self, topic: str, **record: Any) -> Sent:
        self.messages.append({"topic": topic, **record})
        return Sent()


def produced(images: int, credits: list[int]) -> tuple[list[dict[str, Any]], list[list[int]]]:
    recorder, received = Recorder(), []
    give = iter([*credits, 0])
    send(recorder, "frames", scripts(images), lambda: next(give), lambda line: received.append(json.loads(line)))
    return recorder.messages, received


def test_the_same_length_gives_the_same_bytes() -> None:
    assert produced(24, [24])[0] == produced(24, [5, 19])[0]


def test_no_more_images_are_sent_than_were_allowed() -> None:
    messages, found = produced(40, [7, 2])
    assert len(messages) == 9
    assert found[-1] == [3, 2, 2, 2]


def test_all_are_acknowledged_at_the_end() -> None:
    messages, found = produced(70, [1000])
    assert len(messages) == 70
    assert found[-1] == [18, 18, 17, 17]


def test_a_message_says_whose_it_is_from_when_and_what_it_shows() -> None:
    cameras = scripts(40)
    messages, _ = produced(40, [40])
    message = messages[13]  # camera 1, frame 3
    headers = read_headers(message["key"], message["headers"])
    assert message["partition"] == 1
    assert headers.stream.stream_id == cameras[1].camera_id
    assert headers.frame_id == "harbour-000003"
    assert headers.content_type == "image/jpeg"
    assert headers.meta == {"condition": cameras[1].moment(3).condition}
    first = read_headers(None, messages[1]["headers"]).captured_at_us
    assert first is not None
    assert headers.captured_at_us == first + 300_000
    assert message["value"].startswith(b"\xff\xd8")


def test_cameras_without_a_broker_are_reported_as_such(capfd: pytest.CaptureFixture[str]) -> None:
    with Cameras("127.0.0.1:1", "frames", 8, "weather", 8) as cameras:
        assert cameras._process is not None
        assert cameras._process.wait() == 1
        with pytest.raises(BrokerUnavailable, match=r"after 0 of 8 images"):
            cameras.check()
    assert "127.0.0.1:1" in capfd.readouterr().err
