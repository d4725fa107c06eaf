from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from adawise.clip.heads import encoded, heads_path, read_heads
from adawise.clip.load import CheckpointPair
from adawise.clip.prompts import Prompts
from adawise.errors import CardError
from tests.models import CLASSES, classifier, random_images

EMBEDDINGS = torch.randn(3, 8, 5, generator=torch.Generator().manual_seed(0))


def put(path: Path, embeddings: torch.Tensor) -> str:
    content, digest = encoded(embeddings)
    path.write_bytes(content)
    return digest


def test_heads_lie_beside_their_card() -> None:
    assert heads_path(Path("a/pair.card.json")) == Path("a/pair.card.heads.safetensors")


def test_heads_are_the_same_after_the_file(tmp_path: Path) -> None:
    digest = put(tmp_path / "h", EMBEDDINGS)
    back = read_heads(tmp_path / "h", digest, (3, 5))
    assert back is not None
    assert torch.equal(back, EMBEDDINGS)


def test_without_the_file_there_are_no_heads(tmp_path: Path) -> None:
    assert read_heads(tmp_path / "none", "0" * 16, (3, 5)) is None


def test_heads_of_another_card_or_damaged_are_refused(tmp_path: Path) -> None:
    digest = put(tmp_path / "h", EMBEDDINGS)
    with pytest.raises(
        CardError, match=rf"expected heads with hash {'0' * 16}, got {digest}\. Delete it .*adawise card"
    ):
        read_heads(tmp_path / "h", "0" * 16, (3, 5))
    content = bytearray((tmp_path / "h").read_bytes())
    content[-1] ^= 1
    (tmp_path / "h").write_bytes(content)
    with pytest.raises(CardError, match="expected heads with hash"):
        read_heads(tmp_path / "h", digest, (3, 5))


def test_a_file_that_holds_something_else_is_refused_even_if_the_card_names_it(tmp_path: Path) -> None:
    from hashlib import sha256

    def digest() -> str:
        return sha256((tmp_path / "h").read_bytes()).hexdigest()[:16]

    (tmp_path / "h").write_bytes(b"no heads" * 10)
    with pytest.raises(CardError, match="not a card's heads"):
        read_heads(tmp_path / "h", digest(), (3, 5))
    save_file({"other": EMBEDDINGS}, tmp_path / "h")
    with pytest.raises(CardError, match="not a card's heads"):
        read_heads(tmp_path / "h", digest(), (3, 5))
    for wrong in (EMBEDDINGS[:2], EMBEDDINGS[0], EMBEDDINGS.double(), EMBEDDINGS[..., :4]):
        with pytest.raises(CardError, match="expected float32 heads for 3 alphas and 5 classes, got"):
            read_heads(tmp_path / "h", put(tmp_path / "h", wrong), (3, 5))


@pytest.mark.parametrize("head", ["text", "interpolate"])
def test_with_the_heads_of_its_card_a_classifier_encodes_no_prompt_and_gives_the_same_logits(
    pair: CheckpointPair, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = random_images(3)
    first = classifier(pair, head=head)
    logits = [first.logits(j, images) for j in (0, 7, 20)]
    embeddings = first.embeddings()
    assert embeddings.shape == (21 if head == "text" else 2, 32, len(CLASSES))

    def encode(*_: object) -> None:
        raise AssertionError("a prompt was encoded")

    second = classifier(pair, head=head)
    second.use_embeddings(embeddings, "abc")
    monkeypatch.setattr(Prompts, "encode", encode)
    for expected, j in zip(logits, (0, 7, 20), strict=True):
        assert torch.equal(second.logits(j, images), expected)


def test_heads_that_come_from_a_file_are_part_of_the_fingerprint(pair: CheckpointPair) -> None:
    own, given = classifier(pair), classifier(pair)
    given.use_embeddings(own.embeddings(), "abc")
    assert given.fingerprint != own.fingerprint
    assert given.identity == own.identity
