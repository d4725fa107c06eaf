"""How quick the decoder is with damaged messages, of which none may fell it. `python -m tools.fuzz` takes a million."""

from __future__ import annotations

from tools.fuzz.__main__ import run

MESSAGES, SEED = 100_000, 2


def main() -> None:
    """Print rows by reason, the slowest message, and memory."""
    run(seed=SEED, first=0, messages=MESSAGES, processes=2)
