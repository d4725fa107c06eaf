"""How many streams of a partition may keep a state, by what a state takes."""

from __future__ import annotations

import pytest

from adawise.app import model
from adawise.errors import SettingsError
from adawise.settings import Settings


def settings(streams: int | None = None, **search: object) -> Settings:
    limits = {} if streams is None else {"streams": streams}
    return Settings.model_validate({"limits": limits, "search": search})


SCENES: list[dict[str, str]] = [{}, {"prior": "beside"}, {"prior": "beside", "smoothing": "beside"}]


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("strategy", ["warm", "botorch", "scratch", "grid", "fixed"])
def test_the_default_has_room_for_the_states_of_each_strategy(strategy: str, scene: dict[str, str]) -> None:
    chosen = Settings.model_validate({"search": {"strategy": strategy}, "scene": scene})
    model._expect_room(chosen, "a key" * 40, 21)


@pytest.mark.parametrize(("streams", "search"), [(100_000, {}), (10_000, {"strategy": "botorch", "budget": 101})])
def test_more_than_64_mb_of_states_are_refused_with_both_numbers_and_what_would_do(
    streams: int, search: dict[str, object]
) -> None:
    expected = rf"limits.streams is {streams}, and the state of a stream takes up to [0-9]{{4,5}} bytes"
    with pytest.raises(SettingsError, match=expected) as refused:
        model._expect_room(settings(streams, **search), "key", 21)
    most = int(str(refused.value).split("Set limits.streams to ")[1].split()[0])
    model._expect_room(settings(most, **search), "key", 21)


def test_a_shorter_memory_has_room_for_more() -> None:
    with pytest.raises(SettingsError, match=r"or lower search.conditions, 16: with 0 there is room for ") as refused:
        model._expect_room(settings(20_000), "key", 21)
    most = int(str(refused.value).rsplit(" ", 1)[1].rstrip("."))
    model._expect_room(settings(most, conditions=0), "key", 21)
    with pytest.raises(SettingsError, match=r"over more partitions\.$"):
        model._expect_room(settings(most + 1, conditions=0), "key", 21)


@pytest.mark.parametrize(
    ("scene", "named"), [(SCENES[1], r"scene\.prior"), (SCENES[2], r"scene\.prior and scene\.smoothing")]
)
def test_where_a_scene_is_too_much_it_is_named(scene: dict[str, str], named: str) -> None:
    chosen = Settings.model_validate({"limits": {"streams": 12_000}, "scene": scene})
    with pytest.raises(SettingsError, match=rf"or set {named} to off: then there is room for [0-9]+") as refused:
        model._expect_room(chosen, "key", 21)
    most = int(str(refused.value).rsplit(" ", 1)[1].rstrip("."))
    model._expect_room(settings(most), "key", 21)
    with pytest.raises(SettingsError, match=r"limits.streams is"):
        model._expect_room(settings(most + 1), "key", 21)
