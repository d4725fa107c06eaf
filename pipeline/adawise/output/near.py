"""Outputs near a folder that holds none, for messages: a name is mistyped more often than an output is missing."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path

from adawise.errors import AdawiseError, SettingsError
from adawise.sink import layout
from adawise.sink.claims import known_sink_id
from adawise.store.store import Store, open_store
from adawise.text import near_match

NAME_ROOT = "set --root to the folder of sink.root, or wait until a worker has committed"
"""The remedy for a root that may still come."""

_MOST = 1_000  # folders that are read
_ALIKE = 0.6


def no_output(root: str, remedy: str = "name the folder of sink.root or -o") -> SettingsError:
    """Return the error for a root that no worker ever wrote to; for the folder of a plan, it names the first shard."""
    with suppress(AdawiseError):  # a store that does not answer hides no plan
        if open_store(root).get(layout.PLAN) is not None:
            shard = layout.shard_root(root, 0)
            return SettingsError(
                f"{root} holds the plan of a replay; name the root of one of its shards, such as {shard}"
            )
    return SettingsError(f"there is no output of a worker in {root}; {remedy}{did_you_mean(root)}")


def open_output(root: str) -> Store:
    """Return the store of a root.

    Raises:
        SettingsError: no worker ever wrote there.
        ChainError: its id was lost.
    """
    store = open_store(root)
    if known_sink_id(store) is None:
        raise no_output(root)
    return store


def did_you_mean(root: str) -> str:
    """Return the end of a message about a folder that holds no output: the likely output, or "" if there is none.

    That is one of a similar name beside the folder, or the only one within it. Object stores are not searched.
    """
    if "://" in root:
        return ""
    folder = Path(root)
    try:
        beside = {each.name: each for each in _outputs(folder.parent)}
        name = near_match(folder.name, beside, _ALIKE)
        near = _outputs(folder) if name is None else [beside[name]]
    except OSError:
        return ""
    return f": did you mean {near[0]}?" if len(near) == 1 else ""


def expect_outputs(roots: Iterable[str]) -> None:
    """Raise SettingsError for a local folder without the document that every output has."""
    for root in roots:
        if "://" not in root and not (Path(root) / layout.SINK).is_file():
            raise no_output(root)


def expect_begun(root: str, remedy: str) -> None:
    """Raise SettingsError for a local folder that no worker wrote to. One that cannot be read counts as begun."""
    if "://" in root:
        return
    for key in (layout.SINK, layout.OWNER):
        try:
            (Path(root) / key).lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError):  # the reader names it
            return
        return
    raise no_output(root, remedy)


def _outputs(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [each for each in islice(folder.iterdir(), _MOST) if (each / layout.SINK).is_file()]
