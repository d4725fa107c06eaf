"""Every command that asks for labelled images takes the same forms of them, and says so in the same words."""

from __future__ import annotations

import pytest

from adawise.__main__ import main
from adawise.labels.folders import FORMS


@pytest.mark.parametrize("command", ["card make", "evaluate", "finetune"])
def test_help_names_the_forms(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    assert FORMS in " ".join(capsys.readouterr().out.split())
