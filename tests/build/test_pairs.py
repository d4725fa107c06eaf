"""A pair's document carries the preprocessing that is set for it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from adawise.build.model import identity_of, load_model
from adawise.build.pairs import Start, _expect, begin_orders, document_of, load_beside, names_pair, settings_with
from adawise.build.prompts import prompt_templates
from adawise.errors import SettingsError
from adawise.pairs.orders import pair_id
from adawise.settings import Settings
from tests.models import PairFolder
from tests.sink.building import DictStore


def settings_of(pair: PairFolder, **model: object) -> Settings:
    named = {"theta_0": pair.theta_0, "theta_1": pair.theta_1, "classes": pair.classes, "device": "cpu"}
    return Settings.model_validate({"model": {**named, **model}})


def test_a_pair_is_loaded_with_the_preprocessing_that_it_was_staged_with(pair_folder: PairFolder) -> None:
    plain, told = settings_of(pair_folder), settings_of(pair_folder, mean=[0.5, 0.5, 0.5], quick_gelu=True)
    documents = {
        name: document_of(settings, load_model(settings.model, settings.decode), prompt_templates(settings.model))
        for name, settings in {"plain": plain, "told": told}.items()
    }
    assert documents["plain"].id != documents["told"].id
    assert documents["told"].settings["model"] == {"mean": "0.5,0.5,0.5", "quick_gelu": True}
    assert "model" not in documents["plain"].settings  # which an earlier version would refuse
    other = settings_of(pair_folder, std="0.1,0.1,0.1")
    assert settings_with(other, documents["told"]).model.preprocessing == told.model.preprocessing
    named = {(a, b): names_pair(s, documents[b]) for a, s in {"plain": plain, "told": told}.items() for b in documents}
    assert named == {(a, b): a == b for a, b in named}


@pytest.mark.parametrize(("group", "values"), [("model", {"bank_mib": 1}), ("model", {"mean": "x"}), ("kafka", {})])
def test_a_document_of_a_later_version_is_not_taken_for_what_is_known(
    pair_folder: PairFolder, group: str, values: dict[str, object], tmp_path: Path
) -> None:
    settings = settings_of(pair_folder)
    model = load_model(settings.model, settings.decode)
    document = document_of(settings, model, prompt_templates(settings.model))
    with pytest.raises(SettingsError, match=f"sets {group}.* as this version does not know it"):
        settings_with(settings, replace(document, settings={group: values}))


def test_a_pair_has_the_id_that_it_had_before_configs_and_a_document_says_which_config_it_is_of(
    pair_folder: PairFolder,
) -> None:
    settings = settings_of(pair_folder)
    model = load_model(settings.model, settings.decode)
    document = document_of(settings, model, prompt_templates(settings.model))
    assert "config" not in document.identity
    assert document.config == model.checkpoints.config
    assert document.id == pair_id(identity_of(model)) == pair_id(document.identity)
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


def test_a_config_that_is_kept_has_an_order_of_its_own(pair_folder: PairFolder) -> None:
    settings = settings_of(pair_folder, on_change="keep")
    model = load_model(settings.model, settings.decode)
    document = document_of(settings, model, prompt_templates(settings.model))
    store = DictStore()
    assert begin_orders(store, Start(settings, model, document, {})).next_number == 1
    assert begin_orders(store, Start(settings, model, document, {})).next_number == 1
    other = begin_orders(store, Start(settings, model, replace(document, config="f" * 16), {}))
    assert (other.next_number, other.serving.config) == (2, "f" * 16)
