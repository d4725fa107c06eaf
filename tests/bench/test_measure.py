"""The bench on a tiny pair: every figure is there, nothing is left behind, and a pair is not needed."""

from __future__ import annotations

import json
import math
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal, cast

import pytest
import torch

from adawise.__main__ import main
from adawise.adapt.names import GRID
from adawise.adapt.objective import NO_CARD
from adawise.adapt.strategies import strategy
from adawise.app.model import load_model
from adawise.app.parts import exploration
from adawise.bench import figures
from adawise.bench import measure as measuring
from adawise.bench import worker as passes
from adawise.bench.figures import BenchReport, Spread
from adawise.bench.loops import BareTower, NaiveLoop, PlainLoop, head
from adawise.bench.measure import in_turns, measure, pass_batches
from adawise.bench.worker import jpegs
from adawise.clip.classifier import PairClassifier
from adawise.clip.device import Plain
from adawise.clip.load import OpenClipModel, load_open_clip
from adawise.demo.brokers import Running, broker
from adawise.demo.main import PAIR
from adawise.errors import BrokerUnavailable, SettingsError
from adawise.ports import Poll, Source
from adawise.records import Message, TopicPartition
from adawise.settings import DecodeSettings, SearchSettings, Settings
from tests.models import CLASSES, TEMPLATES, PairFolder
from tools.bench import worker as make_bench

PROMPTS = [[template.replace("{}", name) for template in TEMPLATES] for name in CLASSES]
CPU = torch.device("cpu")


class Notes:
    """A progress that keeps its notes, and presses Ctrl-C at one of them."""

    def __init__(self, interrupted_at: str = "") -> None:
        self.notes: list[str] = []
        self.turns = 0
        self.interrupted_at = interrupted_at

    def advance(self, count: int = 1) -> None:
        self.turns += count

    def note(self, text: str) -> None:
        self.notes.append(text)
        if text == self.interrupted_at:
            raise KeyboardInterrupt


def settings_of(pair: PairFolder) -> Settings:
    model = {"architecture": pair.theta_0, "theta_0": pair.theta_0, "theta_1": pair.theta_1, "classes": pair.classes}
    return Settings.model_validate({"model": {**model, "cache_mib": 0, "device": "cpu"}, "batch": {"images": 4}})


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def drawn() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        few = jpegs(80, 80, 8)
        patch.setattr(measuring, "jpegs", lambda: few)
        yield patch


@pytest.fixture(scope="module")
def zero(pair_folder: PairFolder) -> OpenClipModel:
    return load_open_clip(None, pair_folder.theta_0)


@pytest.fixture(scope="module")
def measured(pair_folder: PairFolder, drawn: pytest.MonkeyPatch) -> tuple[BenchReport, Notes]:
    notes = Notes()
    return measure(settings_of(pair_folder), seconds=0.0, progress=notes), notes


def test_without_a_budget_there_is_one_turn_of_every_part_but_the_naive_one(
    measured: tuple[BenchReport, Notes],
) -> None:
    report, notes = measured
    assert notes.turns == len(report.turns) == 1
    assert notes.notes[-4:] == ["forward", "plain", "worker", "stages"]
    assert report.machine["naive_left_out"] == "a batch would take too long; raise --seconds"
    assert report.turns[0]["forward_equivalents"] >= 1
    assert report.turns[0].keys() == {
        *("forward", "plain", "worker", "forward_equivalents", "forward_cost"),
        *("forwards_ms", "search_ms", "host_ms", "processor_ms"),
        *("decoding_ms", "decoding_limit_ms", "writing_ms", "writing_limit_ms"),
    }


def test_the_document_is_strict_json_with_figures_that_are_finite_and_not_negative(
    measured: tuple[BenchReport, Notes],
) -> None:
    document = json.loads(json.dumps(measured[0].document(), allow_nan=False))
    assert list(document) == [
        *("machine", "seconds", "images_per_s", "worker_over", "forward_equivalents", "forward_cost"),
        *("ms_per_image", "limit_ms_per_image", "verdict"),
    ]
    assert list(document["images_per_s"]) == ["forward", "worker", "plain", "naive"]
    assert document["images_per_s"]["naive"] is None
    spreads = [*document["ms_per_image"].values(), *document["limit_ms_per_image"].values()]
    spreads += [document["images_per_s"][name] for name in ("forward", "worker", "plain")]
    assert all(math.isfinite(each["median"]) and 0 <= each["low"] <= each["high"] for each in spreads)
    assert document["verdict"].keys() == {"limit", "cameras", "with_one_more_core", "with_one_more_card", "text"}
    assert document["machine"]["cameras"] == 1


def test_ctrl_c_leaves_no_file_and_no_broker(
    pair_folder: PairFolder, temporary: Path, drawn: pytest.MonkeyPatch
) -> None:
    del drawn
    notes = Notes(interrupted_at="plain")
    with pytest.raises(KeyboardInterrupt):
        measure(settings_of(pair_folder), seconds=0.0, progress=notes)
    assert notes.notes[-1] == "plain"
    assert list(temporary.iterdir()) == []


def test_settings_that_reject_the_images_are_named(pair_folder: PairFolder, drawn: pytest.MonkeyPatch) -> None:
    del drawn
    settings = settings_of(pair_folder)
    settings = settings.model_copy(update={"decode": DecodeSettings(max_pixels=100)})
    with pytest.raises(SettingsError, match=r"was rejected: .*decode\.max_pixels.* Raise the limit in \[decode\]"):
        measure(settings, seconds=0.0, progress=Notes())


def test_a_broker_that_ended_ends_the_bench(
    pair_folder: PairFolder, drawn: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    del drawn

    @contextmanager
    def ended(kind: Literal["embedded", "kafka"]) -> Iterator[Running]:
        def check() -> None:
            raise BrokerUnavailable("the embedded broker ended")

        with broker(kind) as running:
            yield replace(running, check=check)

    monkeypatch.setattr(passes, "broker", ended)
    with pytest.raises(BrokerUnavailable, match="ended"):
        measure(settings_of(pair_folder), seconds=0.0, progress=Notes())
    assert not [thread.name for thread in threading.enumerate() if "kafka" in thread.name], "clients are left behind"


def test_of_the_users_sink_and_alerts_only_the_size_of_segments_is_used() -> None:
    rule = {"name": "open", "labels": ["a class of another pair"]}
    settings = Settings.model_validate(
        {
            "sink": {"root": "s3://theirs/runs", "begin_anew": True, "keep": "7d", "flush_rows": 7},
            "alerts": {"rules": [rule]},
            "results": {"enabled": True},
        }
    )
    with passes.broker_settings(settings) as (used, _):
        assert Path(used.sink.root).is_relative_to(tempfile.gettempdir())
        assert (used.sink.flush_rows, used.sink.begin_anew, used.sink.keep) == (7, False, None)
        assert used.alerts.rules == ()


def test_a_part_of_the_first_turn_alone_does_not_keep_a_later_turn_from_fitting_into_the_budget() -> None:
    left_s, notes = [100.0], Notes()

    def taking(seconds: float) -> Callable[[], float]:
        def part() -> float:
            left_s[0] -= seconds
            return seconds

        return part

    parts = {"forward": taking(4.0), "worker": taking(16.0), "naive": taking(30.0)}
    turns = in_turns(parts, {"naive"}, lambda: left_s[0], notes)
    assert turns[0] == {"forward": 4.0, "worker": 16.0, "naive": 30.0}
    assert turns[1:] == [{"forward": 4.0, "worker": 16.0}] * 2  # a fourth would end later than 10 s from then
    assert notes.notes == ["forward", "worker", "naive", "worker", "forward", "forward", "worker"]
    assert notes.turns == 3


def test_a_batch_for_which_the_card_has_no_memory_is_not_the_fastest(
    zero: OpenClipModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rate(tower: BareTower) -> float:
        if tower.rows > 16:
            raise torch.OutOfMemoryError
        return tower.rows * (2.0 if tower.precision == "bf16" else 1.0)

    monkeypatch.setattr(BareTower, "rate", rate)
    device = Plain(CPU)
    device.has_bfloat16 = True
    tower = BareTower(zero, device, size=32, seconds=1_000.0)
    assert (tower.precision, tower.rows, tower.fastest, tower.float32_rate) == ("bf16", 16, 32.0, 16.0)


def test_a_pass_begins_with_its_first_messages_and_not_while_the_worker_joins_its_group() -> None:
    tp, message = TopicPartition("bench", 0), Message("bench", 0, 0, b"camera", b"", timestamp_ms=0)
    polls = iter([Poll(assigned=(tp,)), Poll(), Poll(messages=(message,)), Poll(messages=(message,))])

    class Polls:
        name = "source"

        def poll(self, timeout_s: float) -> Poll:
            del timeout_s
            return next(polls)

    source = passes.ClockedSource(cast(Source, Polls()))
    assert source.name == "source"
    began = []
    for _ in range(4):
        source.poll(0.0)
        began.append(source.began)
    assert began[:2] == [None, None]
    assert began[2] is not None
    assert began[3] == began[2]


def test_idle_moments_of_a_pass_encode_no_heads() -> None:
    class Classifier:
        def prepare(self, likely: Sequence[int]) -> bool:
            raise AssertionError(likely)

    assert passes.ClockedClassifier(cast(PairClassifier, Classifier())).prepare([0, 1]) is False


@pytest.mark.parametrize(
    ("rates", "text"),
    [
        ((49.81, 9.9, 50.0), "49.81 (9.9 to 50)"),
        ((12_345.6, 999.4, 20_000.0), "12,346 (999 to 20,000)"),
    ],
)
def test_images_a_second_have_no_exponent(rates: tuple[float, float, float], text: str) -> None:
    assert figures._text(Spread(*rates, turns=3)) == text


def test_a_pass_has_full_batches_of_each_camera_and_at_least_one() -> None:
    assert pass_batches(20.0, 30.0, 64) == 9
    assert pass_batches(1.0, -5.0, 64) == 1
    assert pass_batches(100_000.0, 30.0, 64) == 24


def test_the_naive_loop_merges_all_weights_and_encodes_the_head_again(
    pair_folder: PairFolder, zero: OpenClipModel
) -> None:
    settings, one = SearchSettings(), load_open_clip(None, pair_folder.theta_1)
    search = strategy(
        "scratch",
        alphas=GRID,
        objective=NO_CARD["entropy"],
        context="test",
        alpha=0.5,
        exploration=exploration(settings),
    )
    loop = NaiveLoop(zero, one.model.state_dict(), PROMPTS, CPU, search=search, shared_head=False)
    values = jpegs(80, 80, 4)
    assert len(loop.classify(values)) == 4
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = torch.nn.functional.normalize(one.model.visual(images), dim=-1)
        expected = one.model.logit_scale.exp() * features @ head(one.model, one.tokenizer, PROMPTS)
    torch.testing.assert_close(loop._logits(1.0, images), expected, rtol=1e-5, atol=1e-5)  # lerp at 1 rounds


def test_the_naive_loop_searches_each_batch_also_where_the_worker_only_predicts_batches_as_small(
    pair_folder: PairFolder, zero: OpenClipModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(pair_folder)
    settings = settings.model_copy(update={"search": SearchSettings(min_images=64)})
    model = load_model(settings.model, settings.decode)
    loop, _ = measuring._naive_loop(settings, model, zero, PROMPTS)
    assert loop is not None
    alphas: list[float] = []

    def logits(alpha: float, images: torch.Tensor) -> torch.Tensor:
        alphas.append(alpha)
        return torch.randn(len(images), len(CLASSES), generator=torch.Generator().manual_seed(len(alphas)))

    monkeypatch.setattr(loop, "_logits", logits)
    loop.classify(jpegs(80, 80, 16))
    assert len(alphas) > 1


def test_ctrl_c_leaves_it_to_the_command_of_make_bench_to_end_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    class Process:
        waits = 0

        def __enter__(self) -> Process:
            return self

        def __exit__(self, *_: object) -> None:
            assert self.waits == 3

        def wait(self) -> int:
            self.waits += 1
            if self.waits < 3:
                raise KeyboardInterrupt
            return 130

    monkeypatch.setattr(make_bench, "write_pair", lambda _: None)
    monkeypatch.setattr(subprocess, "Popen", lambda _: Process())
    assert make_bench.main() == 130


def test_the_plain_loop_serves_zero_shot_classes(zero: OpenClipModel) -> None:
    values = jpegs(80, 80, 4)
    labels = PlainLoop(zero, PROMPTS, CPU, torch.float32).classify(values)
    assert len(labels) == 4
    assert set(labels) <= set(range(len(CLASSES)))


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch, measured: tuple[BenchReport, Notes]) -> list[tuple[Settings, float]]:
    calls: list[tuple[Settings, float]] = []

    def measure(settings: Settings, *, seconds: float, progress: object) -> BenchReport:
        del progress
        calls.append((settings, seconds))
        return measured[0]

    monkeypatch.setattr(measuring, "measure", measure)
    return calls


@pytest.mark.usefixtures("logs_of_this_process")
def test_without_a_pair_the_command_measures_the_demos_and_prints_one_document(
    called: list[tuple[Settings, float]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "--seconds", "5", "--json", "--search.budget", "3"]) == 0
    ((settings, seconds),) = called
    assert settings.model.theta_1 == f"local-dir:{PAIR / 'theta_1'}"
    assert (settings.search.budget, seconds) == (3, 5.0)
    assert json.loads(capsys.readouterr().out)["images_per_s"]["worker"]["turns"] == 1


@pytest.mark.usefixtures("logs_of_this_process")
def test_the_command_prints_a_table_and_the_verdict(
    called: list[tuple[Settings, float]], capsys: pytest.CaptureFixture[str], pair_folder: PairFolder
) -> None:
    pair = {"theta-0": pair_folder.theta_0, "theta-1": pair_folder.theta_1, "classes": pair_folder.classes}
    assert main(["bench", *(f"--model.{name}={value}" for name, value in pair.items())]) == 0
    assert called[0][0].model.theta_0 == pair_folder.theta_0
    printed = capsys.readouterr().out
    rows = [line.split()[0] for line in printed.splitlines() if line]
    assert {"forward", "worker", "plain", "naive", "decoding", "writing", "search", "host", "processor"} <= set(rows)
    assert printed.rstrip().endswith("at one image a second each, in full batches.")


@pytest.mark.usefixtures("logs_of_this_process")
def test_half_a_pair_is_refused_as_a_worker_refuses_it(
    called: list[tuple[Settings, float]], capsys: pytest.CaptureFixture[str], pair_folder: PairFolder
) -> None:
    assert main(["bench", f"--model.theta-0={pair_folder.theta_0}"]) == 2
    error = capsys.readouterr().err
    assert "model.theta_1  (not set)" in error
    assert "model.classes  (not set)" in error
    assert called == []
