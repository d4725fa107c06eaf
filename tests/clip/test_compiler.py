"""torch's compiler is loaded by whom calls it, and by no start of the program."""

from __future__ import annotations

import subprocess
import sys

import pytest

from adawise.clip.compiler import postponed

STORY = """
import sys
import adawise.clip.load
import torch
assert "torch._dynamo" not in sys.modules, "loaded with open_clip"
pooling = sys.modules["torchvision.ops.roi_align"]
assert pooling.is_compile_supported("cpu") is True
assert "torch._dynamo" in sys.modules
assert torch.compile(lambda x: x + 1, backend="eager")(torch.zeros(2)).tolist() == [1, 1]
"""


@pytest.mark.check("models")
def test_it_is_loaded_by_the_first_who_calls_it() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", STORY], check=True)


def test_a_name_that_it_does_not_stand_in_for_is_told_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("torch._dynamo")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ImportError, match="is_compiling"), postponed():
        exec("from torch._dynamo.utils import is_compiling")
    assert "torch._dynamo" not in sys.modules
