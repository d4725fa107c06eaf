from __future__ import annotations

import json
import reprlib
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adawise.adapt.objective import NAMES, atc, entropy, relative, tsallis
from adawise.adapt.search import BatchTrials
from adawise.card.advice import chosen
from adawise.card.calibration import serving_ratio
from adawise.card.card import (
    BIASED,
    Card,
    Condition,
    FewThreshold,
    FittedSearch,
    GroupVerdict,
    LabelBias,
    ObjectiveResult,
    PairVerdict,
    SceneProof,
    make_card,
    read_card,
    with_few,
)
from adawise.errors import CardError
from tests.card.test_calibration import ends, sample

ALPHAS = (0.0, 0.5, 1.0)
IDENTITY = {"theta_0": "0" * 16, "theta_1": "1" * 16, "classes": "2" * 16}


def a_card(**changes: Any) -> Card:
    logits, labels = sample(500, 1.0)
    card = make_card(
        lambda j: logits * (1.0 + j), labels, alphas=ALPHAS, identity=IDENTITY, created_at="2025-01-01T00:00:00Z"
    )
    return replace(card, **changes)


GOOD = a_card()
GROUP = GroupVerdict("home", 1, 150, 0.5, 0.6, 0.62, 0.63)
VERDICT = PairVerdict("entropy", 0.5, 0.6, 0.5, 0.62, 0.63, (0.01, -0.01, 0.02), (GROUP,))


def write(folder: Path, content: str) -> Path:
    path = folder / "card.json"
    path.write_text(content, encoding="utf-8")
    return path


def test_a_card_says_per_alpha_what_the_labelled_sample_says() -> None:
    logits, labels = sample(4000, 1.0)
    scales = (1.0, 0.5, 4.0)
    card = make_card(lambda j: (logits * scales[j]).float(), labels, alphas=ALPHAS, identity=IDENTITY, created_at="now")
    accuracy = float((logits.argmax(dim=-1) == labels).double().mean())
    np.testing.assert_allclose(card.temperature, scales, rtol=0.05)
    np.testing.assert_allclose(card.accuracy, [accuracy] * 3, atol=1e-3)
    np.testing.assert_allclose(card.reference_entropy, [entropy(logits).mean()] * 3, rtol=0.03)
    np.testing.assert_allclose(card.nll, [float(torch.nn.functional.cross_entropy(logits, labels))] * 3, rtol=1e-3)
    assert max(card.ece) < 0.03
    assert card.ece_raw[0] < 0.03
    assert card.ece_raw[1] > 0.1  # too warm
    assert card.ece_raw[2] > 0.1  # over-confident
    assert card.images == 4000


def test_under_shift_both_ends_are_fitted_to_every_condition_and_what_lies_between_is_on_a_line_of_logarithms() -> None:
    logits, labels = sample(3000, 1.0)
    scales, shifted_scales = (1.0, 0.7, 1.5), (1.0, 0.1, 3.0)
    fog = Condition("fog", lambda j: logits * shifted_scales[j], labels)
    card = make_card(lambda j: logits * scales[j], labels, [fog], alphas=ALPHAS, identity=IDENTITY, created_at="now")
    zero, half, one = card.shifted_temperature
    assert zero == pytest.approx(1.0, rel=0.05)
    assert 1.6 < one < 2.9
    assert half == pytest.approx((zero * one) ** 0.5)
    assert make_card(fog.logits, labels, alphas=ALPHAS, identity=IDENTITY, created_at="").shifted_temperature == ()


def test_under_shifts_of_both_kinds_the_fine_tuned_end_has_the_temperature_that_serves_most() -> None:
    known, unknown = ends((0.5, 0.7, 0.8), (3.0, 5.0, 7.0), 1), ends((0.8, 0.6, 0.3), (3.0, 3.2, 3.5), 2)
    new = Condition("new", *unknown)
    card = make_card(*known, [new], alphas=ALPHAS, identity=IDENTITY, created_at="now")
    zero, half, one = card.shifted_temperature
    assert one / zero == serving_ratio([known, unknown], ALPHAS, zero)
    assert half == pytest.approx((zero * one) ** 0.5)
    assert card.trusts("calibrated_tsallis")
    assert not card.trusts("tsallis")
    alone = make_card(*known, alphas=ALPHAS, identity=IDENTITY, created_at="")
    assert not alone.trusts("calibrated_tsallis")
    of_one_kind = make_card(*known, [Condition("known", *known)], alphas=ALPHAS, identity=IDENTITY, created_at="")
    assert of_one_kind.shifted_temperature
    assert not of_one_kind.trusts("calibrated_tsallis"), "nothing was seen where fine-tuned weights are sure and wrong"
    other = make_card(*known, like=card, alphas=ALPHAS, identity=IDENTITY, created_at="")
    assert other.shifted_temperature == card.shifted_temperature
    assert other.trusts("calibrated_tsallis")


def test_a_card_of_format_5_that_does_not_say_whether_it_tells_ends_apart_does_not(tmp_path: Path) -> None:
    content = json.loads(replace(a_card(), tells_ends_apart=True).to_json())
    assert read_card(write(tmp_path, json.dumps(content))).tells_ends_apart
    del content["tells_ends_apart"]
    assert not read_card(write(tmp_path, json.dumps(content))).tells_ends_apart


def test_a_card_knows_the_mean_of_each_objective_on_its_sample() -> None:
    logits, labels = sample(400, 1.0)
    scales = (1.0, 0.5, 4.0)
    card = make_card(lambda j: (logits * scales[j]).float(), labels, alphas=ALPHAS, identity=IDENTITY, created_at="now")
    assert set(card.levels) == set(NAMES)
    np.testing.assert_allclose(card.levels["entropy"], [entropy(logits * s).mean() for s in scales], rtol=1e-4)
    np.testing.assert_allclose(card.levels["tsallis"], [tsallis(logits * s, 0).mean() for s in scales], rtol=1e-4)
    np.testing.assert_allclose(card.levels["calibrated_entropy"], card.reference_entropy, rtol=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.37, 1.0])
def test_on_the_cards_own_sample_atc_expects_as_many_errors_as_there_are(share: float) -> None:
    logits = 2.0 * torch.randn(400, 6, generator=torch.Generator().manual_seed(4))
    labels = logits.argmax(dim=-1)
    wrong = round((1.0 - share) * 400)
    labels[:wrong] = (labels[:wrong] + 1) % 6
    card = make_card(lambda j: logits, labels, alphas=ALPHAS, identity=IDENTITY, created_at="now")
    assert card.objective("atc")(logits, 1).sum() == wrong


def test_a_card_makes_every_objective() -> None:
    card, logits = a_card(), sample(20, 1.0)[0]
    expected = {
        "tsallis": tsallis(logits, 2),
        "calibrated_tsallis": tsallis(logits / card.temperature[2], 2),
        "entropy": entropy(logits),
        "calibrated_entropy": entropy(logits, card.temperature[2]),
        "relative": relative(card.temperature, card.reference_entropy)(logits, 2),
        "atc": atc(card.temperature, card.threshold)(logits, 2),
    }
    for name in NAMES:
        np.testing.assert_array_equal(card.objective(name)(logits, 2), expected[name])
    shifted = replace(card, shifted_temperature=(1.0, 2.0, 3.0)).objective("calibrated_tsallis")
    np.testing.assert_array_equal(shifted(logits, 2), tsallis(logits / 3.0, 2))
    with pytest.raises(ValueError, match=r"expected one of tsallis, .*got 'hope'"):
        card.objective("hope")


def test_fitted_hyper_parameters_are_for_the_objective_that_they_were_fitted_to() -> None:
    card = a_card(search=FittedSearch("entropy", 40, 0.4, 0.1, 0.2, 0.9))
    surrogate = card.surrogate("entropy")
    assert surrogate is not None
    assert (surrogate.alphas, surrogate.lengthscale, surrogate.signal_sd) == (ALPHAS, 0.4, 0.1)
    assert (surrogate.offset_sd, surrogate.persistence) == (0.2, 0.9)
    assert card.surrogate("atc") is None
    assert a_card().surrogate("entropy") is None


def test_a_card_is_the_same_after_the_file(tmp_path: Path) -> None:
    card = a_card(
        judged=(ObjectiveResult("fog", 100, "entropy", 0.5, 0.6, 0.7, 0.5, 0.6),),
        search=FittedSearch("entropy", 40, 0.4, 0.1, 0.2, 0.9),
        shifted_temperature=(1.0, 1.1, 1.2),
        verdict=VERDICT,
    )
    back = read_card(write(tmp_path, card.to_json()))
    assert back == card
    assert back.digest == card.digest
    back.check(IDENTITY, ALPHAS)


def test_the_digest_changes_with_any_value() -> None:
    assert a_card().digest != a_card(temperature=(1.0, 1.0, 1.0)).digest


def test_the_best_alpha_is_the_most_accurate_and_the_lowest_of_equals() -> None:
    assert a_card(accuracy=(0.5, 0.7, 0.7)).best_alpha == 0.5
    assert a_card(accuracy=(0.7, 0.6, 0.7)).best_alpha == 0.0


def test_a_barrier_is_a_fall_of_more_than_a_point_below_the_worse_end() -> None:
    assert a_card(accuracy=(0.70, 0.68, 0.72)).has_barrier
    assert not a_card(accuracy=(0.70, 0.695, 0.72)).has_barrier
    assert not a_card(accuracy=(0.60, 0.65, 0.72)).has_barrier


@pytest.mark.parametrize("part", sorted(IDENTITY))
def test_a_card_of_another_pair_is_refused_with_the_part_that_differs(part: str) -> None:
    with pytest.raises(
        CardError, match=rf"belongs to another pair: its {part} is .* this pair's is 'other'.*adawise card"
    ):
        a_card().check({**IDENTITY, part: "other"}, ALPHAS)


def test_a_card_without_a_part_of_the_identity_is_refused() -> None:
    with pytest.raises(CardError, match="its preprocess is None"):
        a_card().check({**IDENTITY, "preprocess": "x"}, ALPHAS)


def test_a_card_for_another_grid_is_refused_with_both() -> None:
    with pytest.raises(
        CardError, match=r"for the alphas \[0\.0, 0\.5, 1\.0\], expected \[0\.0, 0\.4, 1\.0\].*adawise card"
    ):
        a_card().check(IDENTITY, (0.0, 0.4, 1.0))


def test_a_missing_card_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(CardError, match=r"none\.json: the card cannot be read \(No such file.*Make one: adawise card"):
        read_card(tmp_path / "none.json")


def test_another_format_is_refused_with_both_numbers(tmp_path: Path) -> None:
    path = write(tmp_path, json.dumps({**json.loads(a_card().to_json()), "format": 2}))
    with pytest.raises(CardError, match=r"expected a card of format 4 to 6, got 2\. Make one"):
        read_card(path)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "3", '"card"', "{}", '{"format": 4}', "[" * 100_000], ids=lambda c: c[:12]
)
def test_what_is_not_a_card_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(CardError, match=r"not a card.*Make one"):
        read_card(write(tmp_path, content))


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    path.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(CardError, match="not a card"):
        read_card(path)


@pytest.mark.parametrize("field", ["gain", "mixed_gain"])
@pytest.mark.parametrize(
    "gain",
    [
        [0.01, 0.02, -0.01],
        [0.01, 0.02, 0.03],
        [0.01, -0.01, 0.005],
        [float("nan")] * 3,
        [-0.05, -float("inf"), -0.01],
        [0.01, -0.01],
        0.01,
        "abc",
    ],
    ids=str,
)
def test_a_gain_outside_its_interval_is_refused_by_file_and_field(tmp_path: Path, field: str, gain: object) -> None:
    verdict = asdict(VERDICT) | {field: gain}
    path = write(tmp_path, json.dumps({**json.loads(a_card().to_json()), "verdict": verdict}))
    with pytest.raises(CardError) as refused:
        read_card(path)
    came = reprlib.repr(tuple(gain) if isinstance(gain, list) else gain)
    expected = f"verdict.{field}: expected a finite difference between its lower and upper end, got {came}"
    assert str(refused.value).startswith(f"{path}: not a card (")
    assert expected in str(refused.value).replace("\\'", "'")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tells_ends_apart", 1),
        ("tail_share", 0.0),
        ("tail_share", 5e-324),  # a budget divided by it is infinite
        ("tail_share", 1.5),
        ("tail_share", True),
        ("temperature", [1.0, 0.0, 1.0]),
        ("temperature", [1.0, -2.0, 1.0]),
        ("temperature", [1.0, 1.0]),
        ("temperature", ["1", "1", "1"]),
        ("temperature", 1.0),
        ("temperature", [1.0, float("nan"), 1.0]),
        ("accuracy", [0.5, None, 0.5]),
        ("alphas", []),
        ("ece", [0.1] * 4),
        ("identity", "theta"),
        ("threshold", [0.1, 0.2]),
        ("judged", [{"condition": "x"}]),
        ("judged", [asdict(ObjectiveResult("fog", 9, "hope", 0.5, 0.6, 0.7, 0.5, 0.6))]),
        ("judged", [asdict(ObjectiveResult("fog", 0, "entropy", 0.5, 0.6, 0.7, 0.5, 0.6))]),
        ("judged", [asdict(ObjectiveResult("fog", 9, "entropy", 0.5, 0.8, 0.7, 0.5, 0.6))]),
        ("judged", [asdict(ObjectiveResult("fog", 9, "entropy", 0.5, 0.6, 0.7, 0.5, 0.8))]),
        ("judged", [asdict(ObjectiveResult("fog", 9, "entropy", 0.5, 0.6, 0.7, -0.5, 0.6))]),
        ("levels", {"entropy": [0.1, 0.1, 0.1], "of no objective": [0.1, 0.1, 0.1]}),
        ("levels", [0.1]),
        ("levels", dict.fromkeys(NAMES, (0.1, 0.2))),
        ("search", {}),
        ("accuracy", [10**400, 0.5, 0.5]),
        ("accuracy", [True, 0.5, 0.5]),
        ("images", 10**400),
        ("images", "many"),
        ("created_at", 3),
        ("identity", {"theta_0": 3}),
        ("judged", [asdict(ObjectiveResult("fog", 9, "entropy", 0.5, 0.6, 0.7, float("nan"), 0.6))]),
        ("search", asdict(FittedSearch("entropy", 9, 10**400, 0.1, 0.2, 0.9))),
        ("search", asdict(FittedSearch("entropy", 9, 0.4, 0.1, 0.2, 1.0))),
        ("shifted_temperature", [1.0, 1.0]),
        ("fine_tuned_interval", [1.0, 0.9]),
        ("fine_tuned_interval", [1.0]),
        ("shifted_temperature", [1.0, -1.0, 1.0]),
        ("verdict", asdict(VERDICT) | {"fixed_alpha": 0.4}),
        ("verdict", asdict(VERDICT) | {"adapted": 1.5}),
        ("verdict", asdict(VERDICT) | {"groups": [asdict(GROUP) | {"images": 0}]}),
        ("verdict", asdict(VERDICT) | {"groups": [asdict(GROUP) | {"adapted": float("nan")}]}),
        ("verdict", asdict(VERDICT) | {"groups": [asdict(GROUP) | {"zero_shot": "x"}]}),
        ("search", asdict(FittedSearch("entropy", 9, -0.4, 0.1, 0.2, 0.9))),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_value_that_no_card_has_is_refused_by_its_name(tmp_path: Path, field: str, value: object) -> None:
    path = write(tmp_path, json.dumps({**json.loads(a_card().to_json()), field: value}))
    with pytest.raises(CardError, match=r"card\.json: not a card"):
        read_card(path)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


JUNK: st.SearchStrategy[Any] = st.one_of(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=6,
    ),
    st.sampled_from([10**400, -(10**400), 10**308, 5e-324, nested(900), "x" * 100_000, [1.0] * 100_000]),
)


@given(data=st.data(), junk=JUNK)
def test_whatever_stands_somewhere_in_a_card_it_is_refused_or_of_use(data: st.DataObject, junk: Any) -> None:
    results = ObjectiveResult("fog", 9, "entropy", 0.5, 0.6, 0.7, 0.5, 0.6)
    search = FittedSearch("entropy", 9, 0.4, 0.1, 0.2, 0.9)
    card = json.loads(GOOD.to_json()) | {"judged": [asdict(results)], "search": asdict(search)}
    place, key = card, data.draw(st.sampled_from(sorted(card)))
    while isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
        place = place[key]
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
    place[key] = junk
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), json.dumps(card))
        found, refused = None, ""
        try:
            found = read_card(path)
        except CardError as error:
            refused = str(error)
    assert len(refused) < 1_000
    if found is not None:
        assert len(found.digest) == 16
        assert found.best_alpha in found.alphas
        assert found.has_barrier in {True, False}
        assert chosen("auto", found) in NAMES
        found.surrogate("entropy")


def test_a_card_from_before_an_objective_is_read_without_its_level(tmp_path: Path) -> None:
    document = json.loads(a_card().to_json())
    del document["levels"]["tsallis"]
    assert "tsallis" not in read_card(write(tmp_path, json.dumps(document))).levels


BIAS = LabelBias("tsallis", (-0.5, 0.1, 0.4), (0.1, 0.05, 0.1), 120, 6, 3.5, "2026-11-28T00:00:00+00:00")


PROOF = SceneProof("d1g3st", 0.6, (0.05, 0.01, 0.09), "north", 0.02, -0.01, 500, 80, 3, proves=True, created_at="then")


def test_what_labels_say_of_a_scene_is_in_the_file_and_not_in_the_digest(tmp_path: Path) -> None:
    proven = a_card(scene=PROOF)
    assert read_card(write(tmp_path, proven.to_json())) == proven
    assert (proven.digest, proven.format) == (GOOD.digest, GOOD.format)
    assert "scene" not in json.loads(GOOD.to_json())
    assert proven.corrected(LabelBias("tsallis", (0.1,) * 3, (0.1,) * 3, 100, 10, 9.0, "")).scene is None
    later = json.loads(proven.to_json())
    later["scene"] = {"version": 2, "anything": [1]}
    assert read_card(write(tmp_path, json.dumps(later))) == GOOD


@pytest.mark.parametrize(
    "wrong",
    [
        {"gain": (0.05, -0.01, 0.09)},
        {"worst_gain": -0.02},
        {"proves": False},
        {"gain": (0.05, 0.01)},
        {"images": 0},
        {"bound": "low"},
    ],
)
def test_a_decision_that_does_not_follow_from_its_figures_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    path = write(tmp_path, a_card(scene=replace(PROOF, **wrong)).to_json())
    with pytest.raises(CardError, match="scene: expected figures from which its decision follows"):
        read_card(path)


def test_among_few_classes_the_thresholds_of_a_card_expect_as_many_errors_as_there_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    z = torch.tensor(rng.normal(0.0, 1.0, (2_000, 30)))
    labels = torch.tensor(rng.integers(30, size=2_000))
    z[torch.arange(2_000), labels] += 1.5
    plain = make_card(lambda _: z, labels, alphas=ALPHAS, identity=IDENTITY, created_at="then")
    card = with_few(plain, lambda _: z, labels)
    assert [few.classes for few in card.among_few] == [2, 3, 5, 10, 25]
    assert card.digest == plain.digest
    assert read_card(write(tmp_path, card.to_json())) == card
    own = torch.randperm(30, generator=torch.Generator().manual_seed(1))[:7].sort().values
    rows = torch.isin(labels, own)
    of_list, T = z[rows][:, own], card.temperature[0]
    right = float((own[of_list.argmax(-1)] == labels[rows]).double().mean())
    among = card.thresholds_among(7, 30)
    assert among is not None
    assert card.among_few[2].threshold[0] < among[0] < card.among_few[3].threshold[0]
    assert float((entropy(of_list, T) <= among[0]).mean()) == pytest.approx(right, abs=0.06)
    assert float((entropy(of_list, T) <= card.threshold[0]).mean()) > right + 0.1, "that for all classes does not hold"
    assert card.thresholds_among(30, 30) == pytest.approx(card.threshold)
    assert card.thresholds_among(1, 30) is card.thresholds_among(31, 30) is plain.thresholds_among(7, 30) is None


@pytest.mark.parametrize("wrong", [((5, 2),), ((1, 3),), ((2, 1),), ((3, 3), (2, 3))])
def test_thresholds_among_few_that_no_sample_gave_are_refused(
    tmp_path: Path, wrong: tuple[tuple[int, int], ...]
) -> None:
    few = tuple(FewThreshold(classes, (0.5,) * alphas) for classes, alphas in wrong)
    with pytest.raises(CardError, match="among_few: expected ascending numbers of classes"):
        read_card(write(tmp_path, a_card(among_few=few).to_json()))


def test_a_bias_is_added_to_its_objective_at_each_alpha_and_to_no_other() -> None:
    card, logits = a_card(), sample(20, 1.0)[0]
    biased = card.corrected(BIAS)
    for j in range(3):
        np.testing.assert_array_equal(biased.objective("tsallis")(logits, j), tsallis(logits, j) + BIAS.nats[j])
        np.testing.assert_array_equal(biased.objective("entropy")(logits, j), entropy(logits))
    np.testing.assert_allclose(biased.levels["tsallis"], np.add(card.levels["tsallis"], BIAS.nats))
    assert biased.levels["entropy"] == card.levels["entropy"]
    assert np.isnan(biased.objective("tsallis")(torch.full((1, 3), float("nan")), 0)).all()


def test_a_second_bias_of_an_objective_is_on_top_of_the_first_and_that_of_another_takes_its_place() -> None:
    twice = a_card().corrected(BIAS).corrected(replace(BIAS, nats=(0.5, -0.2, -0.3), images=200))
    assert twice.bias is not None
    np.testing.assert_allclose(twice.bias.nats, (0.0, -0.1, 0.1))
    assert twice.bias.images == 200
    other = twice.corrected(replace(BIAS, objective="entropy"))
    assert other.bias is not None
    assert (other.bias.objective, other.bias.nats) == ("entropy", BIAS.nats)
    np.testing.assert_allclose(other.levels["tsallis"], a_card().levels["tsallis"])


def test_the_search_compares_alphas_with_their_bias() -> None:
    logits = sample(20, 1.0)[0]
    alphas = 0, 2
    differences = []
    for card in (GOOD, GOOD.corrected(BIAS)):
        trials = BatchTrials(20, card.objective("tsallis"))
        requesting = trials.evaluate(alphas)
        next(requesting)
        with pytest.raises(StopIteration):
            requesting.send([logits, logits * 0.5])
        differences.append({index: value for index, value, _ in trials.differences(0, 8)})
    assert differences[1][2] - differences[0][2] == pytest.approx(0.9)


def test_a_card_with_a_bias_is_of_a_later_format_and_one_without_is_written_as_before(tmp_path: Path) -> None:
    """Whoever knows no bias refuses it, and does not serve as if there were none."""
    card = a_card()
    assert "bias" not in json.loads(card.to_json())
    biased = card.corrected(BIAS)
    assert json.loads(biased.to_json())["format"] == BIASED == 6
    assert read_card(write(tmp_path, biased.to_json())) == biased
    assert read_card(write(tmp_path, card.to_json())) == card
    assert len({card.digest, biased.digest, card.corrected(replace(BIAS, evidence=4.0)).digest}) == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"nats": [0.0, 0.1]},
        {"nats": [0.0, 0.1, "x"]},
        {"sd": [0.1, -0.1, 0.1]},
        {"objective": "hope"},
        {"images": "many"},
        {"evidence": float("nan")},
        {"created_at": 3},
        {"more": 1},
    ],
)
def test_a_bias_that_no_labels_gave_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    content = json.loads(a_card().corrected(BIAS).to_json())
    content["bias"] |= wrong
    with pytest.raises(CardError, match="not a card"):
        read_card(write(tmp_path, json.dumps(content)))
    with pytest.raises(CardError, match="not a card"):
        read_card(write(tmp_path, json.dumps({**json.loads(a_card().corrected(BIAS).to_json()), "format": 5})))
