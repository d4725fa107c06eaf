"""Every command that asks for labelled images takes the same forms of them, and says so in the same words."""

from __future__ import annotations

import pytest
import torch

from adawise.__main__ import main
from adawise.adapt.names import GRID
from adawise.clip.load import CheckpointPair
from adawise.labels.folders import FORMS
from adawise_lab.labelled import logits_of
from tests.clip.test_trunk import sharing, whole
from tests.models import classifier, random_images


@pytest.mark.parametrize("command", ["card make", "evaluate", "finetune"])
def test_help_names_the_forms(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    assert FORMS in " ".join(capsys.readouterr().out.split())


class Counted:
    """Progress that counts."""

    def __init__(self) -> None:
        self.done = 0

    def advance(self, count: int = 1) -> None:
        self.done += count

    def note(self, text: str) -> None: ...


@pytest.mark.parametrize("step", [1, 4])
@pytest.mark.cases("lab", every=2)
def test_logits_at_many_alphas_run_shared_layers_once_an_image(pair: CheckpointPair, step: int) -> None:
    images, labels = random_images(23), torch.arange(23) % 5
    batches = [(images[:9], labels[:9]), (images[9:], labels[9:])]
    subject, bar, rows = classifier(sharing(pair)), Counted(), list[int]()
    trunk = subject.bank.trunk
    assert trunk is not None
    trunk.register_forward_hook(lambda module, given, activations: rows.append(len(activations)))
    found, truth = logits_of(subject, batches, bar, step=step)
    assert rows == [4] * (3 + 4), "9 and 14 images in chunks of four"
    assert bar.done == 23 * len(range(0, 21, step))
    assert torch.equal(truth, labels)
    expected, _ = logits_of(whole(sharing(pair), torch.float32), batches, Counted(), step=step)
    assert len(found) == len(GRID)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
