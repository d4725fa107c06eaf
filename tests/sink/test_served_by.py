from __future__ import annotations

import pytest

from adawise.errors import ChainError, SettingsError
from adawise.sink import layout
from adawise.sink.served_by import OnChange, check_pair, claim_pair
from tests.sink.building import DictStore

OURS = {"theta_0": "a" * 16, "theta_1": "b" * 16, "classes": "c" * 16, "preprocess": "1", "card": ""}


def test_who_comes_first_is_the_pair_and_comes_again_without_a_word() -> None:
    store = DictStore()
    for _ in range(3):
        assert claim_pair(store, OURS, "refuse") == {}
    assert store.list(layout.MODELS) == ["_models/000000.json"]


@pytest.mark.parametrize("part", ["theta_0", "theta_1", "classes"])
def test_another_pair_or_class_list_is_refused_and_what_was_and_is_told_with_the_remedies(part: str) -> None:
    store = DictStore()
    claim_pair(store, OURS, "refuse")
    with pytest.raises(SettingsError, match=rf"model\.{part} was {OURS[part]} and is other") as refused:
        claim_pair(store, OURS | {part: "other"}, "refuse")
    for remedy in (
        "separate --sink.root and --kafka.group",
        "--model.on-change to reset (each stream starts anew) or keep",
    ):
        assert remedy in str(refused.value)
    assert claim_pair(store, OURS, "refuse") == {}


@pytest.mark.parametrize("on_change", ["reset", "keep"])
def test_with_leave_another_pair_is_the_root_s_from_then_on_and_told_once(on_change: str) -> None:
    store, other = DictStore(), OURS | {"theta_1": "other"}
    claim_pair(store, OURS, "refuse")
    assert check_pair(store, other, on_change) == {"theta_1": ("b" * 16, "other")}  # type: ignore[arg-type]
    assert claim_pair(store, other, on_change) == {"theta_1": ("b" * 16, "other")}  # type: ignore[arg-type]
    assert claim_pair(store, other, "refuse") == {}
    with pytest.raises(SettingsError, match="theta_1 was other and is bbbb"):
        claim_pair(store, OURS, "refuse")


def test_a_card_and_what_an_upgrade_may_change_are_told_and_never_refused() -> None:
    store = DictStore()
    claim_pair(store, OURS, "refuse")
    upgraded = OURS | {"preprocess": "2", "card": "d" * 16, "something": "new"}
    assert claim_pair(store, upgraded, "refuse") == {"preprocess": ("1", "2"), "card": ("none", "d" * 16)}
    assert claim_pair(store, upgraded, "refuse") == {}


def test_of_two_that_change_it_at_once_both_end_as_they_were_told_to() -> None:
    class Slower(DictStore):
        def create(self, key: str, data: bytes) -> None:
            if key.endswith("000001.json") and key not in self.objects:
                claim_pair(other, OURS | {"theta_1": "quicker"}, "reset")
            super().create(key, data)

    store, other = Slower(), DictStore()
    other.objects = store.objects
    claim_pair(store, OURS, "refuse")
    assert claim_pair(store, OURS | {"theta_1": "slower"}, "reset") == {"theta_1": ("quicker", "slower")}
    assert len(store.list(layout.MODELS)) == 3


def test_a_claim_that_cannot_be_read_is_damage() -> None:
    store = DictStore()
    store.objects["_models/000000.json"] = b'{"identity": 3}'
    with pytest.raises(ChainError, match="it is damaged; restore it"):
        check_pair(store, OURS, "reset")


def test_the_config_is_noted_once_in_a_root_of_an_earlier_version_and_another_one_is_refused_from_then_on() -> None:
    store = DictStore()
    claim_pair(store, OURS, "refuse")
    with_config = OURS | {"config": "e" * 16}
    for _ in range(2):
        assert claim_pair(store, with_config, "refuse") == {}
        assert claim_pair(store, OURS, "refuse") == {}, "a worker of that version beside it"
    assert store.list(layout.MODELS) == ["_models/000000.json", "_models/000001.json"]
    other = OURS | {"config": "f" * 16}
    changes: tuple[OnChange, ...] = ("refuse", "reset")
    for on_change in changes:
        with pytest.raises(SettingsError, match=r"another config.* was e{16} and is f{16}.*--model\.on-change keep"):
            claim_pair(store, other, on_change)
    assert claim_pair(store, other, "keep") == {"config": ("e" * 16, "f" * 16)}
    assert claim_pair(store, other, "refuse") == {}
    assert claim_pair(store, OURS | {"theta_1": "other", "config": "e" * 16}, "reset").keys() == {"theta_1", "config"}


def test_a_pair_that_comes_back_by_a_document_without_a_config_has_the_one_that_is_known_of_it() -> None:
    store, second = DictStore(), OURS | {"theta_1": "second", "config": "d" * 16}
    claim_pair(store, OURS | {"config": "e" * 16}, "refuse")
    claim_pair(store, second, "keep")
    claim_pair(store, OURS, "keep")
    with pytest.raises(SettingsError, match="another config"):
        claim_pair(store, OURS | {"config": "f" * 16}, "refuse")
    assert claim_pair(store, OURS | {"config": "e" * 16}, "refuse") == {}


def test_the_value_in_which_a_config_differs_is_named_where_the_root_knows_both() -> None:
    store, was = DictStore(), {"quick_gelu": False, "mean": [0.5, 0.5, 0.5], "text_cfg.heads": 2}
    claim_pair(store, OURS | {"config": "e" * 16}, "refuse", used_config=was)
    now = {"quick_gelu": True, "mean": [0.5, 0.5, 0.5]}
    found = (
        r"it was e{16} \(quick_gelu false, text_cfg.heads 2\) and is f{16} \(quick_gelu true, text_cfg.heads not set\)"
    )
    with pytest.raises(SettingsError, match=found):
        check_pair(store, OURS | {"config": "f" * 16}, "refuse", used_config=now)
    with pytest.raises(SettingsError, match=r"it was e{16} and is f{16}\."):
        check_pair(store, OURS | {"config": "f" * 16}, "refuse")


def test_what_an_order_asks_for_is_not_refused_but_a_config_that_it_does_not_name() -> None:
    store, ours = DictStore(), OURS | {"config": "f" * 16}
    claim_pair(store, OURS | {"config": "e" * 16}, "refuse")
    assert check_pair(store, ours, "refuse", ordered=ours).keys() == {"config"}
    with pytest.raises(SettingsError, match="another config"):
        check_pair(store, ours, "refuse", ordered=OURS)
    other = ours | {"theta_1": "other"}
    assert claim_pair(store, other, "refuse", ordered=OURS | {"theta_1": "other"}).keys() == {"theta_1", "config"}
