"""A pair's document carries the preprocessing that is set for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from adawise.build.model import load_model
from adawise.build.pairs import document_of, names_pair, settings_with
from adawise.build.prompts import prompt_templates
from adawise.errors import SettingsError
from adawise.settings import Settings
from tests.models import PairFolder


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
