"""The JSON of one camera's own page. The page inserts all of its texts as text, never as markup."""

from __future__ import annotations

from typing import Any

from adawise.watch.row import STEP_S, STEPS, CameraView
from adawise.watch.web.feed import rounded, row_document


def camera_document(view: CameraView) -> dict[str, Any]:
    """Return the content of a camera's page as a JSON object; times are Unix seconds."""
    return {
        "title": view.title,
        "now": round(view.now_s, 1),
        "step": STEP_S,
        "steps": STEPS,
        "row": row_document(view.row),
        "facts": [[heading, [*map(list, facts)]] for heading, facts in view.facts],
        "conditions": [
            {
                "number": each.number,
                "alpha": rounded(each.alpha, 2),
                "seen": rounded(each.last_seen_s, 1),
                "returns": each.returns,
                "current": each.is_current,
            }
            for each in view.conditions
        ],
        "conditions_seen": view.conditions_seen,
        "hints": [{"heading": hint.heading, "steps": [*map(list, hint.steps)]} for hint in view.hints],
    }
