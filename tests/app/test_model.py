"""What rows say of the settings that served them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from adawise.app.model import ModelPair, adaptation, identity_of, load_model, prior_note, served_by, shortlist_note
from adawise.app.parts import scene_digest
from adawise.app.prompts import read_lines
from adawise.card.card import Card, LabelBias, PairVerdict, SceneProof, make_card
from adawise.errors import SettingsError
from adawise.ports import ServedBy
from adawise.settings import Settings
from tests.fixtures.making import settings

SECRET = "hunter2"


@pytest.fixture(scope="module")
def model() -> ModelPair:
    chosen = settings(Path("unused"))
    return load_model(chosen.model, chosen.decode)


def a_card(model: ModelPair) -> Card:
    """A card of four images, each of its own class."""
    return make_card(
        lambda _: torch.eye(4),
        torch.arange(4),
        alphas=model.classifier.alphas,
        identity=model.classifier.identity,
        created_at="",
    )


def described(model: ModelPair, group: str = "search", **changed: Any) -> dict[str, Any]:
    tree = settings(Path("unused")).model_dump()
    tree[group] |= changed
    return {**served_by(Settings.model_validate(tree), model).settings}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("search.price", 0.05),
        ("search.strategy", "grid"),
        ("search.objective", "entropy"),
        ("batch.images", 9),
        ("decode.reduced", True),
        ("predict.top_k", 3),
        ("limits.streams", 99),
    ],
)
def test_a_setting_that_results_depend_on_is_named_by_its_value(model: ModelPair, name: str, value: object) -> None:
    group, _, field = name.partition(".")
    before, after = described(model), described(model, group, **{field: value})
    assert {each for each in after if before[each] != after[each]} == {name}
    assert after[name] == value
    assert before.keys() == after.keys()


def test_the_objective_is_named_by_what_auto_stands_for(model: ModelPair) -> None:
    assert described(model)["search.objective"] == "tsallis"


def test_the_search_is_named_by_what_auto_stands_for(model: ModelPair) -> None:
    assert described(model)["search.strategy"] == "warm"
    verdict = PairVerdict("tsallis", 0.5, 0.6, 0.45, 0.65, 0.6, (-0.05, -0.06, -0.04), ())
    alphas = model.classifier.alphas
    proven = replace(model, card=replace(a_card(model), verdict=verdict))
    found = described(proven)
    assert (found["search.strategy"], found["search.alpha"]) == ("fixed", 0.45)
    assert served_by(settings(Path("unused")), proven).method == "a fixed alpha of 0.45, as the card advises"
    served = adaptation(settings(Path("unused")), proven)
    assert served.strategy.reach == (alphas.index(0.45),)
    requested = described(proven, strategy="warm")
    assert (requested["search.strategy"], requested["search.alpha"]) == ("warm", 0.5)


def test_the_pair_is_named_by_hashes_and_beside_them_by_where_it_lies(model: ModelPair) -> None:
    chosen = settings(Path("unused"))
    by = served_by(chosen, model)
    assert by.settings["model.theta_0"] == model.classifier.identity["theta_0"]
    assert by.places["model.theta_0"] == chosen.model.theta_0
    assert {"model.precision", "model.device", "model.torch", "model.decoder"} <= by.settings.keys()
    assert "model.card" not in by.places


def test_it_can_be_written_down_and_no_secret_is_in_it(model: ModelPair) -> None:
    tree = settings(Path("unused")).model_dump()
    tree["kafka"]["security"] |= {
        "protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN",
        "sasl_username": "yard",
        "sasl_password": SECRET,
    }
    by = served_by(Settings.model_validate(tree), model)
    found = json.dumps([by.settings, by.places])
    assert SECRET not in found
    assert not [name for name in by.settings if name.startswith(("kafka.", "http.", "sink."))]


def listing(**changed: Any) -> Settings:
    tree = settings(Path("unused")).model_dump()
    tree["search"] |= changed
    shortlists = [{"streams": "yard-*", "exclude": [read_lines(tree["model"]["classes"], "model.classes", "name")[0]]}]
    return Settings.model_validate({**tree, "scene": {"shortlists": shortlists}})


def test_shortlists_are_named_where_there_are_some_and_change_no_fingerprint_where_there_are_none(
    model: ModelPair,
) -> None:
    plain, listed = served_by(settings(Path("unused")), model), served_by(listing(), model)
    assert {*listed.settings} - {*plain.settings} == {"scene.shortlists"}
    assert listed.model_fingerprint == plain.model_fingerprint
    assert listed.config_fingerprint != plain.config_fingerprint
    assert len(adaptation(listing(), model).shortlists.rules) == 1


@pytest.mark.parametrize("objective", ["relative", "atc"])
def test_an_objective_that_compares_with_figures_of_all_classes_is_refused_beside_shortlists(
    model: ModelPair, objective: str
) -> None:
    carded = replace(model, card=a_card(model))
    assert adaptation(listing(objective="calibrated_tsallis"), carded).shortlists.rules
    with pytest.raises(SettingsError, match=f"search.objective {objective} compares .* calibrated_tsallis or tsallis"):
        adaptation(listing(objective=objective), carded)


def test_a_card_that_late_labels_corrected_is_refused_beside_shortlists(model: ModelPair) -> None:
    card = a_card(model)
    bias = LabelBias("tsallis", (0.1,) * len(card.alphas), (0.1,) * len(card.alphas), 100, 10, 50.0, "")
    carded = replace(model, card=card.corrected(bias))
    assert adaptation(listing(objective="entropy"), carded).shortlists.rules
    with pytest.raises(SettingsError, match="correction of tsallis by late labels was learned with all"):
        adaptation(listing(objective="tsallis"), carded)


def test_a_fixed_alpha_that_the_card_advises_by_all_classes_is_named_beside_shortlists(model: ModelPair) -> None:
    verdict = PairVerdict("tsallis", 0.6, 0.5, 0.25, 0.62, 0.58, (-0.04, -0.05, -0.03), ())
    carded = replace(model, card=replace(a_card(model), verdict=verdict))
    note = shortlist_note(listing(strategy="auto"), carded)
    assert note is not None
    assert note.startswith("the card advises a fixed alpha, and no adapting, by a comparison among all")
    for chosen, paired in (
        (listing(strategy="warm"), carded),
        (listing(strategy="auto"), replace(model, card=a_card(model))),
        (settings(Path("unused"), strategy="auto"), carded),
    ):
        assert shortlist_note(chosen, paired) is None


@pytest.mark.parametrize(
    ("prior", "carded", "warned"), [("off", False, False), ("beside", False, True), ("beside", True, False)]
)
def test_a_class_prior_without_a_card_is_warned_of(model: ModelPair, prior: str, carded: bool, warned: bool) -> None:
    tree = settings(Path("unused")).model_dump() | {"scene": {"prior": prior}}
    tree["search"]["objective"] = "tsallis"
    chosen = Settings.model_validate(tree)
    paired = replace(model, card=a_card(model) if carded else None)
    assert (prior_note(chosen, paired) is not None) == warned
    assert (adaptation(chosen, paired).prior_of is None) == (prior == "off")


def serving_scene(**scene: Any) -> Settings:
    tree = settings(Path("unused")).model_dump() | {"scene": {"prior": "served", **scene}}
    tree["search"]["objective"] = "tsallis"
    return Settings.model_validate(tree)


def proof_of(chosen: Settings, *, low: float = 0.01) -> SceneProof:
    gain = (0.05, low, 0.09)
    return SceneProof(scene_digest(chosen.scene), 0.6, gain, "north", 0.02, -0.01, 500, 80, 3, low > 0.0, "")


def test_a_scene_is_served_by_a_card_whose_labels_prove_it_and_learns_as_beside(model: ModelPair) -> None:
    chosen = serving_scene()
    plain, proven = a_card(model), replace(a_card(model), scene=proof_of(chosen))
    made = adaptation(chosen, replace(model, card=proven))
    beside = adaptation(serving_scene(prior="beside"), replace(model, card=plain))
    assert (made.prior_of, made.smooths, made.strategy.key) == (beside.prior_of, beside.smooths, beside.strategy.key)
    assert identity_of(replace(model, card=proven)) == identity_of(replace(model, card=plain))
    with_both = serving_scene(smoothing="served")
    for card, named, refused in (
        (None, chosen, r"scene\.prior = served needs .* but there is no card"),
        (plain, chosen, "has no comparison of scene_label with label on late labels"),
        (proven, with_both, r"scene\.prior and scene\.smoothing = served .* made under another scene\.smoothing"),
        (replace(plain, scene=proof_of(chosen, low=-0.01)), chosen, r"does not: on 500 .* \+5\.0 points .*95 %: -1\.0"),
    ):
        with pytest.raises(SettingsError, match=refused) as raised:
            adaptation(named, replace(model, card=card))
        assert "to beside, label images that workers serve so, and compare: adawise card correct" in str(raised.value)


def test_a_scene_that_is_off_changes_no_fingerprint(model: ModelPair) -> None:
    def served(**scene: str) -> ServedBy:
        return served_by(Settings.model_validate(settings(Path("unused")).model_dump() | {"scene": scene}), model)

    plain = served_by(settings(Path("unused")), model)
    off, prior = served(prior="off", smoothing="off"), served(prior="beside")
    both = served(prior="beside", smoothing="beside")
    assert (off.config_fingerprint, off.settings) == (plain.config_fingerprint, plain.settings)
    assert len({plain.config_fingerprint, prior.config_fingerprint, both.config_fingerprint}) == 3
    assert {*prior.settings} - {*plain.settings} == {"scene.prior"}
    assert {*both.settings} - {*prior.settings} == {"scene.smoothing"}


def test_frames_are_smoothed_where_the_setting_says_so(model: ModelPair) -> None:
    for smoothing, expected in (("off", False), ("beside", True)):
        tree = settings(Path("unused")).model_dump() | {"scene": {"prior": "beside", "smoothing": smoothing}}
        assert adaptation(Settings.model_validate(tree), model).smooths is expected
