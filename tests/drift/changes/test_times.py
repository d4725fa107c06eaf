"""Days and nights go by the clocks of the site: a shop opens at nine, also after summer time ended."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from adawise.__main__ import main
from adawise_drift.changes.find import daily_cycle
from adawise_drift.changes.times import Clocks, local_us, parse_clocks, utc_us
from adawise_drift.words import axis
from tests.drift.worlds import CLASSES, DAY_US, HOUR_US, IMAGES, PIXELS, CameraWorld, write

BERLIN = ZoneInfo("Europe/Berlin")
BACK = datetime(2026, 10, 25, 1, tzinfo=UTC)  # the clocks of Berlin are put back from 3:00 to 2:00
Captured = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("logs_of_this_process")


def us(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def a_shop(name: str, days: int, zone: ZoneInfo) -> CameraWorld:
    """Lit and full of people from nine to eight by the clocks there; a batch in four minutes, to nine days after."""
    rng = np.random.default_rng(len(name))
    end_us = us(BACK) + 9 * DAY_US
    at = np.arange(end_us - days * DAY_US, end_us, 4 * 60_000_000)
    n, hour = len(at), (local_us(at, zone) % DAY_US) / HOUR_US
    day = (at - at[0]) // DAY_US
    is_open = (hour >= 9.0 + rng.normal(0.0, 0.1, days)[day]) & (hour < 20.0 + rng.normal(0.0, 0.1, days)[day])
    compared = rng.choice([0, IMAGES], n, p=[0.9, 0.1])
    columns = {
        "captured_at": at,
        "images": np.full(n, IMAGES),
        "alpha": np.where(is_open, 0.7, 0.3) + rng.normal(0.0, 0.03, n),
        "objective": np.where(is_open, 1.2, 1.0) + rng.normal(0.0, 0.12, n),
        "mean_confidence": np.where(is_open, 0.85, 0.65) + rng.normal(0.0, 0.03, n),
        "compared": compared,
        "agreed": rng.binomial(compared, 0.85),
        "rejected": np.zeros(n, np.int64),
        "forward_equivalents": 1.0 + rng.choice([0.0, 0.5], n, p=[0.8, 0.2]),
        "model_fingerprint": np.full(n, "0123456789abcdef"),
        **{f"{kind}_mean": np.where(is_open, -0.6, -2.0) + rng.normal(0.0, 0.05, n) for kind in PIXELS},
    }
    shares = np.full((n, len(CLASSES)), 0.02)
    shares[np.arange(n), np.where(is_open, CLASSES.index("person"), CLASSES.index("empty road"))] = 0.86
    none = np.zeros(n, np.int64)
    return CameraWorld(name, columns, rng.multinomial(IMAGES, shares), none, none, (), float(days))


def test_a_shop_is_quiet_over_the_end_of_summer_time_by_its_own_clocks_alone(tmp_path: Path, capsys: Captured) -> None:
    root = write(tmp_path / "shop", [a_shop("shop", 20, BERLIN)])

    def night(days_after: int, *more: str) -> int:
        at = BACK.replace(hour=9) + timedelta(days=days_after)
        time = ["--since", (at - timedelta(days=1)).isoformat(), "--until", at.isoformat()]
        code = main(["drift", str(root), *time, "--reference", "8d", "--fail-if", "events>0", *more])
        capsys.readouterr()
        return code

    days = (0, 1, 2)
    assert [night(day, "--time-zone", "UTC,sh*=Europe/Berlin") for day in days] == [0, 0, 0]
    assert any(night(day) == 3 for day in days), "an hour after it opened is another one in UTC then"
    assert night(-1) == 0


def test_a_baseline_is_of_hours_that_are_the_same_in_every_zone(tmp_path: Path, capsys: Captured) -> None:
    """So that it may be read by other clocks than those it was made by."""
    root, received = write(tmp_path / "shop", [a_shop("shop", 16, BERLIN)]), []
    for zones in (["Europe/Berlin", "Europe/Berlin"], ["UTC", "Europe/Berlin"]):
        file = tmp_path / zones[0].rpartition("/")[2]
        for day, zone in enumerate(zones, 1):
            at = BACK + timedelta(days=day)
            time = ["--since", (at - timedelta(days=1)).isoformat(), "--until", at.isoformat()]
            assert main(["drift", str(root), *time, "--baseline", str(file), "--time-zone", zone]) == 0
        received.append((capsys.readouterr().out.split("what happened")[1:], file.read_bytes()))
    assert received[0] == received[1]


def test_clocks_are_put_back_and_forward_where_the_zone_says_so() -> None:
    at = us(BACK) + np.arange(-2, 3) * HOUR_US
    assert ((local_us(at, BERLIN) // HOUR_US) % 24).tolist() == [1, 2, 2, 3, 4]
    spring = us(datetime(2026, 3, 29, 1, tzinfo=UTC)) + np.arange(-2, 2) * HOUR_US
    assert ((local_us(spring, BERLIN) // HOUR_US) % 24).tolist() == [0, 1, 3, 4]
    long = us(datetime(2024, 1, 1, tzinfo=UTC)) + np.arange(0, 800, 3) * DAY_US // 2
    for zone in (BERLIN, ZoneInfo("Australia/Lord_Howe"), ZoneInfo("Asia/Kolkata")):
        shown = [datetime.fromtimestamp(each / 1e6, zone).replace(tzinfo=UTC) for each in long.tolist()]
        assert local_us(long, zone).tolist() == [us(each) for each in shown]
        assert [utc_us(each, zone) for each in local_us(long, zone).tolist()] == long.tolist()
    assert local_us(long, UTC) is long


def test_a_day_that_has_only_begun_is_as_the_day_before() -> None:
    """A report at noon has seen nothing of the evening by which a day would show that it follows its cycle."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        at = np.arange(0, 9 * DAY_US + DAY_US // 2, HOUR_US)
        evening = (at % DAY_US) // HOUR_US >= 18
        cycle = daily_cycle(at, np.where(evening, 1.0, 0.0) + rng.normal(0.0, 0.05, len(at)), least=0.2)
        assert np.ptp(cycle[-11:]) < 0.2
        assert cycle[-11:].mean() == pytest.approx(cycle[-35:-24].mean(), abs=0.05)


def test_zones_are_by_camera_and_one_that_nobody_knows_is_told_with_those_near_it() -> None:
    clocks = parse_clocks(["Europe/Berlin", "osaka-*=Asia/Tokyo"])
    assert clocks.at("osaka-3") == ZoneInfo("Asia/Tokyo")
    assert clocks.at("yard") == BERLIN
    assert clocks.unused(["yard"]) == ["osaka-*"]
    assert parse_clocks([]) == Clocks()
    for given, expected in (
        ("Berlin", "got 'Berlin'; near it are Europe/Berlin"),
        ("Europe/Zürich", "Europe/Zurich"),
        ("../etc/passwd", "expected the name of a time zone"),
        ("=UTC", "no name of a camera"),
        ("UTC,Asia/Tokyo", "expected one zone for all cameras"),
    ):
        with pytest.raises(ValueError, match="expected") as failed:
            parse_clocks(given.split(","))
        assert expected in str(failed.value)


@pytest.mark.parametrize(
    ("zone", "offset"),
    [("America/St_Johns", "UTC−02:30"), ("Asia/Kolkata", "UTC+05:30"), ("America/New_York", "UTC−04:00")],
)
def test_the_offset_of_a_figure_s_clocks_is_that_of_the_zone(zone: str, offset: str) -> None:
    assert offset in axis(ZoneInfo(zone), us(datetime(2026, 10, 1, tzinfo=UTC)))
