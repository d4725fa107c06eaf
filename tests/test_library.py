"""`import adawise`: what it offers, that it serves what the worker serves, and that all examples of it run.

Examples are in docs/library.md and in the docstring of each public name. Both run where the names that they use are:
`runs/yard` is the output of a worker, `pair` a folder with two checkpoints, `frames` one with 24 pictures,
`recordings/yard` a recording of two cameras.
"""

from __future__ import annotations

import doctest
import inspect
import io
import re
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import adawise
from adawise.adapt.state import StreamState
from adawise.demo.main import PAIR
from adawise.demo.scene import StreetCamera
from adawise.demo.weather import PRESETS
from adawise.errors import CardError, CheckpointError, InvalidMessage, SettingsError
from adawise.records import Message
from adawise.settings import DecodeSettings, ModelSettings
from tests.deadlines import scaled
from tests.drift import yard
from tests.fixtures import making
from tests.models import CLASSES, TEMPLATES, PairFolder
from tests.replay.cameras import write_recording

DOCUMENT = Path(__file__).parent.parent / "docs" / "library.md"
OFFERED = {
    *("AdawiseError", "Analysis", "AnalysisTable", "Change", "ModelPair", "Rows", "SearchSettings", "Sensitivity"),
    *("Step", "StreamState", "adapt_batch", "analyse", "find_changes", "load_pair", "read_predictions", "read_traces"),
    *("plan_replay", "replay_recording"),
}
WEIGHTS: dict[str, Any] = {"theta_0": f"local-dir:{PAIR / 'theta_0'}", "theta_1": f"local-dir:{PAIR / 'theta_1'}"}


def lines(name: str) -> list[str]:
    return (PAIR / name).read_text(encoding="utf-8").splitlines()


def jpegs(count: int, weather: str = "clear") -> list[bytes]:
    return [StreetCamera("north", seed=3).jpeg(n, PRESETS[weather])[0] for n in range(count)]


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=scaled(120.0)
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tiny(pair_folder: PairFolder) -> adawise.ModelPair:
    return load(pair_folder)


def load(folder: PairFolder, **changes: Any) -> adawise.ModelPair:
    arguments = {"classes": CLASSES, "templates": TEMPLATES, "device": "cpu", "precision": "fp32", **changes}
    return adawise.load_pair(**{"theta_0": folder.theta_0, "theta_1": folder.theta_1, **arguments})


def test_the_package_offers_these_members_and_each_says_what_it_is() -> None:
    assert set(adawise.__all__) == OFFERED
    listed = set(dir(adawise))
    assert {name for name in listed if not name.startswith("__")} == OFFERED
    assert listed >= {"__all__", "__doc__", "__version__"}
    for name in OFFERED:
        assert inspect.getdoc(getattr(adawise, name)), name


def test_a_member_that_is_not_there_is_told() -> None:
    with pytest.raises(AttributeError, match="module 'adawise' has no attribute 'adapt_bach'"):
        adawise.adapt_bach  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError, match="no_such_member"):
        exec("from adawise import no_such_member")


def test_what_is_printed_of_a_member_is_a_line_or_a_few(tiny: adawise.ModelPair, folder: Path) -> None:
    state = None
    for _ in range(9):
        step = adawise.adapt_batch(tiny, jpegs(8), state)
        state = step.state
    rows, analysis = adawise.read_traces(folder / "runs" / "yard"), adawise.analyse(str(folder / "runs" / "yard"))
    shown = [tiny, tiny.checkpoints, step, step.state, rows, rows.query, analysis, analysis.events]
    for each in (*shown, adawise.SearchSettings(), adawise.Sensitivity()):
        assert len(repr(each)) < 2_000, f"{type(each).__name__} has {len(repr(each))} characters"
    assert repr(tiny).startswith(f"<ModelPair of {len(CLASSES)} classes, 21 alphas, no card: theta_0 ")


def test_without_an_extra_the_analysis_is_an_error_that_says_what_to_install() -> None:
    for package in ("duckdb", "scipy", "ruptures"):
        output = python(
            f"import sys; sys.modules[{package!r}] = None\n"
            "import adawise\n"
            "try: adawise.analyse\n"
            "except adawise.AdawiseError as error: print(error)\n"
        )
        assert package in output
        assert output.endswith("install it with: pip install 'adawise[report]'\n")


def test_no_member_has_the_name_of_a_module_which_would_take_its_place() -> None:
    rooms = {path.stem for path in Path(adawise.__file__).parent.iterdir()}
    assert not OFFERED & rooms


@pytest.mark.parametrize("code", ["import adawise", "import adawise; adawise.read_traces, adawise.AdawiseError"])
def test_torch_is_not_loaded_before_a_pair_is(code: str) -> None:
    output = python(f"{code}\nimport sys; print({{'torch', 'open_clip', 'duckdb'}} & sys.modules.keys())")
    assert output == "set()\n"


def test_what_has_a_default_in_the_settings_has_the_same_one_here() -> None:
    parameters = inspect.signature(adawise.load_pair).parameters
    ours = {name: p.default for name, p in parameters.items() if p.default is not p.empty and name != "templates"}
    fields = ModelSettings.model_fields | DecodeSettings.model_fields
    assert ours == {name: fields[name].default for name in ours}


@cache
def watched() -> list[list[Message]]:
    """What four cameras send: ten batches each, and other weather from the fifth on."""
    return making._messages(10, turn=5)


@pytest.mark.parametrize(
    "search",
    [
        {"price": 0.0001, "explore_every": 3, "objective": "entropy", "alpha": 0.3},
        pytest.param({}, marks=pytest.mark.check("replay")),
    ],
)
def test_a_batch_gets_the_alpha_and_the_probabilities_that_the_worker_gives_it(
    tmp_path: Path, search: Mapping[str, Any]
) -> None:
    logs = watched()
    settings = making.settings(tmp_path / "root", **search)
    making.serve(settings, making._source(logs))
    pair = adawise.load_pair(
        **WEIGHTS,
        classes=lines("classes.txt"),
        templates=lines("templates.txt"),
        device=settings.model.device,
        precision=settings.model.precision,
        chunk_rows=settings.model.chunk_rows,
    )
    traces = adawise.read_traces(tmp_path / "root").table().sort_by("batch_number").to_pylist()
    rows = adawise.read_predictions(tmp_path / "root").table().to_pylist()
    states: dict[str, StreamState] = {}
    moved = set()
    for trace in traces:
        stream, offsets = trace["stream_id"], range(trace["first_offset"], trace["last_offset"] + 1)
        messages = [m for o in offsets if (m := logs[trace["partition"]][o]).key == stream.encode()]
        step = adawise.adapt_batch(
            pair, [m.value or b"" for m in messages], states.get(stream), search=adawise.SearchSettings(**search)
        )
        states[stream] = step.state
        moved.add(step.alpha)
        served = [r for r in rows if (r["stream_id"], r["batch_number"]) == (stream, trace["batch_number"])]
        served.sort(key=lambda row: row["offset"])
        assert step.alpha == trace["alpha"]
        assert [(t.alpha, t.images, t.objective) for t in step.trials] == [
            (t["alpha"], t["images"], t["objective"]) for t in trace["trials"]
        ]
        assert list(step.labels) == [row["label"] for row in served]
        assert step.probabilities.max(axis=1).tolist() == [row["confidence"] for row in served]
    assert len(traces) > 30
    assert len(moved) > 2  # or the worker had nothing to choose


def test_images_of_every_kind_are_one_batch(tiny: adawise.ModelPair, tmp_path: Path) -> None:
    encoded = jpegs(4)
    paths = [tmp_path / f"{n}.jpg" for n in range(4)]
    for path, data in zip(paths, encoded, strict=True):
        path.write_bytes(data)
    opened = [Image.open(path) for path in paths]
    arrays = np.stack([np.asarray(image) for image in opened])
    kinds: list[Any] = [encoded, paths, list(map(str, paths)), opened, arrays, list(arrays), torch.from_numpy(arrays)]
    steps = [adawise.adapt_batch(tiny, images) for images in kinds]
    for step in steps:
        assert step.probabilities.shape == (4, len(CLASSES))
        assert np.array_equal(step.probabilities, steps[0].probabilities)
        assert step.state.to_bytes() == steps[0].state.to_bytes()


def test_pictures_are_turned_where_the_pair_was_loaded_so(pair_folder: PairFolder, tmp_path: Path) -> None:
    turned, upright = [], []
    for n, data in enumerate(jpegs(4)):
        exif = Image.Exif()
        exif[0x0112] = 6
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        picture.save(tmp_path / f"{n}.png", exif=exif)
        turned.append(tmp_path / f"{n}.png")
        upright.append(picture.transpose(Image.Transpose.ROTATE_270))
    as_stored, as_seen = load(pair_folder), load(pair_folder, orientation="apply")
    for pair, images, others in ((as_seen, turned, as_stored), (as_stored, turned, as_seen)):
        theirs = adawise.adapt_batch(pair, upright).probabilities
        same = np.array_equal(adawise.adapt_batch(pair, images).probabilities, theirs)
        assert same == (pair is as_seen)
        assert pair.classifier.fingerprint != others.classifier.fingerprint


def test_labels_are_the_most_probable_classes_in_the_pairs_order(tiny: adawise.ModelPair) -> None:
    step = adawise.adapt_batch(tiny, jpegs(9, "fog"))
    assert step.labels == tuple(tiny.classes[best] for best in step.probabilities.argmax(axis=1))
    np.testing.assert_allclose(step.probabilities.sum(axis=1), 1.0, atol=1e-6)  # float32 of five summands
    assert step.probabilities.dtype == np.float32
    assert step.alpha in tiny.classifier.alphas


def test_a_stream_that_can_show_few_classes_is_served_among_these(tiny: adawise.ModelPair) -> None:
    images = jpegs(8, "fog")
    first = adawise.adapt_batch(tiny, images, classes=[tiny.classes[2], tiny.classes[0]])
    assert {*first.labels} <= {tiny.classes[0], tiny.classes[2]}
    assert first.probabilities.shape == (8, len(tiny.classes))
    assert first.probabilities[:, [0, 2]].sum(axis=1) == pytest.approx(1.0)
    assert not first.probabilities[:, 1].any()
    whole = adawise.adapt_batch(tiny, images, classes=tiny.classes)
    assert (whole.probabilities == adawise.adapt_batch(tiny, images).probabilities).all()
    further = adawise.adapt_batch(tiny, images, first.state)
    assert further.probabilities[:, 1].any()
    assert (further.state.batches, further.trigger) == (1, "start")  # with other classes it starts anew


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["nothing", "car"], "expected a class"),
        ([], "two or more"),
        ("car", "two or more"),
        (["a", "a"], "two or more"),
    ],
)
def test_classes_that_the_pair_does_not_have_are_named(
    tiny: adawise.ModelPair, classes: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        adawise.adapt_batch(tiny, jpegs(2, "fog"), classes=classes)


def test_a_step_changes_nothing_of_its_arguments_and_is_the_same_again(tiny: adawise.ModelPair) -> None:
    image = Image.open(io.BytesIO(jpegs(1)[0])).convert("P")
    image.info["transparency"] = 0
    first = adawise.adapt_batch(tiny, [image] * 9)
    kept = first.state.to_bytes()
    again = [adawise.adapt_batch(tiny, jpegs(9, "night"), state) for state in (first.state,) * 2]
    restored = adawise.adapt_batch(tiny, jpegs(9, "night"), StreamState.from_bytes(kept))
    assert {step.state.to_bytes() for step in (*again, restored)} == {again[0].state.to_bytes()}
    assert first.state.to_bytes() == kept
    assert image.info["transparency"] == 0


RGB = np.zeros((2, 8, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("images", "error", "words"),
    [
        (RGB.astype(np.float32) / 255, TypeError, r"images: expected uint8 of 0 to 255, got float32"),
        (torch.zeros(2, 8, 8, 3), TypeError, r"expected uint8 of 0 to 255, got float32"),
        (RGB.transpose(0, 3, 1, 2), ValueError, r"\[n, H, W, 3\], got \[2, 3, 8, 8\]; move the channels to the end"),
        (RGB[0], ValueError, r"expected \[n, H, W, 3\], got \[8, 8, 3\]"),
        (RGB[..., :1], ValueError, r"got \[2, 8, 8, 1\]"),
        (RGB[:, :0], ValueError, r"got \[2, 0, 8, 3\]"),
        (RGB[:0], ValueError, "expected one or more, got none"),
        ([], ValueError, "expected one or more, got none"),
        ([RGB[0], RGB], ValueError, r"images\[1\]: expected \[H, W, 3\], got \[2, 8, 8, 3\]"),
        ("frame.jpg", TypeError, r"expected a sequence of images, got one str; give \[image\]"),
        (Image.new("RGB", (8, 8)), TypeError, r"got one Image; give \[image\]"),
        ([RGB[0], 7], TypeError, r"images\[1\]: expected an image, a path or bytes, got int"),
        ([b"GIF89a"], InvalidMessage, r"unsupported_format: images\[0\]: expected JPEG, PNG"),
        ([jpegs(1)[0][:400]], InvalidMessage, r"undecodable_image: images\[0\]"),
        (["nowhere.jpg"], FileNotFoundError, "nowhere.jpg"),
    ],
)
def test_images_that_are_none_are_told(
    tiny: adawise.ModelPair, images: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        adawise.adapt_batch(tiny, images)


def test_a_state_of_another_stream_of_work_is_refused(tiny: adawise.ModelPair, pair_folder: PairFolder) -> None:
    step = adawise.adapt_batch(tiny, RGB)
    other = load(pair_folder, classes=CLASSES[:2])
    with pytest.raises(ValueError, match="another pair, class list or card; use that one, or state=None"):
        adawise.adapt_batch(other, RGB, step.state)
    with pytest.raises(ValueError, match="another search or objective; use that one, or state=None"):
        adawise.adapt_batch(tiny, RGB, step.state, search=adawise.SearchSettings(strategy="grid"))
    with pytest.raises(TypeError, match="expected the `state` of a step or None, got Step"):
        adawise.adapt_batch(tiny, RGB, step)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="relative needs a card"):
        adawise.adapt_batch(tiny, RGB, search=adawise.SearchSettings(objective="relative"))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        (
            {"classes": "car"},
            SettingsError,
            "classes: expected a sequence of texts of one line, each once; found 'car'",
        ),
        ({"classes": []}, SettingsError, "classes: .* found"),
        ({"classes": ["car", "car "]}, SettingsError, "found 'car' twice"),
        ({"classes": ["car", 7]}, SettingsError, "found ..car., 7"),
        ({"classes": ["car", "bus\nlane"]}, SettingsError, "classes: .* of one line"),
        (
            {"theta_0": None},
            SettingsError,
            "theta_0 is None and theta_1 is .*: expected a file, ",
        ),
        ({"theta_1": Path("pair")}, SettingsError, r"model.theta_1 = .*\n +expected a file, local-dir:"),
        ({"templates": ["a photo"]}, SettingsError, "templates: expected {} for the class name in 'a photo'"),
        ({"device": "gpu"}, SettingsError, r"model.device = 'gpu'  \(load_pair\)\n +expected auto, cpu, cuda"),
        ({"grey16_range": (1, 2)}, SettingsError, r"decode.grey16_range = .*\n +expected own, or LOW-HIGH"),
        ({"precision": "fp8", "bank_mib": -1}, SettingsError, "2 things to correct"),
        ({"theta_1": "local-dir:nowhere"}, CheckpointError, "model.theta_1: no open_clip_config.json"),
        ({"card": __file__}, CardError, "test_library.py"),
    ],
)
def test_arguments_of_a_pair_that_are_wrong_are_told(
    pair_folder: PairFolder, changes: Mapping[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        load(pair_folder, **changes)


def test_neither_the_environment_nor_a_file_of_settings_has_a_say(
    pair_folder: PairFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAWISE_MODEL__HEAD", "interpolate")
    monkeypatch.setenv("ADAWISE_SEARCH__STRATEGY", "fixed")
    (tmp_path / "adawise.toml").write_text("[model]\nchunk_rows = 3\n")
    monkeypatch.chdir(tmp_path)
    pair = load(pair_folder)
    assert pair.classifier.identity["head"] == "text"
    assert pair.classifier.chunk_rows == 8
    assert '"strategy":"warm"' in adawise.adapt_batch(pair, RGB).state.key


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the names of the document are: the output of a worker, a pair, pictures, a recording of two cameras."""
    folder = tmp_path_factory.mktemp("library")
    yard.write(folder / "runs" / "yard")
    (folder / "pair").symlink_to(PAIR)
    (folder / "frames").mkdir()
    for n, data in enumerate(jpegs(24)):
        (folder / "frames" / f"{n:02}.jpg").write_bytes(data)
    write_recording(folder / "recordings" / "yard", range(1))
    return folder


BLOCKS = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.usefixtures("logs_of_this_process")
@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, r"720 batches"),
        (1, r"(?s)'failing': 3, .*failing yard mix step 2026-06-01 12:00:00\+00:00 1 of 4 other cameras"),
        (2, r"step \d+ 0\.80 -> 0\.20"),
        (3, r"runs/shards/shard-00000 8 8\nruns/shards/shard-00001 8 8"),
        (4, r"21 alphas"),
        (5, r"^[01]\.?\d* (car|truck|bus) \(8, 3\)"),
        (6, r"(?m)^1\.00 \d\.\d{3}$"),
    ],
)
def test_an_example_of_the_document_runs(
    folder: Path, number: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    exec(BLOCKS[number], {})
    assert re.search(words, capsys.readouterr().out)


def failures(name: str, value: object, names: Mapping[str, Any]) -> str:
    """What doctest reports of the examples in a public name's docstring and in those of its methods; "" if all pass."""
    tests = [test for test in doctest.DocTestFinder().find(value, name, globs=dict(names)) if test.examples]
    if not any(test.name == name for test in tests):
        return f"adawise.{name} has no Example: section with `>>>` lines; its readers need one"
    report: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    for test in tests:
        runner.run(test, out=report.append)
    return "".join(report)


@pytest.fixture(scope="module")
def names(folder: Path) -> Mapping[str, Any]:
    """The names that examples of docstrings may use: `pair`, `images` and `found`, beside the package itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        theta_0, theta_1 = (f"local-dir:pair/{name}" for name in WEIGHTS)
        pair = adawise.load_pair(theta_0=theta_0, theta_1=theta_1, classes=["car", "truck", "bus"], device="cpu")
        images = sorted(Path("frames").glob("*.jpg"))
        return {"adawise": adawise, "pair": pair, "images": images, "found": adawise.analyse("runs/yard")}


@pytest.mark.usefixtures("logs_of_this_process")
@pytest.mark.parametrize("name", sorted(OFFERED))
def test_a_public_name_has_an_example_that_runs(
    name: str, folder: Path, names: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    report = failures(name, getattr(adawise, name), names)
    assert not report, report


def test_a_name_without_an_example_and_an_example_that_fails_are_reported() -> None:
    def bare() -> None:
        """Return nothing."""

    def wrong() -> None:
        """Return nothing.

        Example:
            >>> 1 + 1
            3
        """

    assert "adawise.bare has no Example" in failures("bare", bare, {})
    assert "Expected:\n    3\nGot:\n    2" in failures("wrong", wrong, {})


def test_each_example_and_each_member_is_in_the_document() -> None:
    assert len(BLOCKS) == 7
    text = DOCUMENT.read_text(encoding="utf-8")
    assert not {name for name in OFFERED if not re.search(rf"(`|adawise\.){name}\b", text)}
