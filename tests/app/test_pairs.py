"""A pair's document carries the preprocessing that is set for it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from adawise.app.model import identity_of, load_model
from adawise.app.pairs import (
    Start,
    _expect,
    begin_orders,
    check_start,
    checked_document,
    document_of,
    load_beside,
    names_pair,
    planned_pairs,
    settings_with,
)
from adawise.app.prompts import prompt_templates
from adawise.errors import CheckpointError, SettingsError
from adawise.pairs.orders import give_order, key_of, read_orders
from adawise.ports import Head
from adawise.records import Switch, TopicPartition
from adawise.settings import Settings
from adawise.sink.served_by import claim_pair
from tests.clip.test_load import with_config
from tests.models import PairFolder
from tests.sink.building import DictStore


def settings_of(pair: PairFolder, **model: object) -> Settings:
    named = {"theta_0": pair.theta_0, "theta_1": pair.theta_1, "classes": pair.classes, "device": "cpu"}
    return Settings.model_validate({"model": {**named, **model}})


def test_a_pair_is_loaded_with_the_preprocessing_that_it_was_staged_with(pair_folder: PairFolder) -> None:
    plain, found = settings_of(pair_folder), settings_of(pair_folder, mean=[0.5, 0.5, 0.5], quick_gelu=True)
    documents = {
        name: document_of(settings, load_model(settings.model, settings.decode), prompt_templates(settings.model))
        for name, settings in {"plain": plain, "told": found}.items()
    }
    assert documents["plain"].id != documents["told"].id
    assert documents["told"].settings["model"] == {"mean": "0.5,0.5,0.5", "quick_gelu": True}
    assert "model" not in documents["plain"].settings  # which an earlier version would refuse
    other = settings_of(pair_folder, std="0.1,0.1,0.1")
    assert settings_with(other, documents["told"]).model.preprocessing == found.model.preprocessing
    named = {(a, b): names_pair(s, documents[b]) for a, s in {"plain": plain, "told": found}.items() for b in documents}
    assert named == {(a, b): a == b for a, b in named}


@pytest.mark.parametrize(("group", "values"), [("model", {"bank_mib": 1}), ("model", {"mean": "x"}), ("kafka", {})])
def test_a_document_of_a_later_version_is_not_taken_for_what_is_known(
    pair_folder: PairFolder, group: str, values: dict[str, Any], tmp_path: Path
) -> None:
    settings = settings_of(pair_folder)
    model = load_model(settings.model, settings.decode)
    document = document_of(settings, model, prompt_templates(settings.model))
    with pytest.raises(SettingsError, match=f"sets {group}.* to a value that this version does not know"):
        settings_with(settings, replace(document, settings={group: values}))


def test_a_pair_has_the_id_that_it_had_before_configs_and_a_document_says_which_config_it_is_of(
    pair_folder: PairFolder,
) -> None:
    settings = settings_of(pair_folder)
    model = load_model(settings.model, settings.decode)
    document = document_of(settings, model, prompt_templates(settings.model))
    assert "config" not in document.identity
    assert document.config == model.checkpoints.config
    assert document.key == key_of(identity_of(model))
    assert document.id == key_of(document.identity).id
    assert document.whole_identity == identity_of(model)
    changed, earlier = replace(document, config="f" * 16), replace(document, config="")
    _expect(document, model)
    _expect(earlier, model)
    assert earlier.whole_identity == document.identity
    with pytest.raises(SettingsError, match=f"another config: by its hash it is {document.config}, expected ffff"):
        _expect(changed, model)
    with pytest.raises(SettingsError, match="another config"):
        load_beside(settings, changed, preprocess=model.checkpoints.preprocess)


def test_a_pair_that_cannot_be_described_is_served_without_an_order_and_that_is_logged(
    pair_folder: PairFolder, tmp_path: Path
) -> None:
    settings = settings_of(pair_folder)
    model = load_model(settings.model, settings.decode)
    document = document_of(settings, model, prompt_templates(settings.model))
    store = DictStore()
    start = Start(settings, model, replace(document, theta_1=os.fsdecode(b"/models/\xff")), {})
    with capture_logs() as lines:
        assert begin_orders(store, start).log == ()
    assert [line["event"] for line in lines] == ["pair_not_described"]
    assert store.objects == {}


def test_a_pair_that_cannot_be_described_is_refused_before_a_root_with_orders_takes_it(pair_folder: PairFolder) -> None:
    settings = settings_of(pair_folder, on_change="reset")
    model = load_model(settings.model, settings.decode)
    document = document_of(settings, model, prompt_templates(settings.model))
    store = DictStore()
    begin_orders(store, Start(settings, model, replace(document, identity={"theta_0": "another"}), {}))
    before = {**store.objects}
    start = Start(settings, model, replace(document, theta_1=os.fsdecode(b"/models/\xff")), {})
    for request in (lambda: check_start(store, start, read_orders(store)), lambda: begin_orders(store, start)):
        with pytest.raises(SettingsError, match=r"cannot be described in _pairs: .* give its files names in UTF-8"):
            request()
    assert store.objects == before
    check_start(store, Start(settings, model, document, {}), read_orders(store))


def test_files_that_were_replaced_since_they_were_staged_are_refused(pair_folder: PairFolder) -> None:
    settings = settings_of(pair_folder)
    model = load_model(settings.model, settings.decode)
    document = document_of(settings, model, prompt_templates(settings.model))
    staged = replace(document, identity={**document.identity, "theta_1": "f" * 16})
    with pytest.raises(SettingsError, match=rf"are not those that were staged.*{document.id}, expected {staged.id}"):
        load_beside(settings, staged, preprocess=model.checkpoints.preprocess)


@pytest.mark.parametrize("prior", ["off", "beside"])
def test_a_pair_without_a_card_is_staged_and_loaded_with_a_warning_if_a_class_prior_is_learned(
    pair_folder: PairFolder, prior: str
) -> None:
    settings = Settings.model_validate(settings_of(pair_folder).model_dump() | {"scene": {"prior": prior}})
    with capture_logs() as staged:
        document = checked_document(settings)
    with capture_logs() as loaded:
        load_beside(settings, document, preprocess=load_model(settings.model, settings.decode).checkpoints.preprocess)
    expected = ["prior_uncalibrated"] if prior == "beside" else []
    for lines in (staged, loaded):
        assert [line["event"] for line in lines if line["event"] == "prior_uncalibrated"] == expected


@pytest.mark.parametrize("end", [0, 1])
def test_a_staged_pair_of_two_configs_is_refused_by_the_key_and_both_values(
    pair_folder: PairFolder, tmp_path: Path, end: int
) -> None:
    settings = settings_of(pair_folder)
    model = load_model(settings.model, settings.decode)
    document = document_of(settings, model, prompt_templates(settings.model))

    def see_all_words(config: dict[str, dict[str, Any]]) -> None:
        config["model_cfg"]["text_cfg"]["no_causal_mask"] = True

    thetas = [document.theta_0, document.theta_1]
    thetas[end] = with_config(tmp_path / "changed", thetas[end], see_all_words)
    values = ("True and False", "False and True")[end]
    named = settings_of(replace(pair_folder, theta_0=thetas[0], theta_1=thetas[1]))
    staged = replace(document, theta_0=thetas[0], theta_1=thetas[1])
    for load in (
        lambda: checked_document(named),
        lambda: load_beside(settings, staged, preprocess=model.checkpoints.preprocess),
    ):
        with pytest.raises(CheckpointError, match=rf"text_cfg\.no_causal_mask is {values} by their configs"):
            load()


def test_a_config_that_is_not_as_expected_is_named_by_the_value_that_differs(pair_folder: PairFolder) -> None:
    settings = settings_of(pair_folder)
    model = load_model(settings.model, settings.decode)
    document = document_of(settings, model, prompt_templates(settings.model))
    used = {**document.used_config, "quick_gelu": not document.used_config["quick_gelu"]}
    with pytest.raises(SettingsError, match=r"it is \w+ \(quick_gelu (true|false)\), expected f+ \(quick_gelu "):
        _expect(replace(document, config="f" * 16, used_config=used), model)


def test_a_config_that_an_earlier_order_does_not_name_has_an_order_once_another_one_was_claimed(
    pair_folder: PairFolder,
) -> None:
    settings = settings_of(pair_folder, on_change="keep")
    model = load_model(settings.model, settings.decode)
    document = document_of(settings, model, prompt_templates(settings.model))
    store = DictStore()
    orders = give_order(store, read_orders(store), "begin", pair=replace(document, config=""), by="worker:1")
    start = Start(settings, model, document, {})
    claim_pair(store, identity_of(model), "keep")
    assert begin_orders(store, start) == orders
    claim_pair(store, {**identity_of(model), "config": "f" * 16}, "keep")
    other = Start(settings, model, replace(document, config="f" * 16), {})
    for _ in range(2):
        assert begin_orders(store, other).serving.config == "f" * 16
    assert read_orders(store).next_number == 2


def test_a_config_that_is_kept_has_an_order_of_its_own(pair_folder: PairFolder) -> None:
    settings = settings_of(pair_folder, on_change="keep")
    model = load_model(settings.model, settings.decode)
    document = document_of(settings, model, prompt_templates(settings.model))
    store = DictStore()
    assert begin_orders(store, Start(settings, model, document, {})).next_number == 1
    assert begin_orders(store, Start(settings, model, document, {})).next_number == 1
    other = begin_orders(store, Start(settings, model, replace(document, config="f" * 16), {}))
    assert (other.next_number, other.serving.config) == (2, "f" * 16)


def test_a_replay_serves_a_part_with_the_config_that_served_it_or_says_that_it_is_not_at_hand(
    pair_folder: PairFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(pair_folder)
    model = load_model(settings.model, settings.decode)
    document = document_of(settings, model, prompt_templates(settings.model))
    store, tp, served = DictStore(), TopicPartition("frames", 0), [document.config]
    orders = give_order(store, read_orders(store), "begin", pair=document, by="worker:1")
    give_order(store, orders, "begin", pair=replace(document, config="f" * 16), by="worker:2", keeps=True)
    monkeypatch.setattr("adawise.app.pairs.open_store", lambda _: store)
    monkeypatch.setattr("adawise.app.pairs.read_plan", lambda _: {tp: (Switch(0, (), document.id),)})
    monkeypatch.setattr("adawise.app.pairs.served_config", lambda *_: served[0])
    planned, _ = planned_pairs(settings, model, "runs/yard", {tp: (0, 100)}, ends_streams=True)
    assert planned.at(tp, Head(0)).serving.key == document.key
    served[0] = "f" * 16
    with capture_logs() as lines, pytest.raises(SettingsError, match=f"pair {document.id}, which served frames/0 from"):
        planned_pairs(settings, model, "runs/yard", {tp: (0, 100)}, ends_streams=True)
    assert [(line["pair"], "another config" in line["error"]) for line in lines if line["event"] == "pair_failed"] == [
        (1, True)
    ]
