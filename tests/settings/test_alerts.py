from __future__ import annotations

import json
from pathlib import Path

import pytest

from adawise.app.parts import alert_rules
from adawise.errors import SettingsError
from adawise.publish.alerts import LabelRule, SilenceRule
from adawise.settings import AlertsSettings, read
from adawise.settings.describe import SETTINGS, shown

FILE = """
[results]
enabled = true
[[alerts.rules]]
name = "forklift"
labels = ["forklift", "truck"]
confidence = 0.8
frames = 2
of = 5
streams = "yard-*"
[[alerts.rules]]
name = "dark"
silent_after = "5m"
"""
RULES = (
    LabelRule("forklift", frozenset({"forklift", "truck"}), 0.8, frames=2, of=5, clear_frames=5, streams="yard-*"),
    SilenceRule("dark", 300.0),
)


def rules_in(folder: Path, file: str = "", environ: dict[str, str] | None = None) -> AlertsSettings:
    (folder / "adawise.toml").write_text(file)
    return read((), environ=environ or {}, folder=folder).checked().alerts


def test_the_same_rules_are_written_as_tables_and_as_json(tmp_path: Path) -> None:
    tables = rules_in(tmp_path, FILE)
    assert alert_rules(tables, ["truck", "forklift", "street"]) == RULES
    as_json = shown(SETTINGS["alerts.rules"], tables.rules)
    assert json.loads(as_json)[1] == {"name": "dark", "silent_after": "300s"}
    of_environment = {"ADAWISE_ALERTS__RULES": as_json, "ADAWISE_RESULTS__ENABLED": "true"}
    assert rules_in(tmp_path, environ=of_environment) == tables


def test_a_rule_of_few_words_looks_at_three_images() -> None:
    settings = AlertsSettings.model_validate({"rules": [{"name": "x", "labels": ["car"]}]})
    assert alert_rules(settings, ["car"]) == (LabelRule("x", frozenset({"car"}), 0.5, frames=3, of=3, clear_frames=3),)


def test_a_rule_by_scene_needs_the_class_prior(tmp_path: Path) -> None:
    rule = '[results]\nenabled = true\n[[alerts.rules]]\nname = "x"\nlabels = ["car"]\nby = "scene_label"\n'
    (found,) = alert_rules(rules_in(tmp_path, f'[scene]\nprior = "beside"\n{rule}'), ["car"])
    assert isinstance(found, LabelRule)
    assert found.by_scene
    with pytest.raises(SettingsError, match=r"the rule x goes by scene_label, which scene\.prior = off does not make"):
        rules_in(tmp_path, rule)
    with pytest.raises(SettingsError) as raised:
        rules_in(tmp_path, f'[scene]\nprior = "besides"\n{rule}')
    assert "scene.prior" in str(raised.value)
    assert "alerts.rules" not in str(raised.value), "nothing is known of scene.prior"
    with pytest.raises(SettingsError, match="a rule with silent_after does not use it"):
        rules_in(tmp_path, rule.replace('labels = ["car"]', 'silent_after = "5m"'))


def test_a_rule_goes_by_the_label_that_results_have() -> None:
    settings = AlertsSettings.model_validate({"rules": [{"name": "x", "labels": ["car"]}]})
    (beside,), (served,) = (alert_rules(settings, ["car"], is_scene_served=served) for served in (False, True))
    assert isinstance(served, LabelRule)
    assert (beside, served.by_scene) == (alert_rules(settings, ["car"])[0], True)


def test_a_label_that_is_no_class_is_an_error_with_the_nearest_one() -> None:
    settings = AlertsSettings.model_validate({"rules": [{"name": "x", "labels": ["forklif"]}]})
    with pytest.raises(SettingsError, match=r"rule x: expected a class of model\.classes, got 'forklif'.*'forklift'"):
        alert_rules(settings, ["truck", "forklift"])
