from __future__ import annotations

import dataclasses
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adawise.adapt.state_key import AT_INTRODUCTION, current_key, state_key
from adawise.adapt.strategies import NAMES, strategy
from adawise.adapt.strategies.warm import Exploration, WarmSearch
from adawise.adapt.surrogate import Surrogate
from tests.adapt.curves import GRID, objective

CONTEXT = "tsallis@d0f0e0a21b9e0876"
POLICY = (
    "Exploration(budget=5, images=8, every=8, min_images=8, price=0.03, first_budget=1.5, hazard=0.02, "
    "gain_nats=0.005, gain_sd=0.5, at_once_nats=0.03, audit_every=200, audit_images=16, disagreement=0.5, capped=100)"
)
PRIOR = "Surrogate(alphas=(), lengthscale=0.7, signal_sd=0.25, offset_sd=0.22, persistence=0.997)"
WARM = f"warm/{CONTEXT}/10/21/{POLICY}/{PRIOR}"
PLAIN = '{{"alphas":21,"context":"tsallis@d0f0e0a21b9e0876","start":10,"strategy":"{}","version":1}}'
CHANGED = (
    '{"alphas":21,"budget":4.0,"context":"tsallis@d0f0e0a21b9e0876","lengthscale":0.55,"price":1e-05,"start":6,'
    '"strategy":"warm","version":1}'
)


def made(name: str, alpha: float = 0.5, fitted: Surrogate | None = None, **policy: float) -> Any:
    exploration = Exploration(**policy)  # type: ignore[arg-type]
    common = {"alphas": GRID, "objective": objective, "context": CONTEXT}
    return strategy(name, **common, alpha=alpha, exploration=exploration, fitted=fitted)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_the_keys_of_the_defaults_are_these_and_stay_so(name: str) -> None:
    """A key that changes makes every camera start anew: do not correct this test, but read `state_key`."""
    assert made(name).key == PLAIN.format(name)


def test_a_setting_that_is_not_as_it_was_introduced_is_in_the_key_by_its_name() -> None:
    changed = made("warm", alpha=0.3, fitted=Surrogate(GRID, lengthscale=0.55), price=1e-5, budget=4)
    assert changed.key == CHANGED
    assert made("warm", budget=5.0).key == made("warm").key  # a number, whatever its type
    grid = dataclasses.replace(made("fixed"), alphas=(0.0, 0.1, 1.0), start=1)
    assert grid.key == (
        '{"alphas":[0.0,0.1,1.0],"context":"tsallis@d0f0e0a21b9e0876","start":1,"strategy":"fixed","version":1}'
    )


def test_names_in_the_code_are_not_in_the_key() -> None:
    """Both dataclasses under other names, in another order, one field renamed and one more."""

    @dataclasses.dataclass(frozen=True)
    class LearnedAppearance(Exploration):
        of_tomorrow: int = 3

    fields = [(f.name if f.name != "price" else "cost", float, f.default) for f in dataclasses.fields(Exploration)]
    renamed = dataclasses.make_dataclass(
        "Renamed", fields[::-1], frozen=True, namespace={"price": property(lambda self: self.cost)}
    )
    prior = type("Prior", (Surrogate,), {})
    warm = made("warm")
    for policy in (LearnedAppearance(), renamed()):
        other = dataclasses.replace(warm, policy=cast("Exploration", policy), fitted=prior(GRID))
        assert repr(other.policy) != repr(warm.policy)
        assert other.key == PLAIN.format("warm")
    assert dataclasses.replace(warm, policy=cast("Exploration", renamed(cost=0.5))).key == made("warm", price=0.5).key
    assert type("Another", (WarmSearch,), {})(**vars_of(warm)).key == warm.key


def vars_of(warm: WarmSearch) -> dict[str, Any]:
    return {field.name: getattr(warm, field.name) for field in dataclasses.fields(warm)}


def test_a_new_setting_leaves_the_keys_of_before_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyError, match="of_tomorrow"):
        state_key("fixed", CONTEXT, 10, GRID, of_tomorrow=3)
    monkeypatch.setattr("adawise.adapt.state_key.AT_INTRODUCTION", {**AT_INTRODUCTION, "of_tomorrow": 3})
    assert state_key("fixed", CONTEXT, 10, GRID, of_tomorrow=3) == PLAIN.format("fixed")
    assert '"of_tomorrow":4.0' in state_key("fixed", CONTEXT, 10, GRID, of_tomorrow=4)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (WARM, PLAIN.format("warm")),
        (f"botorch/{CONTEXT}/10/21/5", PLAIN.format("botorch")),
        (f"scratch/{CONTEXT}/10/21/5/8", PLAIN.format("scratch")),
        (f"grid/{CONTEXT}/10/21/8", PLAIN.format("grid")),
        (f"fixed/{CONTEXT}/10", PLAIN.format("fixed")),
        (
            WARM.replace("/10/", "/6/")
            .replace("price=0.03", "price=1e-05")
            .replace("budget=5", "budget=4")
            .replace("lengthscale=0.7", "lengthscale=0.55"),
            CHANGED,
        ),
    ],
)
def test_the_keys_of_0_1_0_are_those_of_today(old: str, new: str) -> None:
    assert current_key(old) == new
    assert current_key(new) == new


@given(st.text() | st.lists(st.sampled_from(["a", "10", "21", "8", "grid", "@"])).map("/".join))
def test_a_context_may_be_any_text(context: str) -> None:
    for old, name in ((f"grid/{context}/10/21/8", "grid"), (f"fixed/{context}/10", "fixed")):
        assert current_key(old) == state_key(name, context, 10, GRID)
    assert current_key(WARM.replace(CONTEXT, context)) == state_key("warm", context, 10, GRID)


@pytest.mark.parametrize(
    "key",
    [
        *("", "k", "warm", "warm/", "grid///", f"bayes/{CONTEXT}/10/21/5", f"grid/{CONTEXT}/10/21", "fixed/10"),
        *(f"grid/{CONTEXT}/10/21/{value}" for value in ("x", "1e", "--1", "8 ", "", "8" * 99, "٣")),
        *(f"fixed/{CONTEXT}/{start}" for start in ("-1", "1.0", "99999", "²")),
        f"warm/{CONTEXT}/10/21/{POLICY}",
        WARM.replace("price=0.03, ", ""),
        WARM.replace("price=0.03", "price=__import__('os')"),
        WARM.replace("price=0.03", "price=0.03, price=0.03"),
        WARM.replace("price=0.03", "price=0.0.3"),
        WARM.replace("budget=5, images=8", "images=8, budget=5"),
        WARM.replace("alphas=()", "alphas=(0.0, 1.0)"),
        WARM.replace("Exploration", "exploration"),
        WARM + "\n",
        WARM[:-1],
    ],
)
def test_what_no_version_wrote_is_no_strategys_key(key: str) -> None:
    assert current_key(key) == key


@given(st.text())
def test_a_harmed_key_is_never_an_error(harm: str) -> None:
    for at in range(0, len(WARM), 7):
        assert isinstance(current_key(WARM[:at] + harm + WARM[at + 1 :]), str)
