"""The scripts of `deploy/`, loaded as modules: no package has them."""

from __future__ import annotations

import importlib.util
from typing import Any

from tests.deploy.watching import DEPLOY


def loaded(name: str) -> Any:
    """The module of deploy/NAME.py, a new one at each call."""
    spec = importlib.util.spec_from_file_location(name, DEPLOY / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
