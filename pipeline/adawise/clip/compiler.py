"""The import of open_clip without torch's compiler, which a worker never calls.

Importing the compiler takes longer than importing the rest of open_clip.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_PACKAGE, _MODULE = "torch._dynamo", "torch._dynamo.utils"


@contextmanager
def postponed() -> Iterator[None]:
    """Let imports of `torch._dynamo` within the block get a stand-in, which imports the real one when it is called.

    If torch._dynamo is loaded already, nothing is replaced. The stand-in has the two names that torchvision and timm
    request on import.

    Raises:
        ImportError, AttributeError: (within) another release of theirs requested another name.
    """
    if _PACKAGE in sys.modules:
        yield
        return
    package, module = ModuleType(_PACKAGE), ModuleType(_MODULE)
    package.__path__ = []  # makes it a package; its only module is this one
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
    """Return the function as it is: a mark for the compiler, which is not called."""
    del recursive, reason
    return function
