from __future__ import annotations

import open_clip
import pytest
import torch
from torch import Tensor

from adawise.adapt.names import GRID
from adawise.clip import classifier as module
from adawise.clip.classifier import PairClassifier
from adawise.clip.load import CheckpointPair
from adawise.errors import SettingsError
from tests.models import CLASSES, TEMPLATES, PairFolder, bank_bytes, classifier, load, random_images

DTYPES = [torch.float32, torch.bfloat16]
IMAGES = random_images(23)


def open_clips_logits(pair_folder: PairFolder, end: int, images: Tensor, dtype: torch.dtype) -> Tensor:
    """What a user would compute with open_clip alone."""
    name = (pair_folder.theta_0, pair_folder.theta_1)[end]
    model, _, _ = open_clip.create_model_and_transforms(name)
    prompts = [lambda name, template=template: template.replace("{}", name) for template in TEMPLATES]
    head = open_clip.build_zero_shot_classifier(model.eval(), open_clip.get_tokenizer(name), list(CLASSES), prompts)
    mean, std = (torch.tensor(model.visual.preprocess_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    x = ((images.float() / 255.0) - mean) / std
    with torch.inference_mode():
        unit = torch.nn.functional.normalize(model.visual.to(dtype)(x.to(dtype)).float(), dim=-1)
        logits: Tensor = unit @ head * model.logit_scale.exp()
    return logits


@pytest.mark.parametrize("end", [0, 1])
def test_at_the_ends_logits_are_open_clips_own(pair: CheckpointPair, pair_folder: PairFolder, end: int) -> None:
    logits = classifier(pair).logits((0, 20)[end], IMAGES)
    torch.testing.assert_close(logits, open_clips_logits(pair_folder, end, IMAGES, torch.float32), rtol=1e-4, atol=1e-4)


def test_on_a_processor_the_checkpoints_use_the_memory_of_the_buffers_that_are_merged(pair_folder: PairFolder) -> None:
    loaded = load(pair_folder)
    before = [{name: p.clone() for name, p in theta.items()} for theta in (loaded.theta_0, loaded.theta_1)]
    subject = classifier(loaded)
    expected = subject.logits(7, IMAGES)
    buffers = {flat.untyped_storage().data_ptr() for flat in subject.bank._ends}
    for model, theta, values in zip(loaded._models, (loaded.theta_0, loaded.theta_1), before, strict=True):
        of_model = dict(model.visual.named_parameters())
        for name, value in values.items():
            assert torch.equal(theta[name], value)
            assert torch.equal(of_model[name], value)
            assert {t.untyped_storage().data_ptr() for t in (theta[name], of_model[name])} <= buffers
    assert torch.equal(classifier(loaded).logits(7, IMAGES), expected), "another classifier of the same pair"
    assert torch.equal(subject.logits(7, IMAGES), expected)


@pytest.mark.parametrize("end", [0, 1])
def test_in_bfloat16_they_differ_by_rounding_alone(pair: CheckpointPair, pair_folder: PairFolder, end: int) -> None:
    logits = classifier(pair, dtype=torch.bfloat16).logits((0, 20)[end], IMAGES)
    exact = open_clips_logits(pair_folder, end, IMAGES, torch.float32)
    theirs = (open_clips_logits(pair_folder, end, IMAGES, torch.bfloat16) - exact).abs().mean()
    assert (logits - exact).abs().mean() <= 1.5 * theirs  # as far from float32 as open_clip's own bfloat16 is


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_ends_are_those_of_a_classifier_that_knows_only_the_ends_bit_for_bit(
    pair: CheckpointPair, dtype: torch.dtype
) -> None:
    whole, ends = classifier(pair, dtype=dtype), classifier(pair, dtype=dtype, alphas=(0.0, 1.0))
    for j in range(21):  # merges in between must not disturb
        whole.logits(j, IMAGES[:2])
    assert torch.equal(whole.logits(0, IMAGES), ends.logits(0, IMAGES))
    assert torch.equal(whole.logits(20, IMAGES), ends.logits(1, IMAGES))
    assert not torch.equal(whole.logits(0, IMAGES), whole.logits(20, IMAGES))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("chunk_rows", [1, 4, 8])
def test_an_images_logits_are_the_same_bits_whoever_shares_its_chunk(
    pair: CheckpointPair, dtype: torch.dtype, chunk_rows: int
) -> None:
    subject = classifier(pair, dtype=dtype, chunk_rows=chunk_rows)
    together = subject.logits(7, IMAGES)
    generator = torch.Generator().manual_seed(0)
    for n in (1, 2, 3, 7, 8, 9, 16, 23):
        order = torch.randperm(len(IMAGES), generator=generator)[:n]
        assert torch.equal(subject.logits(7, IMAGES[order]), together[order])
    for place in range(chunk_rows):  # the same image at every place of a chunk, among others
        others = random_images(chunk_rows, seed=place + 1)
        others[place] = IMAGES[5]
        assert torch.equal(subject.logits(7, others)[place], together[5])


@pytest.mark.parametrize("embedding", [31, 32, 33, 100])
@pytest.mark.parametrize("classes", [1, 2, 5, 33, 100])
def test_the_head_gives_a_row_the_same_bits_at_every_place(embedding: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(embedding)
    features = torch.randn(9, embedding, generator=generator)
    head = torch.randn(classes, embedding, generator=generator)
    logits = module._head_logits(features, head, 9)
    for shift in range(1, 9):
        assert torch.equal(module._head_logits(features.roll(shift, 0), head, 9).roll(-shift, 0), logits)
    expected = torch.nn.functional.normalize(features.double(), dim=-1) @ head.double().T
    torch.testing.assert_close(logits.double(), expected, rtol=1e-5, atol=1e-5)


def test_warming_up_proves_that_places_do_not_matter_and_refuses_a_chunk_in_which_they_do(
    pair: CheckpointPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = classifier(pair)
    subject.warm_up()
    assert subject.bank.merges == 2

    def by_place(features: Tensor, head: Tensor, n: int) -> Tensor:
        return (features @ head.T + torch.arange(len(features)).unsqueeze(-1))[:n]

    monkeypatch.setattr(module, "_head_logits", by_place)
    with pytest.raises(SettingsError, match=r"model\.chunk_rows is 4: .*a replay would not be exact\. Set model"):
        subject.warm_up()


@pytest.mark.parametrize("dtype", DTYPES)
def test_after_many_merges_in_a_small_bank_logits_are_those_of_a_fresh_classifier(
    pair: CheckpointPair, dtype: torch.dtype
) -> None:
    worn = classifier(pair, dtype=dtype, copies=2)
    for j in (3, 9, 20, 0, 11, 4, 17, 9, 3, 20, 5):
        fresh = classifier(pair, dtype=dtype, alphas=GRID)
        assert torch.equal(worn.logits(j, IMAGES[:5]), fresh.logits(j, IMAGES[:5]))
    assert worn.bank.capacity == 2
    assert worn.bank.merges >= 9


def test_logits_do_not_change_under_the_callers_hands(pair: CheckpointPair) -> None:
    subject = classifier(pair, copies=2)
    first = subject.logits(3, IMAGES)
    kept = first.clone()
    for j in range(21):
        subject.logits(j, IMAGES)
    assert torch.equal(first, kept)
    assert first.dtype == torch.float32
    assert first.shape == (23, len(CLASSES))
    assert not first.is_inference()  # usable with autograd and in place


def test_softmaxes_differ_between_images_and_alphas(pair: CheckpointPair) -> None:
    subject = classifier(pair)
    p = torch.stack([subject.logits(j, IMAGES).softmax(dim=-1) for j in (0, 10, 20)])
    assert p.std(dim=1).max() > 0.05
    assert (p[0] - p[2]).abs().max() > 0.05


@pytest.mark.parametrize("index", [0, 7, 20])
def test_the_logit_scale_is_interpolated_in_log_space(pair: CheckpointPair, index: int) -> None:
    subject = classifier(pair)
    zero, one = pair.log_scales
    alpha = GRID[index]
    features = torch.nn.functional.normalize(subject.bank.tower(index)(_normalised(pair, IMAGES[:3])), dim=-1)
    cosines = features @ pair.prompts(CLASSES, TEMPLATES).head(alpha)
    scale = torch.tensor((1 - alpha) * zero + alpha * one).exp()
    torch.testing.assert_close(subject.logits(index, IMAGES[:3]), cosines * scale, rtol=1e-4, atol=1e-4)


def _normalised(pair: CheckpointPair, images: Tensor) -> Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (pair.mean, pair.std))
    return (images.float() / 255.0 - mean) / std


def test_an_interpolated_head_has_unit_length_and_the_ends_of_the_text_heads(pair: CheckpointPair) -> None:
    text, straight = classifier(pair), classifier(pair, head="interpolate")
    for j in (0, 20):
        torch.testing.assert_close(straight.logits(j, IMAGES), text.logits(j, IMAGES), rtol=1e-5, atol=1e-5)
    zero, one = (pair.prompts(CLASSES, TEMPLATES).head(alpha) for alpha in (0.0, 1.0))
    middle = torch.nn.functional.normalize((zero + one) / 2, dim=0)
    torch.testing.assert_close(straight._class_embeddings(10), middle)
    assert not torch.allclose(straight._class_embeddings(10), text._class_embeddings(10), atol=1e-3)


def identity_of(pair: CheckpointPair, **changes: object) -> tuple[dict[str, str], str]:
    subject = classifier(pair, **changes)  # type: ignore[arg-type]
    return subject.identity, subject.fingerprint


def test_identity_is_what_a_card_belongs_to_and_the_fingerprint_is_the_numerics_too(pair: CheckpointPair) -> None:
    identity, fingerprint = identity_of(pair)
    assert identity_of(pair) == (identity, fingerprint)
    for change, part in (
        ({"classes": ("bus", "car", "bicycle", "person", "empty street")}, "classes"),
        ({"templates": ("{}",)}, "templates"),
        ({"head": "interpolate"}, "head"),
    ):
        other, other_fingerprint = identity_of(pair, **change)
        assert {name for name in identity if identity[name] != other[name]} == {part}
        assert other_fingerprint != fingerprint
    for numerics in ({"chunk_rows": 8}, {"dtype": torch.bfloat16}):
        same, other_fingerprint = identity_of(pair, **numerics)
        assert same == identity
        assert other_fingerprint != fingerprint


@pytest.mark.parametrize(
    ("library", "name", "version"),
    [("PIL", "__version__", "12.0.0.post1"), ("PIL.features", "version", str), ("simplejpeg", "__version__", "1.9.1")],
    ids=["Pillow-SIMD", "another libjpeg", "simplejpeg"],
)
def test_what_decodes_is_part_of_the_fingerprint_and_not_of_the_identity(
    pair: CheckpointPair, monkeypatch: pytest.MonkeyPatch, library: str, name: str, version: object
) -> None:
    identity, fingerprint = identity_of(pair)
    monkeypatch.setattr(f"{library}.{name}", version)
    same, other_fingerprint = identity_of(pair)
    assert same == identity
    assert other_fingerprint != fingerprint


def test_images_and_the_rows_of_their_chunks_are_counted(pair: CheckpointPair) -> None:
    subject = classifier(pair)
    subject.logits(0, IMAGES)
    subject.logits(3, IMAGES[:1])
    assert subject.images == 24
    assert subject.rows == 7 * subject.chunk_rows  # 24 images in seven chunks of four
    assert isinstance(subject, PairClassifier)
    assert subject.alphas == GRID


def test_the_bytes_of_a_copy_follow_the_dtype(pair: CheckpointPair) -> None:
    assert classifier(pair, dtype=torch.float32).bank.copy_bytes == bank_bytes(pair, torch.float32)
    assert classifier(pair, dtype=torch.bfloat16).bank.copy_bytes == bank_bytes(pair, torch.float32) / 2
