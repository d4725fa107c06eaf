"""Did it help: figures and tables of the arms, confusions as shares of the true class, estimates called so."""

from __future__ import annotations

from dataclasses import replace

from adawise.labels.benefit.helped import Confusion, Estimate, Helped
from adawise_drift.page.helping import heats, section
from tests.drift.page.building import a_help

CAMERAS = ["a", "b", "c"]


def test_arms_are_told_with_what_an_interval_shows() -> None:
    shown = section(a_help(CAMERAS))
    accuracy, gain, cameras = shown.figures
    assert accuracy.reading.replace("\u00a0", " ") == (
        "Served is right on 81 % of 52,000 images, with an ECE of .031; the best of the others is best fixed "
        "alpha, with "
        "81 %."
    )
    assert gain.reading.startswith("On the same images served is better than 3 of 3 other arms and worse than 0;")
    assert cameras.reading.startswith("Against best fixed alpha, served is better on ")
    (table, by_camera, estimates) = shown.tables
    assert [line.cells[4].mark for line in table.lines] == ["", "better", "better", "better", "same"]
    assert by_camera.folded
    assert estimates.caption == "Estimates without labels"


def test_accuracies_of_different_images_are_not_compared() -> None:
    given = a_help(CAMERAS)
    fewer = replace(given.arms[1], images=100)
    reading = section(replace(given, arms=(given.arms[0], fewer, *given.arms[2:]))).figures[0].reading
    assert "so only differences compare" in reading
    assert "best of the others" not in reading


def test_without_labels_there_are_estimates_and_no_figure() -> None:
    guess = Helped(0, 100, "", (), {}, {}, (Estimate("ATC", 0.79, "mean confidence"),))
    shown = section(guess)
    assert shown.figures == ()
    assert [table.caption for table in shown.tables] == ["Estimates without labels"]
    assert "nothing here is a measured accuracy" in shown.lead


def test_many_cameras_are_drawn_from_both_ends() -> None:
    names = [f"cam-{i}" for i in range(90)]
    figure = section(a_help(names)).figures[2]
    assert figure.title == "Camera by camera: the 40 at both ends"
    assert figure.spec["height"] == 40 * 22


def test_a_confusion_is_in_shares_of_the_true_class_and_what_was_served_comes_first() -> None:
    given = replace(
        a_help(CAMERAS),
        confusion={
            "zero-shot": Confusion(("car", "bus"), ((8, 2), (0, 0))),
            "served": Confusion(("car", "bus"), ((9, 1), (5, 15))),
        },
    )
    served, zero_shot = heats(given)
    assert served.name == "served"
    assert served.reading.replace("\u00a0", " ") == "Most often bus was taken for car: 5 images, 25 % of that class."
    assert [[square.share for square in squares] for _, squares in served.rows] == [[0.9, 0.1], [0.25, 0.75]]
    assert [square.right for square in served.rows[1][1]] == [False, True]
    assert zero_shot.rows[1][1][0].share == 0.0
