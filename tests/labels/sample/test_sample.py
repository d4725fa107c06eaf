"""The draw of images to be labelled from a root, and its files."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from adawise.__main__ import main
from adawise.errors import SettingsError
from adawise.labels.sample import draw as draw_module
from adawise.labels.sample.days import SampledImage, digest, read_days, write_day
from adawise.labels.sample.design import Design, divided, draw
from adawise.labels.sample.draw import draw_days
from adawise_drift.request import parse_limit
from tests.drift import answers, yard

WORLD = answers.World(batches=400, images=4, cameras=2)
EVERY_US = 216 * 1_000_000  # 1,600 images over four days
DAYS = ("2026-06-01", "2026-06-02", "2026-06-03")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cameras over four days, whose answers are right three times in four."""
    at = answers.BEGIN_US + EVERY_US * (np.arange(WORLD.rows) % 1_600)
    served = WORLD.answers(0.75, 1)
    rows = WORLD.table(captured_at=at, kafka_timestamp=at // 1000, label=answers.named(served))
    return answers.write(tmp_path_factory.mktemp("sampled") / "yard", rows, None)


def sample(root: Path, folder: Path, *more: str) -> int:
    return main(["sample", str(root), "-o", str(folder), "--per-day", "8", *more])


def test_each_day_that_ended_is_drawn_once_and_the_same_for_a_seed(root: Path, tmp_path: Path) -> None:
    assert sample(root, tmp_path / "a") == 0
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [f"{day}.csv" for day in DAYS]
    before = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    (tmp_path / "a" / f"{DAYS[1]}.csv").unlink()
    assert sample(root, tmp_path / "a", "--json") == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()} == before
    assert sample(root, tmp_path / "b", "--seed", "1") == 0
    assert (tmp_path / "b" / f"{DAYS[0]}.csv").read_bytes() != before[f"{DAYS[0]}.csv"]


@pytest.mark.parametrize(
    ("now", "days", "ahead"),
    [
        ("2026-06-04T23:59:59", DAYS, 1),
        ("2026-06-04T00:00:00", DAYS, 800 - 1),  # its one image at midnight has come
        ("2026-06-03T12:00:00", DAYS[:2], 1_200 - 1),
        ("2026-05-31T23:59:59", (), 3_199),
    ],
)
def test_clocks_that_are_ahead_end_no_day_and_those_before_1970_are_left_out(
    tmp_path: Path, now: str, days: tuple[str, ...], ahead: int
) -> None:
    at = answers.BEGIN_US + EVERY_US * (np.arange(WORLD.rows) % 1_600)
    at[0], at[1] = -1_000_000, 32_503_680_000_000_000  # the year 3000
    rows = WORLD.table(captured_at=at, kafka_timestamp=at // 1000, label=answers.named(WORLD.answers(0.75, 1)))
    root = answers.write(tmp_path / "yard", rows, None)
    drawn = draw_days(
        str(root), tmp_path / "a", Design(8), streams=None, since=None, now=datetime.fromisoformat(f"{now}+00:00")
    )
    assert [path.name for path in drawn.files] == [f"{day}.csv" for day in days]
    assert drawn.ahead == ahead


def test_only_days_that_have_images_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = answers.BEGIN_US + EVERY_US * (np.arange(WORLD.rows) % 1_600)
    at[0] = 0  # 1970
    rows = WORLD.table(captured_at=at, kafka_timestamp=at // 1000, label=answers.named(WORLD.answers(0.75, 1)))
    root = answers.write(tmp_path / "yard", rows, None)
    looked, of_day = [], draw_module._of_day

    def seen(connection: object, design: Design, day: int) -> object:
        looked.append(day)
        return of_day(connection, design, day)  # type: ignore[arg-type]

    monkeypatch.setattr(draw_module, "_of_day", seen)
    now = datetime(2026, 6, 9, tzinfo=UTC)
    draw_days(str(root), tmp_path / "a", Design(8), streams=None, since=None, now=now)
    assert looked == [0, 20_605, 20_606, 20_607]


def test_a_file_shows_what_to_label_and_hides_what_was_served(root: Path, tmp_path: Path) -> None:
    assert sample(root, tmp_path / "a", "--since", "2026-06-03T12:00:00Z") == 0
    ((day, images),) = read_days(tmp_path / "a").items()
    assert day == 20_607  # 2026-06-03
    assert {each.stream_id for each in images} == {"camera-0", "camera-1"}
    assert len(images) == 16
    assert all(each.label == "" and each.is_right is None for each in images)
    assert all((each.images, each.groups) == (400, 8) and each.group_images in {48, 52} for each in images)
    text = (tmp_path / "a" / "2026-06-03.csv").read_text()
    assert not any(f",{name}," in text for name in answers.CLASSES)


def image(group: int = 0, groups: int = 1, **more: object) -> SampledImage:
    fields = {
        **{"row_id": f"frames/0/{group}/0", "stream_id": "gate", "captured_at": "2026-06-01T00:00:00Z", "label": ""},
        **{"probability": 0.25, "confidence": 0.5, "group": group, "group_images": 4, "group_confidence": 0.8},
        **{
            "groups": groups,
            "images": 4 * groups,
            "mean_confidence": 0.8,
            "floor": 1.0,
            "design": "uniform",
            "seed": 0,
        },
        **{"served": "0" * 16},
    }
    return SampledImage(**(fields | more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda text: text.replace("0.25", "0.5", 1), "expected all columns but label as they were drawn"),
        (lambda text: "\n".join(text.splitlines()[:-1]), "put back the rows that were removed"),
        (lambda text: text.replace("probability", "chance"), "expected the columns row_id"),
        (lambda text: text.replace("0.25", "a quarter", 1), "expected numbers as they were drawn"),
        (lambda text: text + text.splitlines()[-1], "remove copies"),
        (lambda text: text.replace(",uniform", "", 1), "expected 17 cells"),
    ],
)
def test_a_file_that_was_changed_is_refused(tmp_path: Path, change: object, problem: str) -> None:
    path = write_day(tmp_path, 20_000, [image(0, 2), image(1, 2)])
    path.write_text(change(path.read_text()))  # type: ignore[operator]
    with pytest.raises(SettingsError, match=problem):
        read_days(tmp_path)


def test_a_day_that_was_drawn_is_never_replaced(tmp_path: Path) -> None:
    path = write_day(tmp_path, 20_000, [image()])
    before = path.read_bytes()
    with pytest.raises(SettingsError, match="not drawn again"):
        write_day(tmp_path, 20_000, [image(seed=1)])
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("by", ["uniform", "confidence"])
def test_images_come_as_often_as_their_probabilities_say(by: str) -> None:
    confidence = np.array([0.5, 0.99, 0.7, 0.9, 0.8, 0.6, 1.0, 0.95])
    batch = np.arange(8) // 2
    seen, weighted, draws = np.zeros(8), np.zeros(8), 800
    for day in range(draws):
        drawn = draw(confidence, batch, Design(2, by), "gate", day)  # type: ignore[arg-type]
        seen[drawn.place] += 1.0
        weighted[drawn.place] += 1.0 / drawn.probability
    assert weighted / draws == pytest.approx(np.ones(8), abs=0.2)  # four standard errors of 800 draws
    assert (seen.max() / seen.min() > 1.3) == (by == "confidence")


def test_no_group_has_more_than_twice_its_part_of_the_images() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        sizes = rng.integers(1, 33, 40)
        groups = min(20, int(sizes.sum() // sizes.max()))
        loads = np.bincount(divided(sizes, groups, rng), weights=sizes)
        assert loads.max() <= 2 * sizes.sum() / groups


def labelled(root: Path, folder: Path, wrong: frozenset[int] = frozenset()) -> None:
    """Fill in the true class of every image, and another one on some days."""
    truth = answers.CLASSES[WORLD.truth()]
    for number, path in enumerate(sorted(folder.iterdir())):
        lines = path.read_text().splitlines()
        filled = [lines[0]]
        for line in lines[1:]:
            cells = line.split(",")
            _, camera, offset, _ = cells[0].split("/")
            cells[3] = "dog" if number in wrong else str(truth[int(camera) * 1_600 + int(offset)])
            filled.append(",".join(cells))
        path.write_text("\n".join(filled) + "\n")


def test_filled_in_files_are_labels_as_any_and_have_a_guarantee_beside(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sample(root, tmp_path / "a") == 0
    labelled(root, tmp_path / "a")
    found = read_days(tmp_path / "a")
    right = [each.is_right for images in found.values() for each in images]
    assert 0.5 < np.mean([bool(each) for each in right]) < 1.0
    capsys.readouterr()
    assert main(["shortlists", str(root), "--labels", str(tmp_path / "a"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["labels"]["labelled"] == 48


def fallen(tmp_path: Path) -> list[str]:
    """Write a day's output and a sample by which one of two cameras fell, and return the command that finds it."""
    yard.write(tmp_path / "yard")
    (tmp_path / "a").mkdir()
    for day in range(20_000, 20_012):
        wrong = day >= 20_006
        images = [
            image(n, 20, label="car", stream_id=name, row_id=f"frames/{name}/{n}/0") for n in range(20) for name in "12"
        ]
        served = {name: "bus" if wrong and name == "1" else "car" for name in "12"}
        write_day(
            tmp_path / "a",
            day,
            [
                replace(
                    each, served=digest(each.row_id, served[each.stream_id]), stream_id=yard.PLACES[int(each.stream_id)]
                )
                for each in images
            ],
        )
    return ["drift", str(tmp_path / "yard"), "--labels", str(tmp_path / "a"), "--least-accuracy", "0.8"]


def test_drift_reports_the_guarantee_and_the_camera_that_fell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*fallen(tmp_path), "--fail-if", "fallen>0"]) == 3
    text = " ".join(capsys.readouterr().out.split())
    assert f"{yard.PLACES[1]}: By 240 images drawn on 12 days since 2024-10-04: .80" in text
    assert text.count("Accuracy fell below .800: shown by the labels of 2024-10-1") == 1
    assert text.count("that a day was below .800") == 1
    assert f"fallen>0: 1 camera exceeds it: {yard.PLACES[1]} 1" in text


@pytest.mark.check("drift")
def test_the_page_leads_with_a_camera_that_fell(tmp_path: Path) -> None:
    assert main([*fallen(tmp_path), "-o", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.html").read_text()
    assert "Labels show that the accuracy of 1 camera fell: gate." in text
    assert "Accuracy fell below .800: shown by the labels of 2024-10-1" in text
    assert text.count('<article class="card failing" data-find="gate') == 1


@pytest.mark.parametrize("wanted", ["--least-accuracy=.9", "--fail-if=fallen>0"])
@pytest.mark.parametrize("labels", [[], ["--labels", "labels.csv"]])
def test_what_only_a_sample_can_show_is_not_watched_without_one(
    root: Path, capsys: pytest.CaptureFixture[str], wanted: str, labels: list[str]
) -> None:
    assert main(["drift", str(root), wanted, *labels]) == 2
    assert "expected --labels with the folder of a sample" in capsys.readouterr().err


def test_a_camera_that_fell_and_sent_nothing_since_is_beyond_the_limit() -> None:
    assert parse_limit("fallen>0").exceeded((), (), None, {"gone"}) == {"gone": 1.0}
