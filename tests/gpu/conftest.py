"""`card` is a CUDA card, or the reason why there is none; `machine` is a card or its rehearsal on the processor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch

from adawise.clip.classifier import PairClassifier
from adawise.clip.cuda import Cuda
from adawise.clip.load import CheckpointPair
from tests.gpu.rehearsal import CARD, Rehearsal
from tests.models import CLASSES, TEMPLATES, bank_bytes


def why_no_card() -> str | None:
    """Why nothing can run on a card here; None if it can."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} sees no CUDA card: there is none, or no driver for CUDA {torch.version.cuda}"
    return None


@pytest.fixture(scope="session")
def card() -> torch.device:
    if reason := why_no_card():
        pytest.skip(reason)
    return torch.device("cuda:0")


@dataclass(frozen=True)
class Machine:
    """Where a test runs. `rehearsal` is None on a card."""

    where: torch.device
    rehearsal: Rehearsal | None

    @contextmanager
    def running(self) -> Iterator[None]:
        if self.rehearsal is None:
            yield
        else:
            with self.rehearsal:
                yield

    @property
    def dtypes(self) -> list[torch.dtype]:
        """Number formats that the machine has."""
        both = [torch.float32, torch.bfloat16]
        if self.rehearsal is not None:
            return both
        return [*(both if self.device().has_bfloat16 else both[:1]), torch.float16]

    def device(self, *, tf32: bool = False, graphs: bool = True) -> Cuda:
        return Cuda(self.where, tf32=tf32, graphs=graphs, cuda=self.rehearsal or torch.cuda)

    def classifier(
        self,
        pair: CheckpointPair,
        *,
        dtype: torch.dtype = torch.float32,
        copies: int = 21,
        chunk_rows: int = 8,
        device: Cuda | None = None,
    ) -> PairClassifier:
        with self.running():
            return PairClassifier(
                pair,
                classes=CLASSES,
                templates=TEMPLATES,
                chunk_rows=chunk_rows,
                dtype=dtype,
                device=device or self.device(),
                bank_bytes=copies * bank_bytes(pair, dtype),
                head="text",
            )


@pytest.fixture(params=["rehearsed", "card"])
def machine(request: pytest.FixtureRequest) -> Machine:
    if request.param == "rehearsed":
        return Machine(CARD, Rehearsal(0))
    return Machine(request.getfixturevalue("card"), None)
