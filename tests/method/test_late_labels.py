"""The study of late labels, on tables of which it is known who is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adawise_lab.evaluate.tables import write_table
from tests.lab.evaluate.building import a_table
from tools.method.choose import card_of
from tools.method.late_labels import domains_of, draw, heated, lines

pytestmark = pytest.mark.check("tools")
BEST = (0.0, 0.0, 0.0, 1.0, 1.0, 1.0)
NAMES = ("known_clean", "known_fog", "known_dark", "new_clean", "new_fog", "new_dark")


def test_images_that_were_labelled_do_not_judge() -> None:
    tables = [a_table(name, best, images=60) for name, best in zip(NAMES, BEST, strict=True)]
    domains = domains_of(tables, card_of(tables), "tsallis")
    drawn = draw(domains, 50, 5, "tsallis", seed=0)
    assert (drawn.images, drawn.conditions) == (50, 5)
    assert sorted(len(one.wrong) for one in drawn.rest) == [50] * 5 + [60]
    again = draw(domains, 50, 5, "tsallis", seed=0)
    np.testing.assert_array_equal(drawn.nats, again.nats)


def test_heat_is_by_alpha_and_every_regime_has_its_row(tmp_path: Path) -> None:
    tables = [a_table(name, best, images=60) for name, best in zip(NAMES, BEST, strict=True)]
    cooled = heated(tables, -0.5)
    np.testing.assert_array_equal(cooled[0].logits[0], tables[0].logits[0])
    np.testing.assert_allclose(cooled[0].logits[-1], tables[0].logits[-1] * np.exp(0.5), rtol=1e-5)
    (tmp_path / "pair").mkdir()
    for table in tables:
        write_table(tmp_path / "pair" / f"{table.name}.npz", table)
    rows = list(lines(tmp_path / "pair", (0.0, -0.5), labels=50, seeds=2, streams=0))
    assert [row.split(" | ")[2:4] for row in rows] == [["0", "5"], ["0", "8"], ["-0.5", "5"], ["-0.5", "8"]]
