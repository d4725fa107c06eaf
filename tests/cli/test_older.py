"""Command lines of earlier versions do what they did, and name the ones of today."""

from __future__ import annotations

import shlex

import pytest

from adawise.cli.older import translated


@pytest.mark.parametrize(
    ("line", "today"),
    [
        ("card --show c.json", ["card show c.json"]),
        ("card --show=c.json --json", ["card show c.json --json"]),
        ("card --labelled_shifted fog/ --labelled a -o b", ["card make --labelled-shifted fog/ --labelled a -o b"]),
        ("card --labelled a -o b --model.theta-0 t", ["card make --labelled a -o b --model.theta-0 t"]),
        ("card --fit-search yard -oc.json", ["card fit c.json --recording yard"]),
        ("card --labelled a -o b --search.budget 3 --model.card c", ["card make --labelled a -o b"]),
        (
            "card --fit-search yard -o c.json --fit-batches 28 --fit-objective=tsallis --no-model.cuda-graphs",
            ["card fit c.json --recording yard --batches 28 --objective tsallis --no-model.cuda-graphs"],
        ),
        (
            "card --labelled a --images 9 --fit-search yard --output c.json --fit-batches 28 --batch.images 4",
            [
                "card make --labelled a --images 9 --output c.json",
                "card fit c.json --recording yard --batches 28 --batch.images 4",
            ],
        ),
        (
            "card --from-labels out --recording yard -o new.json --without-replay --search.strategy warm",
            ["card correct out --recording yard -o new.json --without-replay --search.strategy warm"],
        ),
    ],
)
def test_a_card_by_flags_is_a_verb_and_the_warning_names_it(
    line: str, today: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert [shlex.join(words) for words in translated(line.split())] == today
    shown = " && ".join(f"adawise {each}" for each in today)
    assert capsys.readouterr().err.endswith(f"now it is: {shown}\n")


def test_settings_files_stay_before_it() -> None:
    assert translated(["--config", "a.toml", "card", "--show", "c"]) == [["--config", "a.toml", "card", "show", "c"]]


@pytest.mark.parametrize(
    "line", ["", "card", "card --help", "card show c.json", "card make --labelled a -o b", "status --json", "--config"]
)
def test_a_line_of_today_stays_as_it_is(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert translated(line.split()) == [line.split()]
    assert not capsys.readouterr().err


def test_what_may_be_a_password_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    translated(["card", "--show", "c.json", "--kafka.security.sasl-password", "hunter2"])
    assert "hunter2" not in capsys.readouterr().err
