"""`ensemble_by_entropy`: the endpoints' outputs mixed per image, the surer model weighing more.

With the weight exp(-H_1) / (exp(-H_0) + exp(-H_1)), the per-sample coefficient of DaWin (ICLR 2025) without its offset.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from adawise.adapt.objective import entropy
from adawise.adapt.strategies.ensemble import EnsembleSearch


@dataclass(frozen=True)
class EnsembleByEntropySearch(EnsembleSearch):
    """See `ensemble`; only the weight differs."""

    name: ClassVar[str] = "ensemble_by_entropy"

    def weight(self, log_p_0: Tensor, log_p_1: Tensor) -> Tensor:
        """See `EnsembleSearch.weight`."""
        gap = torch.from_numpy(entropy(log_p_0) - entropy(log_p_1)).to(log_p_0.dtype)
        return torch.sigmoid(gap).clamp(1e-6, 1.0 - 1e-6).unsqueeze(-1)
