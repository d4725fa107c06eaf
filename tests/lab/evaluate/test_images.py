"""Tables from labelled images: the same logits as the model gives, computed once, whatever interrupts it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from adawise.adapt.names import GRID
from adawise.clip.bank import MergedCopy
from adawise.clip.classifier import PairClassifier
from adawise.clip.load import CheckpointPair
from adawise.decode.statistics import statistics
from adawise.errors import SettingsError
from adawise_lab.evaluate.corrupt import Corruption, corrupt
from adawise_lab.evaluate.images import ImageSet, Made, Sample, make_tables
from adawise_lab.evaluate.tables import read_table, write_table
from tests.adapt.curves import AlphaByAlpha
from tests.clip.test_trunk import sharing, whole
from tests.dying import exit_code
from tests.models import CLASSES as CLASS_NAMES
from tests.models import classifier, random_images

SIZE, CLASSES, ALPHAS = 16, ("car", "bus", "tram"), (0.0, 0.5, 1.0)
FOG, NOISE = Corruption("fog", 2), Corruption("gaussian_noise", 1)


class Linear(AlphaByAlpha):
    """A classifier that is one matrix at each alpha; counts, and may be stopped after some calls."""

    def __init__(self, stop_after: int | None = None) -> None:
        generator = torch.Generator().manual_seed(0)
        self._weights = torch.randn(len(ALPHAS), 3 * SIZE * SIZE, len(CLASSES), generator=generator) / 1000.0
        self._stop_after = stop_after
        self.calls: list[tuple[int, int]] = []  # (alpha index, images)

    @property
    def alphas(self) -> tuple[float, ...]:
        return ALPHAS

    def logits(self, alpha_index: int, *images: Tensor) -> Tensor:
        if len(self.calls) == self._stop_after:
            raise KeyboardInterrupt
        together = torch.cat(images)
        self.calls.append((alpha_index, len(together)))
        return torch.stack([x.float().flatten() @ self._weights[alpha_index] for x in together])

    @property
    def forwards(self) -> int:
        return sum(n for _, n in self.calls)


def pictures(n: int) -> Tensor:
    return torch.randint(0, 256, (n, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def image_set(
    n: int = 10, *, digest: str = "d", broken: tuple[int, ...] = (), opened: list[int] | None = None
) -> ImageSet:
    def samples() -> Iterator[Sample]:
        if opened is not None:
            opened.append(n)
        for i, x in enumerate(pictures(n)):
            yield Sample(f"image {i}", None, trouble="cut off") if i in broken else Sample(f"image {i}", x, i % 3)

    return ImageSet("yard", CLASSES, digest, n, samples)


Make = Callable[..., tuple[Made, ...]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def call(
        classifier: Linear,
        images: ImageSet | None = None,
        corruptions: tuple[Corruption, ...] = (FOG,),
        *,
        fingerprint: str = "f",
        seed: int = 0,
        block_bytes: int = 2**20,
    ) -> tuple[Made, ...]:
        return make_tables(
            images or image_set(),
            corruptions,
            classifier,
            fingerprint=fingerprint,
            cache=tmp_path / "cache",
            seed=seed,
            block_bytes=block_bytes,
        )

    return call


def test_a_table_holds_what_the_model_says_of_the_clean_and_of_the_corrupted_images(make: Make) -> None:
    clean, foggy = (made.table for made in make(Linear()))
    assert (clean.name, foggy.name) == ("yard_clean", "yard_fog2")
    assert clean.group == "yard"
    assert clean.class_names == CLASSES
    assert clean.labels.tolist() == [i % 3 for i in range(10)]
    in_fog = torch.from_numpy(np.stack([corrupt(x.numpy(), FOG, 0) for x in pictures(10)]))
    for j in range(len(ALPHAS)):
        np.testing.assert_array_equal(clean.logits[j], Linear().logits(j, pictures(10)).numpy())
        np.testing.assert_array_equal(foggy.logits[j], Linear().logits(j, in_fog).numpy())


def test_a_table_holds_the_statistics_of_its_own_pixels(make: Make) -> None:
    pixels = list(pictures(10).numpy())
    expected = [[statistics(x) for x in of] for of in (pixels, [corrupt(x, FOG, 0) for x in pixels])]
    for _ in range(2):  # made, and read again
        np.testing.assert_array_equal([made.table.pixels for made in make(Linear())], expected)


def test_a_table_of_an_earlier_version_has_no_statistics_and_is_not_made_anew(make: Make, tmp_path: Path) -> None:
    for made, path in zip(make(Linear()), sorted((tmp_path / "cache").glob("*.npz")), strict=True):
        write_table(path, replace(made.table, pixels=None))
    classifier = Linear()
    assert [made.table.pixels for made in make(classifier)] == [None, None]
    assert not classifier.calls


def test_what_an_earlier_version_began_is_finished_with_statistics(make: Make, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        make(Linear(stop_after=5))
    for begun in (tmp_path / "cache").glob(".*.pixels.npy"):
        begun.unlink()
    classifier = Linear()
    for made in make(classifier):
        assert made.table.pixels is not None
    assert classifier.forwards == 10 * (2 * len(ALPHAS) - 5)


def test_a_table_that_was_made_is_read_and_no_image_is_opened_again(make: Make) -> None:
    first = make(Linear())
    classifier, opened = Linear(), list[int]()
    again = make(classifier, image_set(opened=opened))
    assert not classifier.calls
    assert not opened
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.table.logits, b.table.logits)


def test_a_further_corruption_costs_its_own_forwards_only(make: Make) -> None:
    make(Linear())
    classifier = Linear()
    make(classifier, corruptions=(FOG, NOISE))
    assert classifier.forwards == 10 * len(ALPHAS)


@pytest.mark.parametrize("changed", ["fingerprint", "source", "seed"])
def test_another_model_other_images_or_another_seed_make_tables_of_their_own(make: Make, changed: str) -> None:
    make(Linear())
    classifier = Linear()
    make(
        classifier,
        image_set(digest="e" if changed == "source" else "d"),
        fingerprint="g" if changed == "fingerprint" else "f",
        seed=1 if changed == "seed" else 0,
    )
    anew = 1 if changed == "seed" else 2  # clean images have no seed
    assert classifier.forwards == anew * 10 * len(ALPHAS)


def test_a_run_that_was_stopped_goes_on_where_it_was(make: Make) -> None:
    images = image_set(200)  # 4 pieces of 64 rows for each of 3 alphas and 2 domains
    uninterrupted = Linear()
    whole = make(uninterrupted, images, fingerprint="another")
    stopped = Linear(stop_after=9)
    with pytest.raises(KeyboardInterrupt):
        make(stopped, images)
    resumed = Linear()
    tables = make(resumed, images)
    assert stopped.forwards + resumed.forwards == uninterrupted.forwards == 2 * 200 * len(ALPHAS)
    for a, b in zip(whole, tables, strict=True):
        np.testing.assert_array_equal(a.table.logits, b.table.logits)


@pytest.mark.check("kills")
def test_a_run_that_was_killed_goes_on_where_it_was(make: Make, tmp_path: Path) -> None:
    code = exit_code(be_killed, str(tmp_path / "cache"))
    assert code == -signal.SIGKILL
    classifier = Linear()
    tables = make(classifier, image_set(200))
    assert classifier.forwards == 2 * 200 * len(ALPHAS) - AT_DEATH
    for a, b in zip(make(Linear(), image_set(200), fingerprint="another"), tables, strict=True):
        np.testing.assert_array_equal(a.table.logits, b.table.logits)


AT_DEATH = 64 + 64 + 64 + 8 + 64  # the first alpha of the clean images, and a piece of the foggy ones


def be_killed(cache: str) -> None:
    """Make the tables of 200 images in `cache`, and die after five calls of the classifier."""

    class Deadly(Linear):
        def logits(self, alpha_index: int, *images: Tensor) -> Tensor:
            if len(self.calls) == 5:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().logits(alpha_index, *images)

    make_tables(image_set(200), (FOG,), Deadly(), fingerprint="f", cache=Path(cache), seed=0)


def test_each_alpha_is_merged_once_for_all_domains(make: Make) -> None:
    classifier = Linear()
    make(classifier, image_set(100), (FOG, NOISE))
    assert [j for j, _ in groupby(j for j, _ in classifier.calls)] == [0, 1, 2]


@pytest.mark.parametrize(("block_images", "chunks"), [(None, 5), (5, 4 * 2)])
def test_shared_layers_are_computed_once_an_image_and_tables_have_the_bits_of_whole_forwards(
    pair: CheckpointPair, tmp_path: Path, block_images: int | None, chunks: int
) -> None:
    subject = classifier(sharing(pair))
    rows = trunk_rows(subject)
    made = make_real(tmp_path / "a", subject, block_images)
    check_as_whole(made, tmp_path / "b", pair)
    assert rows == [4] * chunks, "images of two domains, in chunks of four"


def test_a_run_that_goes_on_computes_shared_layers_for_no_image_that_is_done(
    pair: CheckpointPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped, merges = classifier(sharing(pair)), list[int]()
    merged = stopped.bank.copy

    def stopping(index: int) -> MergedCopy:
        merges.append(index)
        if len(merges) == len(GRID) + 8:
            raise KeyboardInterrupt
        return merged(index)

    monkeypatch.setattr(stopped.bank, "copy", stopping)
    with pytest.raises(KeyboardInterrupt):
        make_real(tmp_path / "a", stopped, 5)
    resumed = classifier(sharing(pair))
    rows = trunk_rows(resumed)
    made = make_real(tmp_path / "a", resumed, 5)
    check_as_whole(made, tmp_path / "b", pair)
    assert rows == [4] * (3 * 2), "three of four blocks of five images, in chunks of four"


def make_real(cache: Path, subject: PairClassifier, block_images: int | None = None) -> tuple[Made, ...]:
    """Make the tables of ten images, clean and foggy, with a model."""

    def samples() -> Iterator[Sample]:
        for i, x in enumerate(random_images(10)):
            yield Sample(f"image {i}", x, i % len(CLASS_NAMES))

    images = ImageSet("yard", CLASS_NAMES, "d", 10, samples)
    return make_tables(images, (FOG,), subject, fingerprint="f", cache=cache, seed=0, block_images=block_images)


def check_as_whole(made: tuple[Made, ...], cache: Path, pair: CheckpointPair) -> None:
    """Compare the tables of a pair with shared layers with those of whole forwards."""
    for ours, theirs in zip(made, make_real(cache, whole(sharing(pair), torch.float32)), strict=True):
        np.testing.assert_array_equal(ours.table.logits, theirs.table.logits)


def trunk_rows(subject: PairClassifier) -> list[int]:
    """The rows of each forward of the trunk from now on."""
    rows, trunk = list[int](), subject.bank.trunk
    assert trunk is not None
    trunk.register_forward_hook(lambda module, given, activations: rows.append(len(activations)))
    return rows


@pytest.mark.parametrize("images_at_once", [1, 7, 10, 13])
def test_small_blocks_make_the_same_tables(make: Make, images_at_once: int) -> None:
    whole = make(Linear(), fingerprint="whole")
    parts = make(Linear(), block_bytes=images_at_once * 3 * SIZE * SIZE)
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(a.table.logits, b.table.logits)


def test_an_image_that_cannot_be_read_is_left_out_and_named(make: Make) -> None:
    for _ in range(2):  # made, and read again
        clean, foggy = make(Linear(), image_set(broken=(3, 9)))
        assert clean.left_out == foggy.left_out == (("image 3", "cut off"), ("image 9", "cut off"))
        assert clean.table.labels.tolist() == [0, 1, 2, 1, 2, 0, 1, 2]


def test_images_of_which_none_can_be_read_end_it(make: Make) -> None:
    with pytest.raises(SettingsError, match=r"none of 3 images .* image 0: cut off"):
        make(Linear(), image_set(3, broken=(0, 1, 2)))


def test_a_damaged_table_is_made_anew(make: Make, tmp_path: Path) -> None:
    first = make(Linear())
    damaged = next((tmp_path / "cache").glob("yard_fog2@*.npz"))
    damaged.write_bytes(damaged.read_bytes()[:-200])
    next((tmp_path / "cache").glob("yard_clean@*.json")).write_text("{")
    again = make(Linear())
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.table.logits, b.table.logits)


def test_logits_that_are_not_finite_are_refused(make: Make) -> None:
    classifier = Linear()
    classifier._weights[1, :, 2] = torch.inf
    with pytest.raises(SettingsError, match=r"image 0 at alpha number 1.*fp32"):
        make(classifier)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=r"file.*--cache"):
        make_tables(image_set(), (), Linear(), fingerprint="f", cache=tmp_path / "file", seed=0)


def test_nothing_but_tables_and_their_records_is_left_in_the_folder(make: Make, tmp_path: Path) -> None:
    make(Linear())
    left = sorted(path.name.split("@")[0] + path.suffix for path in (tmp_path / "cache").iterdir())
    assert left == ["yard_clean.json", "yard_clean.npz", "yard_fog2.json", "yard_fog2.npz"]
    record = json.loads(next((tmp_path / "cache").glob("yard_fog2@*.json")).read_text())
    assert record["corruption"] == "fog2"
    assert record["images"] == 10
    assert len(read_table(next((tmp_path / "cache").glob("yard_fog2@*.npz")))) == 10
