from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image

from adawise.__main__ import main
from adawise.adapt.surrogate import Surrogate
from adawise.app.model import load_model
from adawise.card.advice import advise
from adawise.card.card import read_card
from adawise.clip.classifier import PairRound
from adawise.clip.heads import heads_path
from adawise.ports import TopicIdentity
from adawise.recording.recorder import FilePolicy, Recorder
from adawise.records import Message, Selection, TopicPartition
from adawise.settings import Settings, read
from adawise_lab.card.fit import recorded_batches
from tests.models import CLASSES, random_images, write_pair

Captured = pytest.CaptureFixture[str]
STREAMS, BATCHES, IMAGES = 2, 14, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair with its settings, ten labelled images, and a recording of two cameras, 14 batches and a rest each."""
    folder = tmp_path_factory.mktemp("fit")
    pair = write_pair(folder / "pair")
    lines = [f'{name} = "{getattr(pair, name)}"' for name in ("theta_0", "theta_1", "classes", "templates")]
    (folder / "adawise.toml").write_text(
        "[batch]\nimages = 4\n[model]\nprecision = 'fp32'\n" + "\n".join(lines) + "\n", encoding="utf-8"
    )
    for i, pixels in enumerate(random_images(10)):
        path = folder / "own" / CLASSES[i % len(CLASSES)] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(pixels))
    record(folder / "yard", batches=BATCHES)
    record(folder / "short", batches=3)
    return folder


@pytest.fixture(scope="module")
def plain(folder: Path) -> Path:
    """A card without a fit. Not to be changed by a test."""
    with pytest.MonkeyPatch.context() as patch:
        assert adawise(folder, patch, "card", "make", "--labelled", "own", "-o", "plain.json") == 0
    return folder / "plain.json"


def copied(card: Path, name: str) -> Path:
    """The card with its heads under another name, for a test to change."""
    copy = card.with_name(name)
    for source, target in ((card, copy), (heads_path(card), heads_path(copy))):
        target.write_bytes(source.read_bytes())
    return copy


@dataclass(frozen=True)
class Fitted:
    """A card that a fit to 14 batches was added to, and how many images passed the model at a time for that."""

    card: Path
    passed: list[int]


@pytest.fixture(scope="module")
def fitted(folder: Path, plain: Path) -> Fitted:
    passed: list[int] = []
    evaluate = PairRound.evaluate

    def counted(self: PairRound, requested: Mapping[int, Sequence[Selection]]) -> Mapping[int, torch.Tensor]:
        passed.extend(sum(len(rows) for _, rows in selections) for selections in requested.values())
        return evaluate(self, requested)

    card = copied(plain, "few.json")
    flags = ("--batches", "14", "--objective", "calibrated_entropy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PairRound, "evaluate", counted)
        assert adawise(folder, patch, "card", "fit", card.name, "--recording", "yard", *flags) == 0
    return Fitted(card, passed)


def png(pixels: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(buffer, "PNG")
    return buffer.getvalue()


def record(root: Path, *, batches: int) -> None:
    """A message in five is garbage; one image of each camera is left over at the end."""
    images = iter(random_images(STREAMS * (batches * IMAGES + 1), seed=3))
    messages = []
    for i in range(batches * IMAGES + 1):
        for stream in range(STREAMS):
            messages.append((f"cam-{stream}".encode(), png(next(images))))
        if i % 5 == 0:
            messages.append((b"cam-0", b"garbage"))
    tp = TopicPartition("frames", 0)
    policy = FilePolicy(max_messages=1000, max_bytes=1 << 40, max_age_s=1e9)
    recorder = Recorder(
        str(root),
        topic="frames",
        identity=TopicIdentity("c", "t", 1),
        policy=policy,
        max_buffered_bytes=1 << 40,
    )
    recorder.begin(tp, 0)
    recorder.append(
        [Message("frames", 0, n, key, value, timestamp_ms=n) for n, (key, value) in enumerate(messages)], 0.0
    )
    recorder.flush()


def adawise(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.chdir(folder)
    return main(list(arguments))


def settings(folder: Path, **environ: str) -> Settings:
    return read((), environ=environ, folder=folder, uses=frozenset()).checked()


def test_a_recording_is_cut_into_batches_as_the_worker_cuts_it(folder: Path) -> None:
    chosen = settings(folder)
    found = list(
        recorded_batches(chosen, folder / "yard", load_model(chosen.model, chosen.decode).checkpoints.preprocess)
    )
    assert [len(batch) for _, batch in found] == [IMAGES] * (STREAMS * BATCHES) + [1] * STREAMS
    offsets = [frame.row_id.offset for _, batch in found for frame in batch.frames if batch.stream_id == "cam-1"]
    assert offsets == sorted(offsets)


@pytest.mark.check("lab")
def test_the_old_form_that_makes_a_card_and_its_fit_at_once_does_one_after_the_other(
    folder: Path, plain: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    capsys.readouterr()
    old = ("card", "--labelled", "own", "-o", "both.json", "--fit-search", "yard", "--fit-batches", "28")
    assert adawise(folder, monkeypatch, *old) == 0
    both = read_card(folder / "both.json")
    assert both.search is not None
    meant = advise(both).objective
    assert (both.search.objective, both.search.batches) == (meant, 28)
    assert 0.0 < both.search.persistence < 1.0
    assert f"Search, fitted to `{meant}` on 28 recorded batches" in " ".join(capsys.readouterr().out.split())

    before = read_card(copied(plain, "later.json"))
    assert before.search is None
    assert adawise(folder, monkeypatch, "card", "fit", "later.json", "--recording", "yard", "--batches", "28") == 0
    after = read_card(folder / "later.json")
    assert after.search == both.search
    assert (after.temperature, after.judged, after.heads) == (before.temperature, before.judged, before.heads)
    assert after.digest != before.digest  # a state made before the fit is not continued


def test_only_the_batches_that_are_fitted_are_classified(fitted: Fitted) -> None:
    assert fitted.passed == [IMAGES] * BATCHES * 7  # alphas


def test_the_worker_takes_the_fitted_surrogate_for_the_objective_that_it_was_fitted_to(
    folder: Path, fitted: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adawise.app.model import adaptation

    monkeypatch.chdir(folder)
    found = read_card(fitted.card).search
    assert found is not None
    assert (found.objective, found.batches) == ("calibrated_entropy", 14)

    def surrogate(objective: str) -> Surrogate:
        chosen = settings(folder, ADAWISE_MODEL__CARD=fitted.card.name, ADAWISE_SEARCH__OBJECTIVE=objective)
        made = adaptation(chosen, load_model(chosen.model, chosen.decode)).strategy
        return made.surrogate  # type: ignore[attr-defined, no-any-return]

    assert surrogate("calibrated_entropy").persistence == found.persistence
    assert surrogate("entropy") == Surrogate(surrogate("entropy").alphas)


def test_a_recording_that_is_too_short_or_none_is_told_with_its_flag_and_the_card_stays(
    folder: Path, plain: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    before = copied(plain, "kept.json").read_bytes()
    assert adawise(folder, monkeypatch, "card", "fit", "kept.json", "--recording", "short") == 2
    assert "--recording short: expected a stream of at least 12 batches" in capsys.readouterr().err
    assert adawise(folder, monkeypatch, "card", "fit", "kept.json", "--recording", "own") != 0
    assert "expected a recording in own" in " ".join(capsys.readouterr().err.split())
    assert (folder / "kept.json").read_bytes() == before


def test_a_fit_without_a_card_to_add_it_to_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    assert adawise(folder, monkeypatch, "card", "fit", "none.json", "--recording", "yard") != 0
    assert "the card cannot be read" in " ".join(capsys.readouterr().err.split())
