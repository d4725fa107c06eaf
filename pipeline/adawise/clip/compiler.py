"""open_clip without torch's compiler, which a worker never calls and whose import takes longer than open_clip's own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_PACKAGE, _MODULE = "torch._dynamo", "torch._dynamo.utils"


@contextmanager
def postponed() -> Iterator[None]:
    """Imports of `torch._dynamo` within get a stand-in; the first who calls it loads the real one.

    Nothing where it is loaded already. The stand-in has the two names that torchvision and timm ask for on import.

    Raises:
        ImportError, AttributeError: (within) another name was asked for, by another release of theirs.
    """
    if _PACKAGE in sys.modules:
        yield
        return
    package, module = ModuleType(_PACKAGE), ModuleType(_MODULE)
    package.__path__ = []  # a package without modules but this
    vars(package).update(utils=module, disable=_disable)
    vars(module).update(is_compile_supported=_is_compile_supported)
    sys.modules.update({_PACKAGE: package, _MODULE: module})
    try:
        yield
    finally:
        for name in (_PACKAGE, _MODULE):
            del sys.modules[name]


def _is_compile_supported(device_type: Any) -> bool:
    from torch._dynamo.utils import is_compile_supported

    return bool(is_compile_supported(device_type))


def _disable(function: Callable[..., Any], recursive: bool = True, *, reason: str | None = None) -> Callable[..., Any]:
    """Marks what the compiler is to leave alone: it is not called."""
    del recursive, reason
    return function
