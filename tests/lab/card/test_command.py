from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file

from adawise.__main__ import main
from adawise.adapt.objective import NAMES
from adawise.app.model import adaptation, config_fingerprint, load_model
from adawise.app.worker import describe
from adawise.card.advice import OWN, Recommendation, advise, advised_alpha, recommend
from adawise.card.card import GroupVerdict, PairVerdict, read_card
from adawise.clip.heads import heads_path
from adawise.clip.prompts import Encoding, Prompts
from adawise.errors import CardError
from adawise.settings import DecodeSettings, ModelSettings, Settings, read
from adawise_lab.card.show import print_card, verdict_table, verdict_text
from tests.lab.evaluate.building import a_card, shorten_verdicts
from tests.labels.folders.places import Shot, write_parquet, write_recording
from tests.models import CLASSES, PairFolder, random_images, write_pair

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair, its settings, and labelled images: 30 own ones, and 10 of each of two conditions."""
    folder = tmp_path_factory.mktemp("labelled")
    pair = write_pair(folder / "pair")
    _write_settings(folder, pair)
    for seed, (name, count) in enumerate({"own": 30, "shifted/fog": 10, "shifted/dusk": 10}.items()):
        for i, pixels in enumerate(random_images(count, seed=seed)):
            path = folder / name / CLASSES[i % len(CLASSES)] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)
    return folder


@pytest.fixture(autouse=True)
def _short_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_verdicts(monkeypatch)


def _write_settings(folder: Path, pair: PairFolder) -> None:
    lines = [f'{name} = "{getattr(pair, name)}"' for name in ("theta_0", "theta_1", "classes", "templates")]
    (folder / "adawise.toml").write_text("[model]\nprecision = 'fp32'\n" + "\n".join(lines) + "\n")


def adawise(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.chdir(folder)
    return main(list(arguments))


@pytest.fixture(scope="module")
def plain(folder: Path) -> str:
    """A card of the own images, made once; not to be changed by a test, nor its heads."""
    with pytest.MonkeyPatch.context() as patch:
        assert adawise(folder, patch, "card", "make", "--labelled", "own", "-o", "plain.json") == 0
    return "plain.json"


@pytest.fixture(scope="module")
def foggy(folder: Path) -> str:
    """A card of the own images and of foggy ones; not to be changed by a test."""
    with pytest.MonkeyPatch.context() as patch:
        shorten_verdicts(patch)
        flags = ("--labelled", "own", "--labelled-shifted", "shifted/fog", "-o", "foggy.json")
        assert adawise(folder, patch, "card", "make", *flags) == 0
    return "foggy.json"


def copied(folder: Path, card: str, name: str) -> Path:
    """A card with its heads under another name, for a test to change."""
    heads_path(folder / name).write_bytes(heads_path(folder / card).read_bytes())
    (folder / name).write_bytes((folder / card).read_bytes())
    return folder / name


def with_card(folder: Path, card: str) -> ModelSettings:
    return read((), environ={"ADAWISE_MODEL__CARD": card}, folder=folder, uses=frozenset()).checked().model


def test_a_card_judges_the_objectives_on_its_own_sample_and_on_each_shifted_condition(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    code = adawise(
        folder, monkeypatch, "card", "make", "--labelled", "own", "--labelled-shifted", "shifted", "-o", "c.json"
    )
    assert code == 0
    card = read_card(folder / "c.json")
    assert {(one.condition, one.objective) for one in card.judged} == {
        (condition, name) for condition in (OWN, "fog", "dusk") for name in NAMES
    }
    images = {one.condition: one.images for one in card.judged}
    assert images == {OWN: 30, "fog": 5, "dusk": 5}, "ten with the same labels each: taken for the same ten"
    out = capsys.readouterr().out
    assert f"Recommended, and used by search.objective = auto: {advise(card).objective}, because " in out
    assert " best " in out
    assert "arrier" in out


def test_answers_that_are_not_finite_make_no_card(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    pair = write_pair(tmp_path / "pair")
    weights = load_file(pair.weights(1))
    weights["visual.proj"] *= 1e38  # more than the number format holds, as with large activations in fp16
    save_file(weights, pair.weights(1))
    _write_settings(tmp_path, pair)
    assert adawise(tmp_path, monkeypatch, "card", "make", "--labelled", str(folder / "own"), "-o", "c.json") == 2
    assert "images are not finite. Set model.precision" in capsys.readouterr().err
    assert not (tmp_path / "c.json").exists()


def test_one_condition_may_be_given_without_a_folder_of_its_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    adawise(
        folder, monkeypatch, "card", "make", "--labelled", "own", "--labelled-shifted", "shifted/fog", "-o", "one.json"
    )
    assert {one.condition for one in read_card(folder / "one.json").judged} == {OWN, "fog"}
    assert "give --labelled-shifted" not in capsys.readouterr().out


@pytest.mark.parametrize("damaged", [1, 6])
def test_images_that_nobody_can_read_are_left_out_wherever_they_lie_and_a_card_of_none_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured, tmp_path: Path, damaged: int
) -> None:
    """Also if they are all that is held as pixels at once."""
    monkeypatch.setattr("adawise_lab.card.make._AT_ONCE", 1)
    for number, pixels in enumerate(random_images(6, seed=0)):
        path = tmp_path / "own" / CLASSES[number % len(CLASSES)] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)
        if number < damaged:
            path.write_bytes(b"no image")
    made = adawise(
        folder, monkeypatch, "card", "make", "--labelled", f"{tmp_path / 'own'}", "-o", f"{tmp_path / 'c.json'}"
    )
    if damaged < 6:
        assert made == 0
        assert read_card(tmp_path / "c.json").images == 6 - damaged
    else:
        assert made == 2
        assert f"none of 6 images from {tmp_path / 'own'}" in capsys.readouterr().err


def shots_of(folder: Path) -> list[Shot]:
    return [Shot(path.parent.name, path.read_bytes()) for path in sorted(folder.rglob("*.png"))]


@pytest.mark.parametrize("form", ["own.parquet", "recorded"])
def test_a_card_is_made_of_images_in_any_form(
    folder: Path, foggy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    shots = shots_of(folder / "own")
    if form == "recorded":
        write_recording(tmp_path / form, shots)
        write_recording(tmp_path / "shifted" / "fog", shots_of(folder / "shifted" / "fog"))
    else:
        write_parquet(tmp_path / form, [shot.png for shot in shots], [shot.label for shot in shots])
        fog = shots_of(folder / "shifted" / "fog")
        write_parquet(tmp_path / "shifted" / "fog.parquet", [shot.png for shot in fog], [shot.label for shot in fog])
    flags = ("--labelled", str(tmp_path / form), "--labelled-shifted", str(tmp_path / "shifted"))
    assert adawise(folder, monkeypatch, "card", "make", *flags, "-o", str(tmp_path / "card.json")) == 0
    one, other = read_card(folder / foggy), read_card(tmp_path / "card.json")
    assert other.images == one.images
    assert other.temperature == pytest.approx(one.temperature)
    assert [(results.condition, results.images) for results in other.judged] == [
        (results.condition, results.images) for results in one.judged
    ]


def test_recorded_images_of_other_classes_are_left_out_of_a_card_and_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    shots = shots_of(folder / "own")
    write_recording(tmp_path / "mixed", [Shot("zeppelin", shots[0].png), *shots[1:]])
    flags = ("--labelled", str(tmp_path / "mixed"), "-o", str(tmp_path / "card.json"))
    assert adawise(folder, monkeypatch, "card", "make", *flags) == 0
    assert read_card(tmp_path / "card.json").images == len(shots) - 1
    assert "'zeppelin' is not among" in "".join(capsys.readouterr())


def test_a_class_that_the_pair_does_not_know_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    assert adawise(folder, monkeypatch, "card", "make", "--labelled", "shifted", "-o", "x.json") == 2
    assert "--labelled shifted: the labels 'dusk', 'fog' are not among the" in capsys.readouterr().err


def test_without_shifted_images_the_card_says_how_little_that_tells(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    adawise(folder, monkeypatch, "card", "make", "--labelled", "own", "-o", "plain.json")
    assert "give --labelled-shifted FOLDER" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(("temperature", "meant"), [(0.8, "tsallis"), (1.2, "relative")])
def test_auto_is_what_the_card_recommends_and_its_states_and_fingerprints_are_those_of_that_name(
    folder: Path, plain: str, monkeypatch: pytest.MonkeyPatch, temperature: float, meant: str
) -> None:
    monkeypatch.chdir(folder)
    made = read_card(folder / plain)
    interval = temperature - 0.1, temperature + 0.1
    card = replace(made, temperature=(*made.temperature[:-1], temperature), fine_tuned_interval=interval)
    (folder / "auto.json").write_text(card.to_json())
    heads_path(folder / "auto.json").write_bytes(heads_path(folder / plain).read_bytes())
    by_name = {name: with_objective(folder, name) for name in ("auto", *NAMES)}
    model = load_model(by_name["auto"].model, by_name["auto"].decode)
    keys = {name: adaptation(settings, model).strategy.key for name, settings in by_name.items()}
    prints = {name: config_fingerprint(settings, model) for name, settings in by_name.items()}
    assert [name for name in NAMES if keys[name] == keys["auto"]] == [meant]
    assert [name for name in NAMES if prints[name] == prints["auto"]] == [meant]
    assert describe(by_name["auto"], model)["objective"] == meant


def with_objective(folder: Path, name: str) -> Settings:
    environ = {"ADAWISE_MODEL__CARD": "auto.json", "ADAWISE_SEARCH__OBJECTIVE": name}
    return read((), environ=environ, folder=folder, uses=frozenset()).checked()


def test_a_worker_takes_the_heads_from_beside_the_card_and_does_without_where_they_are_missing(
    folder: Path, plain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    copied(folder, plain, "h.json")
    settings = with_card(folder, "h.json")
    encoded: list[float] = []
    encode = Prompts.encode

    def counted(self: Prompts, alpha: float, where: torch.device) -> Encoding:
        encoded.append(alpha)
        return encode(self, alpha, where)

    monkeypatch.setattr(Prompts, "encode", counted)
    load_model(settings, DecodeSettings()).classifier.warm_up()
    assert encoded == []
    heads_path(folder / "h.json").unlink()
    without = settings.model_copy(update={"cache_mib": 0})
    load_model(without, DecodeSettings()).classifier.warm_up(10)
    assert encoded == [0.5]


@pytest.mark.check("lab")
@pytest.mark.parametrize(
    ("setting", "flags"),
    [
        ({"orientation": "apply"}, ("--decode.orientation", "apply")),
        ({"grey16_range": "7-9"}, ("--decode.grey16-range", "7-9")),
        ({"reduced": True}, ("--decode.reduced",)),
    ],
)
def test_a_card_of_pictures_that_are_read_otherwise_is_taken_and_told(
    folder: Path,
    plain: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
    setting: dict[str, object],
    flags: tuple[str, ...],
) -> None:
    """The other way round, too; and results that may differ do not look alike."""
    assert plain == "plain.json"
    others = DecodeSettings.model_validate(setting)
    assert adawise(folder, monkeypatch, "card", "make", "--labelled", "own", "-o", "other.json", *flags) == 0
    capsys.readouterr()
    models = {}
    for card, decode in (
        ("plain", others),
        ("other", others),
        ("other", DecodeSettings()),
        ("plain", DecodeSettings()),
    ):
        is_other = (card == "other") != (decode is others)
        models[card, decode is others] = model = load_model(with_card(folder, f"{card}.json"), decode)
        assert model.card is not None
        assert ("card_made_otherwise" in "".join(capsys.readouterr())) == is_other
    assert models["plain", True].classifier.fingerprint != models["plain", False].classifier.fingerprint
    settings = [Settings(decode=decode) for decode in (others, DecodeSettings())]
    assert len({config_fingerprint(one, models["plain", False]) for one in settings}) == 2


def test_heads_of_another_card_stop_the_worker_with_the_remedy(
    folder: Path, plain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    heads_path(copied(folder, plain, "d.json")).write_bytes(b"of another")
    with pytest.raises(CardError, match=r"d\.heads\.safetensors: expected heads with hash .*Delete it"):
        load_model(with_card(folder, "d.json"), DecodeSettings())


def test_the_card_as_json_holds_all_that_was_measured(
    folder: Path, plain: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    capsys.readouterr()
    adawise(folder, monkeypatch, "card", "show", plain, "--json")
    shown = json.loads(capsys.readouterr().out)
    assert shown["format"] == 5
    assert len(shown["threshold"]) == 21
    assert {one["objective"] for one in shown["judged"]} == set(NAMES)


@pytest.mark.parametrize("given", ["nowhere", "empty"])
def test_a_folder_of_shifted_images_that_has_none_is_named_with_its_flag(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured, given: str
) -> None:
    (folder / "empty").mkdir(exist_ok=True)
    assert (
        adawise(folder, monkeypatch, "card", "make", "--labelled", "own", "--labelled-shifted", given, "-o", "x.json")
        == 2
    )
    assert f"--labelled-shifted {given}" in capsys.readouterr().err
    assert not (folder / "x.json").exists()


def test_a_verdict_fits_a_terminal_of_80_columns_and_few_images_are_never_sure() -> None:
    groups = tuple(GroupVerdict(name, 6, 2, 0.5, 1.0, 1.0, 1.0) for name in ("home", "shifted", "new"))
    fields = PairVerdict("calibrated_tsallis", 0.5, 1.0, 0.45, 1.0, 1.0, (0.0, 0.0, 0.0), groups)
    console = Console(width=80, file=io.StringIO())
    console.print(verdict_table(fields))
    assert isinstance(console.file, io.StringIO)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert lines[-2].startswith("classes left out")
    assert lines[-2].endswith("1.000 ±.377")


def test_cameras_that_see_all_conditions_at_once_are_told_of_where_a_fixed_alpha_serves_them_more() -> None:
    fields = PairVerdict("tsallis", 0.5, 0.6, 0.45, 0.62, 0.65, (0.03, 0.01, 0.05), (), (-0.017, -0.03, -0.004))
    assert verdict_text(fields).endswith(
        "Recommended: adapt, as search.strategy = auto does. Where every batch of a camera mixes all of these, it "
        "serves -1.7 points "
        '(95 %: -3.0 to -0.4): for such cameras set search.strategy = "fixed" and search.alpha = 0.45.'
    )
    for draw in (None, (-0.017, -0.03, 0.001)):
        assert verdict_text(replace(fields, mixed_gain=draw)).endswith(
            "Recommended: adapt, as search.strategy = auto does."
        )


@pytest.mark.parametrize(
    ("changes", "alpha", "served", "is_auto", "words"),
    [
        ({}, None, 0.65, True, r"hindsight, 0\.45\. Recommended: adapt, as search\.strategy = auto does\.$"),
        ({"gain": (0.03, -0.01, 0.05)}, None, 0.65, True, "hindsight, 0.45, which is a draw. Recommended: adapt"),
        ({"gain": (-0.03, -0.05, -0.01)}, 0.45, 0.62, True, "0.45 for all images, as search.strategy = auto does"),
        (
            {"gain": (-0.03, -0.05, -0.01), "fixed_alpha": 0.0, "best_fixed": 0.5},
            *(0.0, 0.5, True, "Recommended: theta_0 alone, as search.strategy = auto does"),
        ),
        (
            {"adapted": 0.501, "gain": (-0.001, -0.02, 0.02), "fixed_alpha": 0.0, "best_fixed": 0.5},
            *(
                0.0,
                0.5,
                False,
                r'which is a draw\. Recommended: theta_0 alone, by search\.strategy = "fixed" and search',
            ),
        ),
        (
            {"adapted": 0.501, "gain": (-0.119, -0.24, 0.002)},
            *(
                0.45,
                0.62,
                False,
                r"alpha 0\.45 for all images, by .* = 0\.45: it serves \.620, and adapted",
            ),
        ),
        (
            {"adapted": 0.501, "gain": (0.0, -0.02, 0.02), "best_fixed": 0.501},
            *(0.0, 0.5, False, "Recommended: theta_0 alone"),
        ),
    ],
)
def test_there_is_one_recommendation(
    changes: dict[str, Any], alpha: float | None, served: float, is_auto: bool, words: str
) -> None:
    fields = PairVerdict("tsallis", 0.5, 0.6, 0.45, 0.62, 0.65, (0.03, 0.01, 0.05), (), None)
    fields = replace(fields, **changes)
    assert recommend(fields) == Recommendation(alpha, served, is_auto)
    text = verdict_text(fields)
    assert re.search(words, text), text
    assert text.count("Recommended") == 1
    if is_auto:
        assert alpha == advised_alpha(fields)


def test_the_price_of_a_second_alpha_is_shown_where_the_models_share_layers(capsys: Captured) -> None:
    for share, sentence in ((1.0, ""), (0.0053, "an image at a second alpha costs 0.005 of a forward.")):
        print_card(replace(a_card(temperature=1.0), tail_share=share), "a card")
        shown = " ".join(capsys.readouterr().out.split())
        assert sentence in shown
        assert ("second alpha" in shown) == bool(sentence)


def test_shifted_images_that_are_too_few_to_judge_objectives_by_are_not_asked_for_again(capsys: Captured) -> None:
    card = a_card(temperature=1.0)
    for shifted, needs_broker in (((), True), (card.temperature, False)):
        print_card(replace(card, shifted_temperature=shifted), "a card")
        assert ("give --labelled-shifted FOLDER" in capsys.readouterr().out) == needs_broker


def test_a_card_says_what_an_image_costs_at_a_second_alpha_if_layers_are_shared(capsys: Captured) -> None:
    card = a_card(temperature=1.0)
    for share, is_said in ((1.0, False), (0.25, True)):
        print_card(replace(card, tail_share=share), "a card")
        out = " ".join(capsys.readouterr().out.split())
        assert ("have equal first layers: an image at a second alpha costs 0.25 of a forward." in out) == is_said
