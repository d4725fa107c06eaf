"""What is said of too little to learn from."""

from __future__ import annotations

from adawise.labels.folders.samples import Samples, Taken, split
from adawise.settings import FinetuneSettings
from adawise_lab.finetune.report import note_on_stretches, notes_on

MANY = ["cat"] * 100 + ["dog"] * 100


def notes(train: list[str], held_out: int = 1000, *classes: str, **recipe: object) -> list[str]:
    names = classes or tuple(dict.fromkeys(train))
    return notes_on(FinetuneSettings.model_validate(recipe), train, held_out, names, are_listed=True)


def test_enough_of_everything_is_no_reason_to_speak() -> None:
    assert notes(MANY) == []


def test_labels_that_stand_for_the_names_to_be_served_are_told() -> None:
    (note,) = notes_on(FinetuneSettings(), MANY, 1000, ("cat", "dog"), are_listed=False)
    assert "The 2 labels are used as all served class names" in note
    assert "--model.classes FILE" in note


def test_names_without_images_are_told_with_what_that_means() -> None:
    (note,) = notes(MANY, 1000, "cat", "dog", "fox", "elk")
    assert note.startswith("2 of 4 names have no image to learn from (fox, elk): the model knows of them only")


def test_few_held_out_images_are_told_with_what_they_are_worth() -> None:
    (note,) = notes(MANY, 15)
    assert note.startswith("15 held-out images judge the epochs and make the card: few")
    assert "within 25 points" in note
    assert "400 of them make it 5" in note


def test_few_images_and_uneven_classes_are_told() -> None:
    few, uneven = notes(["cat"] * 100 + ["dog"] * 3)
    assert few == "1 class has fewer than 8 images to learn from (dog): add some."
    assert uneven.startswith("Classes are uneven: 100 images of 'cat', 3 of 'dog'. finetune.balanced draws")
    assert "finetune.loss balanced corrects the loss instead" in uneven
    assert notes(["cat"] * 100 + ["dog"] * 3, balanced=True) == [few]
    assert notes(["cat"] * 100 + ["dog"] * 3, loss="balanced") == [few]


def test_less_than_a_batch_is_told() -> None:
    (note,) = notes(["cat"] * 20 + ["dog"] * 20)
    assert note.startswith("All 40 images to learn from are fewer than a batch (finetune.batch_images is 64)")


def test_stretches_of_a_recording_are_told_with_what_a_better_judge_is() -> None:
    labels, taken = ["cat", "dog"] * 100, [Taken(f"camera {i // 100}", i) for i in range(200)]
    samples = Samples("here", [str(i) for i in range(200)], labels, ("cat", "dog"), lambda i: b"", "0", taken=taken)
    train, held_out = split(samples, 0.1, 0)
    note = note_on_stretches(samples, train, held_out)
    assert note is not None
    assert note.startswith(f"The {len(held_out)} held-out images are whole stretches of time of ")
    assert (
        f"camera{'s' * (len({taken[i].camera for i in held_out}) > 1)}; {200 - len(train) - len(held_out)} beside"
        in note
    )
    assert "Give a recording of other days with --validation" in note


def test_nothing_is_said_of_stretches_where_images_are_drawn_one_by_one() -> None:
    assert note_on_stretches(Samples("here", ["a"], ["cat"], ("cat",), lambda i: b"", "0"), [0], []) is None
