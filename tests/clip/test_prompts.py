from __future__ import annotations

import open_clip
import pytest
import torch

from adawise.adapt.names import GRID
from adawise.clip import prompts as module
from adawise.clip.load import CheckpointPair
from tests.models import CLASSES, TEMPLATES, classifier, random_images

CPU = torch.device("cpu")
IMAGES = random_images(3)
IMAGE_TOWER = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
}
MANY = tuple(f"thing {n}" for n in range(40))  # 120 prompts: eight parts


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The alphas whose heads were begun, in that order."""
    alphas: list[float] = []
    encode = module.Prompts.encode

    def counted(self: module.Prompts, alpha: float, where: torch.device) -> module.Encoding:
        alphas.append(alpha)
        return encode(self, alpha, where)

    monkeypatch.setattr(module.Prompts, "encode", counted)
    return alphas


@pytest.mark.parametrize("alpha", [0.0, 0.35, 1.0])
def test_a_context_that_is_cut_behind_the_longest_prompt_gives_the_same_head(
    pair: CheckpointPair, alpha: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = pair.prompts(CLASSES, TEMPLATES)
    assert cut._tokens.shape[1] == 10  # of "a dark photo of a empty street.", with its two ends
    monkeypatch.setattr(module, "_stops_at_the_end", lambda model: False)
    whole = pair.prompts(CLASSES, TEMPLATES)
    assert whole._tokens.shape[1] == 16
    # Equal in real arithmetic; float32 sums in another order.
    torch.testing.assert_close(cut.head(alpha), whole.head(alpha), rtol=0, atol=1e-6)


def test_a_text_tower_that_is_open_clips_module_of_its_own_is_cut_too() -> None:
    torch.manual_seed(0)
    text = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    models = [open_clip.CustomTextCLIP(**IMAGE_TOWER, text_cfg=text).eval() for _ in range(2)]
    tokens = open_clip.get_tokenizer("ViT-B-32")(["a car", "a long red bus"], context_length=16)
    subject = module.Prompts((models[0], models[1]), tokens, classes=2)
    assert subject._tokens.shape[1] == 6
    with torch.inference_mode():
        expected = models[1].encode_text(tokens, normalize=True).T
    torch.testing.assert_close(subject.head(1.0), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "text",
    [{"no_causal_mask": True}, {"pool_type": "last"}, {"embed_cls": True}],
    ids=["that looks both ways", "that pools the last token", "with a class token behind the text"],
)
def test_a_text_tower_is_left_whole(text: dict[str, object]) -> None:
    whole = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1, **text}
    model = open_clip.CustomTextCLIP(**IMAGE_TOWER, text_cfg=whole)
    assert not module._stops_at_the_end(model)


def test_a_prompt_that_fills_the_context_is_read_to_its_end(pair: CheckpointPair) -> None:
    long = ("one two three four five six seven eight nine ten eleven twelve thirteen",)
    assert pair.prompts(long, TEMPLATES)._tokens.shape[1] == 16


def test_a_head_is_the_same_bits_made_at_once_or_in_parts_between_other_work(pair: CheckpointPair) -> None:
    subject = pair.prompts(MANY, TEMPLATES)
    first, second = subject.encode(0.35, CPU), subject.encode(0.8, CPU)
    for _ in range(8):
        next(first)
        next(second)
        subject.head(0.1)
    heads = []
    for making in (second, first):
        with pytest.raises(StopIteration) as done:
            next(making)
        heads.append(done.value.value)
    assert torch.equal(heads[1], subject.head(0.35))
    assert torch.equal(heads[0], subject.head(0.8))


def test_the_digest_tells_prompts_apart_and_which_belong_to_a_class(pair: CheckpointPair) -> None:
    digests = {
        pair.prompts(classes, templates).digest
        for classes, templates in (
            (("a", "b"), ("{}",)),
            (("b", "a"), ("{}",)),
            (("a",), ("{}", "b")),
            (("a", "b"), ("{}", "a {}")),
        )
    }
    assert len(digests) == 4
    assert pair.prompts(("a", "b"), ("{}",)).digest in digests


def test_logits_are_the_same_bits_in_whatever_order_heads_were_encoded(pair: CheckpointPair) -> None:
    expected = [classifier(pair, classes=MANY).logits(j, IMAGES) for j in range(len(GRID))]
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        subject = classifier(pair, classes=MANY)
        for j in torch.randperm(len(GRID), generator=generator).tolist():
            for _ in range(int(torch.randint(0, 12, (1,), generator=generator))):
                subject.prepare(torch.randperm(len(GRID), generator=generator).tolist())
            assert torch.equal(subject.logits(j, IMAGES), expected[j])


def test_spare_time_encodes_a_part_at_a_time_the_likeliest_head_first_until_none_is_missing(
    pair: CheckpointPair, begun: list[float]
) -> None:
    subject, likely = classifier(pair, classes=MANY), (10, 0, 20)
    parts = 0
    while subject.prepare(likely):
        parts += 1
    assert begun == [0.5, 0.0, 1.0]
    assert parts == 3 * 9  # eight parts a head, and the mean over them
    subject.logits(10, IMAGES)
    assert begun == [0.5, 0.0, 1.0]


def test_a_start_waits_for_one_head_alone(pair: CheckpointPair, begun: list[float]) -> None:
    subject = classifier(pair)
    subject.warm_up(7)
    assert begun == [0.35]


def test_a_shared_text_tower_needs_one_head_whatever_is_likely(pair: CheckpointPair) -> None:
    subject = classifier(pair)
    subject._shared_head = True
    parts = 0
    while subject.prepare(range(21)):
        parts += 1
    assert parts == 2
    assert list(subject._encoded) == [0.0]
