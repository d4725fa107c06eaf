from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.store.faults import DONE, NOT_DONE, Fault, Request
from tools.chaos.actor import ANSWER_LOST, REFUSED, TRIED_AGAIN
from tools.chaos.place import ProxyWeather

REQUEST = Request("PUT", "/bucket/key", {}, "", 0)


def test_in_fair_weather_few_requests_fail_and_in_every_way(tmp_path: Path) -> None:
    weather = ProxyWeather(1, tmp_path / "outage")
    met = Counter(weather(REQUEST) for _ in range(10_000))
    assert met[Fault.NONE] > 9_000
    assert {*NOT_DONE, *DONE} < set(met)


@pytest.mark.parametrize(("expected", "kinds"), [(REFUSED, NOT_DONE), (ANSWER_LOST, DONE)])
def test_in_an_outage_every_request_fails_and_is_done_or_not_as_the_file_says(
    expected: str, kinds: tuple[Fault, ...], tmp_path: Path
) -> None:
    weather = ProxyWeather(1, tmp_path / "outage")
    (tmp_path / "outage").write_text(expected)
    assert {weather(REQUEST) for _ in range(1_000)} == set(kinds)
    (tmp_path / "outage").unlink()
    assert Fault.NONE in {weather(REQUEST) for _ in range(10)}


def test_clients_of_a_bucket_try_again_in_any_weather(tmp_path: Path) -> None:
    weather = ProxyWeather(1, tmp_path / "outage")
    (tmp_path / "outage").write_text(TRIED_AGAIN)
    assert Fault.NONE in {weather(REQUEST) for _ in range(10)}
