"""What was written before the package was called `adawise` is read, continued and judged (`tests/fixtures`)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from adawise.__main__ import main
from adawise.app.model import load_model
from adawise.card.card import read_card
from adawise.errors import CardError
from adawise.output.read.rows import read_predictions, read_traces
from adawise.recording.source import RecordingSource
from adawise_lab.evaluate.tables import read_tables
from tests.fixtures.making import serve, settings

FIXTURE = Path(__file__).parent / "fixtures" / "before_0_2"

pytestmark = pytest.mark.usefixtures("logs_of_this_process")


def copied(name: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURE / name, tmp_path / name))


@pytest.mark.parametrize("name", ["root", "compacted"])
def test_a_root_is_whole_and_gone_on_from(name: str, tmp_path: Path) -> None:
    root = copied(name, tmp_path)
    assert main(["verify", str(root)]) == 0
    before = read_traces(root).table()
    serve(settings(root), RecordingSource(str(FIXTURE / "following"), order="timestamp", seed=0, max_poll_records=512))
    assert main(["verify", str(root)]) == 0
    after = read_traces(root).table()
    new = after.num_rows - before.num_rows
    assert new > 0
    assert not {"start", "settings_changed"} & set(after["reset"].to_pylist()[-new:])
    claims = [json.loads((root / "_models" / name).read_text())["identity"] for name in ("000000.json", "000001.json")]
    assert len(list((root / "_models").iterdir())) == 2
    assert claims[1].pop("config")
    assert claims[0] == claims[1], "no other pair to it"


def test_a_compacted_root_says_what_its_segments_said() -> None:
    rows = [read_predictions(FIXTURE / name).table() for name in ("root", "compacted")]
    assert rows[0].num_rows == rows[1].num_rows > 0
    assert main(["diff", str(FIXTURE / "root"), str(FIXTURE / "compacted")]) == 0


def test_labels_that_were_stored_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drift", str(FIXTURE / "compacted"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["helped"]["labelled"] == 3


def test_a_card_is_read_with_its_heads(capsys: pytest.CaptureFixture[str]) -> None:
    card = FIXTURE / "pair.card.json"
    assert read_card(card).heads is not None
    assert read_card(card).to_json() == card.read_text()  # states of streams know it by these bytes
    assert main(["card", "show", str(card)]) == 0
    assert "entropy" in capsys.readouterr().out


def test_a_card_of_earlier_pixels_is_taken_with_a_warning(tmp_path: Path) -> None:
    card = FIXTURE / "pair.card.json"
    chosen = settings(tmp_path).model.model_copy(update={"card": card})
    with capture_logs() as logs:
        model = load_model(chosen, settings(tmp_path).decode)
    assert model.card == read_card(card)
    (received,) = [line for line in logs if line["event"] == "card_made_of_earlier_pixels"]
    claimed = json.loads((FIXTURE / "root" / "_models" / "000000.json").read_text())["identity"]
    assert received["made_with"] == claimed["preprocess"] == model.classifier.lineage["preprocess"]
    assert received["now"] == model.classifier.identity["preprocess"] != claimed["preprocess"]


def test_a_card_of_other_pixels_is_refused(tmp_path: Path) -> None:
    data = json.loads((FIXTURE / "pair.card.json").read_text())
    data["identity"]["preprocess"] = data["identity"]["preprocess"].replace("bicubic", "bilinear")
    (card := tmp_path / "card.json").write_text(json.dumps(data))
    with pytest.raises(CardError, match="its preprocess is"):
        load_model(settings(tmp_path).model.model_copy(update={"card": card}), settings(tmp_path).decode)


def test_tables_of_logits_are_evaluated_as_they_were(capsys: pytest.CaptureFixture[str]) -> None:
    (table,) = read_tables(FIXTURE / "tables")
    assert len(table.labels) == 48
    arguments = ["evaluate", "--logits", str(FIXTURE / "tables"), "--strategies", "fixed", "--streams", "short"]
    assert main([*arguments, "--seeds", "1", "--json"]) == 0
    now, then = json.loads(capsys.readouterr().out), json.loads((FIXTURE / "evaluation" / "result.json").read_text())
    compared = ("fixed", "zero_shot", "fine_tuned", "best_fixed")
    accuracies = [
        {(row["strategy"], row["order"]): row["accuracy"] for row in rows if row["strategy"] in compared}
        for rows in (now["rows"], then["rows"])
    ]
    assert accuracies[0] == accuracies[1]
    assert len(accuracies[0]) == 8
