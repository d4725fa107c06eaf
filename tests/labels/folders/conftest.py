"""Coloured shapes, as for fine-tuning."""

from __future__ import annotations

from tests.lab.finetune.conftest import shapes

__all__ = ["shapes"]
