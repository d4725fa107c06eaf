"""What the doctor says of class names, prompts, the pair and its card."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from adawise.app.model import ModelPair
from adawise.app.pairs import document_of
from adawise.app.parts import scene_digest
from adawise.app.precision import PrecisionChoice
from adawise.card.card import PairVerdict, SceneProof, read_card
from adawise.clip import classifier as clip_classifier
from adawise.clip import device as clip_device
from adawise.doctor import model as module
from adawise.doctor import model as pair_module
from adawise.doctor.known import CheckResult, Known
from adawise.doctor.model import number_format, verdict
from adawise.errors import CardError, CheckpointError, SettingsError
from adawise.settings import SceneSettings, Settings
from adawise.sink.served_by import claim_precision
from adawise.store.store import open_store
from tests.models import PairFolder, write_pair


def facts(pair: PairFolder, folder: Path, **changes: Any) -> Known:
    model = {
        "architecture": pair.theta_0,
        "theta_0": pair.theta_0,
        "theta_1": pair.theta_1,
        "classes": pair.classes,
        "device": "cpu",
        "precision": "fp32",
        **changes,
    }
    return Known(Settings.model_validate({"model": model, "sink": {"root": str(folder / "out")}}))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["traffic light", "Traffic_Light", "car"], "'traffic light' and 'Traffic_Light' read the same to the model"),
        (["fire_truck", "0", "1", "car", "17"], "'fire_truck', '0', '1' and 1 more are not words"),
        (["fire_truck", "car"], "as written in a prompt, such as 'a photo of a fire_truck.'"),
        (["car", "a bus " * 20], "are too long for a prompt and are cut off"),
    ],
)
def test_class_names_that_the_model_reads_otherwise_are_a_warning(
    lines: list[str], expected: str, pair_folder: PairFolder, tmp_path: Path
) -> None:
    (tmp_path / "classes.txt").write_text("\n".join(lines))
    answer = module.words(facts(pair_folder, tmp_path, classes=tmp_path / "classes.txt"))
    assert answer.status == "warn"
    assert expected in answer.detail


@pytest.mark.parametrize(
    ("lines", "expected"),
    [(["car"], "has one class, 'car'"), (["car", "bus", "car"], "'car' twice"), ([], "found none")],
)
def test_class_names_that_tell_nothing_apart_fail(
    lines: list[str], expected: str, pair_folder: PairFolder, tmp_path: Path
) -> None:
    (tmp_path / "classes.txt").write_text("\n".join(lines))
    with pytest.raises(SettingsError, match=expected):
        module.words(facts(pair_folder, tmp_path, classes=tmp_path / "classes.txt"))


def test_a_prompt_without_a_place_for_the_class_fails(pair_folder: PairFolder, tmp_path: Path) -> None:
    (tmp_path / "templates.txt").write_text("a photo")
    with pytest.raises(SettingsError, match=r"expected \{\} for the class name in 'a photo'"):
        module.words(facts(pair_folder, tmp_path, templates=tmp_path / "templates.txt"))
    assert module.words(facts(pair_folder, tmp_path)) == CheckResult("ok", "5 classes, 6 prompts each")


def test_a_pair_is_told_with_its_hashes_and_kept_for_the_parts_that_follow(
    pair_folder: PairFolder, tmp_path: Path
) -> None:
    known = facts(pair_folder, tmp_path)
    answer = module.pair(known)
    assert answer.status == "ok"
    assert known.model is not None
    zero, one = known.model.checkpoints.hashes
    assert answer.detail.startswith("5 classes on cpu in float32, 21 of 21 merged copies, no card")
    assert answer.detail.endswith(f"; weights {zero} and {one}")


def test_a_fixed_alpha_is_told_and_who_decided_it(pair_folder: PairFolder, card: Path, tmp_path: Path) -> None:
    assert ", adapts by tsallis; " in module.pair(facts(pair_folder, tmp_path)).detail
    verdict = PairVerdict("tsallis", 0.5, 0.6, 0.45, 0.7, 0.6, (-0.1, -0.2, -0.05), ())
    path = tmp_path / "card.json"
    path.write_text(replace(read_card(card), verdict=verdict).to_json())
    found = module.pair(facts(pair_folder, tmp_path, card=path)).detail
    assert ", a fixed alpha of 0.45, as the card advises; " in found
    assert "adapts" not in found
    known = facts(pair_folder, tmp_path, card=path)
    fixed = known.settings.search.model_copy(update={"strategy": "fixed", "alpha": 0.33})
    known.settings = known.settings.model_copy(update={"search": fixed})
    assert ", a fixed alpha of 0.35, as search.alpha says; " in module.pair(known).detail


def test_a_pair_that_was_switched_to_is_told_with_how_its_alpha_is_chosen(
    pair_folder: PairFolder, tmp_path: Path
) -> None:
    from adawise.pairs.orders import give_order, read_orders
    from adawise.store.store import open_store

    store, known = open_store(str(tmp_path / "out")), facts(pair_folder, tmp_path)
    module.pair(known)
    assert known.model is not None
    ours = document_of(known.settings, known.model, ("a {}.",))
    assert ours.method == "adapts by tsallis"
    other = replace(
        ours, identity={**ours.identity, "theta_1": "other"}, method="a fixed alpha of 0.45, as the card advises"
    )
    orders = give_order(store, read_orders(store), "begin", pair=ours, by="worker")
    give_order(store, give_order(store, orders, "stage", pair=other, by="ann"), "switch", pair=1, by="ann")
    answer = module.pair(facts(pair_folder, tmp_path))
    assert answer.status == "warn"
    assert ", adapts by tsallis; nothing is shared (" in answer.detail, "of the pair that is set, too"
    assert f"pair 1 serves {tmp_path}/out since a switch, a fixed alpha of 0.45, as the card advises: " in answer.detail


def test_two_checkpoints_of_the_same_weights_fail(pair_folder: PairFolder, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="hold the same weights, so every alpha is the same model"):
        module.pair(facts(pair_folder, tmp_path, theta_1=pair_folder.theta_0))


def test_a_checkpoint_that_does_not_load_fails(pair_folder: PairFolder, tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"not tensors")
    with pytest.raises(CheckpointError, match=r"model\.theta_1: .*broken\.safetensors does not load"):
        module.pair(facts(pair_folder, tmp_path, theta_1=str(tmp_path / "broken.safetensors")))


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory, pair_folder: PairFolder) -> Path:
    """A card of the pair, made by the program."""
    from PIL import Image

    from adawise.__main__ import main

    folder = tmp_path_factory.mktemp("card")
    for number, name in enumerate(("car", "bus", "bicycle", "person", "empty street")):
        (folder / "images" / name).mkdir(parents=True)
        for shade in range(4):
            color = (50 * number, 60 * shade, 90)
            Image.new("RGB", (40, 40), color).save(folder / "images" / name / f"{shade}.png")
    flags = ["--model.architecture", pair_folder.theta_0, "--model.theta-0", pair_folder.theta_0]
    flags += ["--model.theta-1", pair_folder.theta_1, "--model.classes", str(pair_folder.classes)]
    flags += ["--model.device", "cpu", "--model.precision", "fp32"]
    assert main(["card", "make", "--labelled", str(folder / "images"), "-o", str(folder / "card.json"), *flags]) == 0
    return folder / "card.json"


def test_a_card_of_other_pictures_is_a_warning_and_one_of_another_pair_fails(
    pair_folder: PairFolder, card: Path, tmp_path: Path
) -> None:
    answer = module.pair(facts(pair_folder, tmp_path, card=card))
    assert answer.status == "ok"
    assert f"card {read_card(card).digest}" in answer.detail
    turned = facts(pair_folder, tmp_path, card=card)
    turned.settings = Settings.model_validate(turned.settings.model_dump() | {"decode": {"orientation": "apply"}})
    answer = module.pair(turned)
    assert answer.status == "warn"
    assert f"model.card {card}: the card was made with other decode.orientation" in answer.detail
    with pytest.raises(CardError, match="the card belongs to another pair"):
        module.pair(facts(write_pair(tmp_path / "other", seed=1), tmp_path, card=card))
    damaged = tmp_path / "damaged.json"
    damaged.write_text(json.dumps({"layout": 99}))
    with pytest.raises(CardError):
        module.pair(facts(pair_folder, tmp_path, card=damaged))


def test_a_scene_that_no_labels_prove_fails_before_a_worker_does(
    pair_folder: PairFolder, card: Path, tmp_path: Path
) -> None:
    proven = tmp_path / "proven.json"
    scene = SceneSettings(prior="served")
    proof = SceneProof(scene_digest(scene), 0.6, (0.05, 0.01, 0.09), "north", 0.02, -0.01, 500, 80, 3, True, "then")
    proven.write_text(replace(read_card(card), scene=proof).to_json())
    for place, refused in ((card, True), (proven, False)):
        known = facts(pair_folder, tmp_path, card=place)
        known.settings = known.settings.model_copy(update={"scene": scene})
        if refused:
            with pytest.raises(SettingsError, match=r"scene\.prior = served needs labels .* has no comparison"):
                module.pair(known)
        else:
            assert module.pair(known).status == "ok"


def test_a_card_beside_theta_1_that_no_setting_names_is_a_warning(card: Path, tmp_path: Path) -> None:
    beside = write_pair(tmp_path / "pair")
    theta_1 = Path(beside.theta_1.removeprefix("local-dir:"))
    assert module.pair(facts(beside, tmp_path)).status == "ok"
    written = theta_1.parent / "card.json"
    written.write_bytes(card.read_bytes())
    answer = module.pair(facts(beside, tmp_path))
    assert answer.status == "warn"
    assert f"may serve less than theta_0: set model.card = {json.dumps(str(written))}" in answer.detail
    assert module.pair(facts(beside, tmp_path, card=written)).status == "ok"
    fixed = facts(beside, tmp_path)
    search = fixed.settings.search.model_copy(update={"strategy": "fixed"})
    fixed.settings = fixed.settings.model_copy(update={"search": search})
    assert module.pair(fixed).status == "ok"


@pytest.mark.parametrize("content", ["", "{}", "of another pair"])
def test_a_file_beside_theta_1_that_is_no_card_of_this_pair_is_not_recommended(
    card: Path, tmp_path: Path, content: str
) -> None:
    other = write_pair(tmp_path / "pair", seed=1)
    beside = Path(other.theta_1.removeprefix("local-dir:")).parent / "card.json"
    beside.write_text(content if content != "of another pair" else card.read_text())
    assert module.pair(facts(other, tmp_path)).status == "ok"


def test_a_root_that_another_pair_has_written_fails_unless_it_is_said_what_becomes_of_the_streams(
    pair_folder: PairFolder, tmp_path: Path
) -> None:
    from adawise.app.model import identity_of
    from adawise.sink.served_by import claim_pair
    from adawise.store.store import open_store

    other = facts(write_pair(tmp_path / "other", seed=1), tmp_path)
    module.pair(other)
    assert other.model is not None
    claim_pair(open_store(str(tmp_path / "out")), identity_of(other.model), "refuse")
    with pytest.raises(SettingsError, match="was written with another pair"):
        module.pair(facts(pair_folder, tmp_path))
    answer = module.pair(facts(pair_folder, tmp_path, on_change="reset"))
    assert answer.status == "warn"
    assert f"differ from those that {tmp_path}/out was written with: every stream starts anew" in answer.detail


def test_the_preprocessing_is_told_with_where_it_is_known_from_and_a_guess_is_a_warning(
    pair_folder: PairFolder, tmp_path: Path
) -> None:
    known = facts(pair_folder, tmp_path, resize_mode="squash")
    module.pair(known)
    config = f"{pair_folder.theta_0.removeprefix('local-dir:')}/open_clip_config.json"
    assert module.preprocessing(known) == CheckResult(
        "ok",
        f"32 px; mean 0.48,0.45,0.4, std 0.27,0.26,0.28, interpolation bicubic, quick_gelu false ({config}); "
        "resize_mode squash (model.resize_mode)",
    )
    bare = write_pair(tmp_path / "bare")
    for theta in (bare.theta_0, bare.theta_1):
        path = Path(theta.removeprefix("local-dir:")) / "open_clip_config.json"
        path.write_text(json.dumps({"model_cfg": json.loads(path.read_text())["model_cfg"]}))
    known = facts(bare, tmp_path, mean="0.5,0.5,0.5", std="0.5,0.5,0.5", interpolation="bicubic")
    module.pair(known)
    answer = module.preprocessing(known)
    assert answer.status == "warn"
    assert "resize_mode shortest (guessed)" in answer.detail
    assert answer.detail.endswith("set model.resize_mode")


RATES = {"fp32": 72.04, "bf16": 51.3}
BOTH = "fp32 is the faster one here: 72 images/s, bf16 51.3; the rule for this processor chooses"


@pytest.mark.parametrize(
    ("rates", "chosen", "rule", "is_set", "expected"),
    [
        (RATES, "fp32", "fp32", False, ("ok", f"{BOTH} fp32, and a worker uses fp32 by the rule")),
        (RATES, "fp32", "bf16", True, ("ok", f"{BOTH} bf16, and a worker uses fp32 by model.precision")),
        (
            RATES,
            "bf16",
            "bf16",
            False,
            ("warn", f"{BOTH} bf16, and a worker uses bf16 by the rule. Set model.precision"),
        ),
        (RATES, "bf16", "fp32", False, ("warn", f"{BOTH} fp32, and a worker uses bf16 as this root is served. Set ")),
        ({"fp32": 109.0, "bf16": 100.0}, "bf16", "bf16", False, ("ok", "fp32 is the faster one here: 109 images/s")),
    ],
)
def test_a_format_that_is_slower_by_more_than_a_tenth_is_a_warning_that_names_the_setting(
    rates: dict[str, float], chosen: str, rule: str, is_set: bool, expected: tuple[str, str]
) -> None:
    answer = verdict(rates, chosen, rule, is_set=is_set)
    assert answer.status == expected[0]
    assert answer.detail.startswith(expected[1])
    if answer.status == "warn":
        assert "Set model.precision to fp32 for all workers of the group" in answer.detail


class Time:
    """Moves with each forward."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.of_forwards_s = {torch.float32: 0.1, torch.bfloat16: 0.2}
        self.forwards = {torch.float32: 0, torch.bfloat16: 0}

    def clock(self) -> float:
        return self.now_s


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    """A forward takes .1 s in fp32 and .2 in bf16."""
    time, real = Time(), clip_classifier.forward_in

    def forward_in(pair: object, dtype: torch.dtype, where: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
        forward = real(pair, dtype, where)  # type: ignore[arg-type]

        def timed(chunk: torch.Tensor) -> torch.Tensor:
            time.now_s += time.of_forwards_s[dtype]
            time.forwards[dtype] += 1
            return forward(chunk)

        return timed

    monkeypatch.setattr(clip_classifier, "forward_in", forward_in)
    return time


def loaded(pair: PairFolder, folder: Path, precision: str) -> Known:
    model = {"architecture": pair.theta_0, "theta_0": pair.theta_0, "theta_1": pair.theta_1, "classes": pair.classes}
    model |= {"device": "cpu", "precision": precision, "cache_mib": 0}
    known = Known(Settings.model_validate({"model": model, "sink": {"root": str(folder / "out")}}))
    assert pair_module.pair(known).status == "ok"
    return known


def test_both_formats_are_measured_in_turns_for_two_seconds_at_the_chunk_size(
    pair_folder: PairFolder, tmp_path: Path, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip_device, "vendor", lambda: "AuthenticAMD")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    claim_precision(open_store(str(tmp_path / "out")), "bf16")
    known = loaded(pair_folder, tmp_path, "auto")
    assert known.model is not None
    assert known.model.classifier.dtype == torch.bfloat16
    answer = number_format(known, time.clock)
    # turns of .3 s fill 2 s, of which the first does not count
    assert time.forwards == {torch.float32: 7, torch.bfloat16: 7}
    assert answer.status == "warn"
    assert answer.detail.startswith(
        "fp32 is the faster one here: 80 images/s, bf16 40; the rule for this processor chooses bf16, "
    )


@pytest.mark.parametrize(("of_bf16_s", "forwards"), [(1.5, 4), (4.0, 2), (60.0, 1)])
def test_the_measurement_of_a_large_tower_ends_within_the_time_of_the_part(
    pair_folder: PairFolder, tmp_path: Path, time: Time, of_bf16_s: float, forwards: int
) -> None:
    time.of_forwards_s = {torch.float32: 1.0, torch.bfloat16: of_bf16_s}
    answer = number_format(loaded(pair_folder, tmp_path, "fp32"), time.clock)
    assert time.forwards == {torch.float32: forwards, torch.bfloat16: forwards}
    assert answer.detail.startswith(f"fp32 is the faster one here: 8 images/s, bf16 {8 / of_bf16_s:.3g}; ")


def test_a_format_that_is_set_is_compared_too(pair_folder: PairFolder, tmp_path: Path, time: Time) -> None:
    assert number_format(loaded(pair_folder, tmp_path, "fp32"), time.clock).status == "ok"
    answer = number_format(loaded(pair_folder, tmp_path, "bf16"), time.clock)
    assert answer.status == "warn"
    assert "a worker uses bf16 by model.precision. Set model.precision to fp32" in answer.detail


def test_without_a_pair_or_on_a_card_nothing_is_measured() -> None:
    known = Known(Settings())
    assert number_format(known).status == "skip"
    card = SimpleNamespace(where=torch.device("cuda:0"))
    known.model = cast(ModelPair, SimpleNamespace(classifier=SimpleNamespace(device=card)))
    known.precision = cast(PrecisionChoice, SimpleNamespace(chosen="bf16"))
    assert number_format(known) == CheckResult("ok", "bf16; formats are compared on processors alone")
