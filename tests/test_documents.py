"""The documents are true: recipes run, configurations are valid, links lead somewhere, names exist."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from adawise.adapt.objective import NAMES as OBJECTIVES
from adawise.settings import read
from adawise.settings.describe import SETTINGS
from adawise.store.store import LocalStore
from tests.deadlines import DEADLINE_S
from tests.sink.building import CLASSES, IDENTITY, TP, draft, frame, open_chain, served
from tools import docs

ROOT = Path(__file__).parent.parent
GUIDE = ROOT / "docs" / "guide"
WRITTEN_BY_HAND = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "deploy").glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def anchor(heading: str) -> str:
    """What Markdown's table of contents and code hosts call a heading."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def links(path: Path) -> list[str]:
    """Targets of links and pictures outside code."""
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"\]\(([^)\s]+)\)", text)


@pytest.mark.parametrize("page", WRITTEN_BY_HAND, ids=name_of)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in links(page):
        target, _, fragment = link.partition("#")
        if "://" in link:
            continue
        there = page.parent / target if target else page
        assert there.exists(), link
        if fragment:
            headings = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            assert fragment in {anchor(heading) for heading in headings}, link


def test_a_page_of_the_site_links_to_no_file_outside_it() -> None:
    site = ROOT / "docs"
    for page in site.rglob("*.md"):
        for link in links(page):
            if "://" not in link and link.partition("#")[0]:
                assert (page.parent / link.partition("#")[0]).resolve().is_relative_to(site), (page, link)


def test_every_page_of_the_site_is_in_its_navigation() -> None:
    named = set(re.findall(r"([\w./-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE))
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert {page for page in pages if not page.startswith("gpu-")} <= named


@pytest.mark.parametrize("page", WRITTEN_BY_HAND, ids=name_of)
def test_every_file_and_tool_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    if page.parent.name != "changes":  # a release's changes name files that have moved since
        for name in re.findall(r"`([a-z_]+/[a-z_/]+\.(?:py|md))`", text):
            assert any((ROOT / folder / name).exists() for folder in ("pipeline/adawise", "pipeline", "")), name
    for module in re.findall(r"python -m ((?:adawise|tools)[a-z_.]*)", text):
        assert importlib.util.find_spec(module), module


def test_every_module_to_which_one_moved_exists() -> None:
    rows = re.findall(r"^\| `adawise\.[^|]*\| `(adawise[\w.]*)` \|$", (GUIDE / "moved.md").read_text(), re.MULTILINE)
    assert len(rows) > 30
    for module in rows:
        assert importlib.util.find_spec(module), module


def test_each_hard_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = {re.split(r"[<>=]", line)[0] for line in project["dependencies"]}
    page = (ROOT / "docs" / "decisions" / "dependencies.md").read_text(encoding="utf-8")
    tables = page.partition("### Not of the engine")[0]
    rows = dict(re.findall(r"^\| ([\w, .-]+) \| (.+) \|$", tables, re.MULTILINE))
    reasons = {name.split()[0]: reason for names, reason in rows.items() for name in names.split(", ")}
    assert required <= reasons.keys() - {"package"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `runs/yard` is the output of a worker."""
    folder = tmp_path_factory.mktemp("documents")
    chain = open_chain(LocalStore(folder / "runs" / "yard"))
    chain.check()
    chain.recover(TP, IDENTITY, 0)
    labelled = [replace(frame(offset, stream="camera-0"), true_label="car") for offset in range(16)]
    batches = [served(labelled[n : n + 4], number=n // 4) for n in range(0, 16, 4)]
    for number, pixels in (
        (1, {"luminance_mean": -2.0}),
        (3, {"contrast_mean": -9.0, "gradient_mean": -9.0}),
    ):  # night, fog
        images, predictions, trace = batches[number]
        batches[number] = images, predictions, replace(trace, statistics={**trace.statistics, **pixels})
    chain.commit(replace(draft(0, 16), accepted=batches))
    return folder


def test_the_recipe_of_what_a_shortlist_lacks_counts_by_shortlist_and_reads_roots_that_an_earlier_version_began(
    tmp_path: Path,
) -> None:
    root = tmp_path / "runs" / "yard"
    chain = open_chain(LocalStore(root))
    chain.check()
    chain.recover(TP, IDENTITY, 0)
    lacking = [("before", {0: 2}), ("before", {0: 1, 1: 1}), ("after", {1: 4}), (None, None)]
    batches = []
    for number, (shortlist, off_list) in enumerate(lacking):
        images, predictions, trace = served([frame(4 * number + n, stream="gate") for n in range(4)], number=number)
        batches.append((images, predictions, replace(trace, shortlist=shortlist, off_list=off_list)))
    chain.commit(replace(draft(0, 16), accepted=batches))
    shutil.copytree(ROOT / "tests/fixtures/before_0_2/root/traces", root / "traces" / "of an earlier version")
    (recipe,) = [text for text in blocks(GUIDE / "scene.md", "python") if "off_list" in text]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", recipe], cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert done.returncode == 0, done.stderr
    rows = [line.replace("│", " ").split() for line in done.stdout.splitlines() if "gate" in line]
    assert sorted(rows) == [
        ["gate", "after", CLASSES[1], "4"],
        ["gate", "before", CLASSES[1], "1"],
        ["gate", "before", CLASSES[0], "3"],
    ]


@pytest.mark.parametrize(
    ("page", "number"),
    [*(("output.md", number) for number in range(6)), ("drift.md", 0)],
    ids=str,
)
def test_a_recipe_prints_something(folder: Path, page: str, number: int) -> None:
    recipe = blocks(GUIDE / page, "python")[number]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", recipe], cwd=folder, capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert done.returncode == 0, done.stderr
    assert "camera-0" in done.stdout


def test_the_recipe_of_what_to_label_runs(folder: Path) -> None:
    recipe = blocks(GUIDE / "labels.md", "python")[1]
    subprocess.run([sys.executable, "-W", "error", "-c", recipe], cwd=folder, check=True, timeout=DEADLINE_S)
    assert (folder / "to_label.csv").read_text().startswith("row_id,stream_id,condition,captured_at")


@pytest.fixture
def switched(tmp_path: Path) -> Path:
    """Where the camera of `runs/yard` began anew after two batches: their numbers are there twice."""
    chain = open_chain(LocalStore(tmp_path / "runs" / "yard"))
    chain.check()
    chain.recover(TP, IDENTITY, 0)
    for first in (0, 8):
        made = [served([frame(n + k) for k in range(4)], number=n // 4 % 2) for n in (first, first + 4)]
        batches = [(images, predictions, replace(trace, condition=0)) for images, predictions, trace in made]
        chain.commit(replace(draft(first, first + 8), accepted=batches))
    return tmp_path


def test_a_row_has_one_trace_by_the_join_of_the_guide(switched: Path) -> None:
    import duckdb

    (join,) = [text for text in blocks(GUIDE / "output.md", "sql") if "join" in text]
    with duckdb.connect() as connection:
        for name in ("predictions", "traces"):
            files = str(switched / "runs" / "yard" / name / "**" / "*.parquet")
            connection.read_parquet(files).create_view(name)
        rows = [row_id for row_id, *_ in connection.sql(join).fetchall()]
    assert len(rows) == len({*rows}) == 16


def test_what_to_label_counts_batches_of_one_number_where_a_camera_began_anew_as_two(switched: Path) -> None:
    (recipe,) = [text for text in blocks(GUIDE / "labels.md", "python") if "to_label" in text]
    least = recipe.replace(">= 8", ">= 4")  # batches of a condition
    assert least != recipe
    subprocess.run([sys.executable, "-W", "error", "-c", least], cwd=switched, check=True, timeout=DEADLINE_S)
    assert len((switched / "to_label.csv").read_text().splitlines()) == 1 + 4


def test_the_way_back_names_every_setting_that_0_2_0_does_not_know() -> None:
    """A worker of 0.2.0 ends at the first start with any of them."""
    text = (GUIDE / "upgrade.md").read_text(encoding="utf-8")
    section = text[text.index("## Back to 0.2.0") : text.index("## From 0.2.0 to 0.2.1")]
    named = set(re.findall(r"`([^`\n]+)`", section))
    known = set((ROOT / "tests" / "fixtures" / "settings_0_2_0.txt").read_text(encoding="utf-8").split())
    new = {re.sub(r"\.oauth_.*", ".oauth_*", name) for name in SETTINGS.keys() - known}
    groups = {name.partition(".")[0] for name in known}
    assert {f"[{name.partition('.')[0]}]" for name in new if name.partition(".")[0] not in groups} <= named
    assert {name for name in new if name.partition(".")[0] in groups} <= named


@pytest.mark.parametrize("page", [ROOT / "README.md", GUIDE / "start.md"], ids=name_of)
def test_the_configuration_is_valid(tmp_path: Path, page: Path) -> None:
    (tmp_path / "adawise.toml").write_text(blocks(page, "toml")[0])
    reading = read((), environ={}, folder=tmp_path, config=None, uses=frozenset())
    assert not reading.mistakes
    assert reading.settings is not None
    assert reading.settings.sink.root == "runs/yard"


def test_the_columns_of_the_tables_are_those_of_the_files() -> None:
    from adawise.sink.schemas import PREDICTIONS, TRACES

    output = (GUIDE / "output.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"`([a-z_]+)`", output[: output.index("## Recipes")]))
    assert set(PREDICTIONS.names) <= shown, "a column needs a row in docs/guide/output.md"
    assert set(TRACES.names) - {"topic", "partition", "model_fingerprint", "segment"} <= shown


@pytest.mark.parametrize("page", WRITTEN_BY_HAND, ids=name_of)
def test_every_command_of_a_page_exists(page: Path) -> None:
    from adawise.cli import COMMANDS

    text = page.read_text(encoding="utf-8")
    code = " ".join([*re.findall(r"`(adawise [^`\n]+)`", text), *blocks(page, "sh")])
    first_words = {name.split()[0] for name in COMMANDS}
    assert set(re.findall(r"(?:^|[^./\w])adawise ([a-z]+)", code)) <= first_words


@pytest.mark.parametrize("name", docs.PAGES)
def test_the_reference_is_what_the_code_says(name: str) -> None:
    written = (docs.FOLDER / name).read_text(encoding="utf-8")
    assert written == docs.PAGES[name](), "it is stale, write it again: python -m tools.docs"


def test_the_guide_has_every_objective() -> None:
    guide = (ROOT / "docs" / "guide" / "start.md").read_text()
    assert [name for name in OBJECTIVES if f"\n| `{name}` |" not in guide] == []
