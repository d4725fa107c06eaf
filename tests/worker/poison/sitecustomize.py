"""Imported by every interpreter that has this folder in its path."""

from __future__ import annotations

from tests.worker.poison import arm

arm()
