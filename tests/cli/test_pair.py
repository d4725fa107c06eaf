"""`adawise pair` as an operator and a script call it, on a root whose workers follow it, are killed, or lack the files.

Workers are here without their loop: what they begin with, and what looks at the root and loads beside it, are the real
ones. `tests/worker/test_pairs.py` has whole ones on a broker.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adawise.app.pairs import begin_orders, live_pairs, starting_pair
from adawise.errors import StoreUnavailable
from adawise.pairs.operate import wait_for
from adawise.pairs.orders import Orders, give_order, read_orders
from adawise.pairs.reports import Reported, WorkerReport
from adawise.settings import Settings
from adawise.sink import claims, layout
from adawise.sink.served_by import claim_pair
from adawise.store.store import open_store
from tests.cli.test_user_errors import random_weights
from tests.clip.test_load import with_config
from tests.deadlines import DEADLINE_S
from tests.denied import refuse_resources, skip_elsewhere
from tests.deploy.watching import DEPLOY
from tests.dying import exit_code
from tests.models import CLASSES, PairFolder, write_pair
from tests.replay.runs import adawise
from tests.store.clouds import new_bucket, open_s3, s3_server

Captured = pytest.CaptureFixture[str]
OTHERS = ("lorry", "tram", "cyclist", "nobody")

pytestmark = pytest.mark.usefixtures("logs_of_this_process")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> PairFolder:
    """Other weights and classes than `pair_folder`'s."""
    return write_pair(tmp_path_factory.mktemp("other"), seed=5, classes=OTHERS)


def named(pair: PairFolder) -> dict[str, str]:
    """The settings `model` of a pair."""
    fields = {"architecture": pair.theta_0, "theta_0": pair.theta_0, "theta_1": pair.theta_1}
    fields |= {"classes": str(pair.classes), "templates": str(pair.templates)}
    return fields | {"device": "cpu", "precision": "fp32", "threads": "1", "bank_mib": "16"}


def flags(pair: PairFolder) -> list[str]:
    """The same as flags."""
    return [word for name, value in named(pair).items() for word in (f"--model.{name.replace('_', '-')}", value)]


class Yard:
    """A folder whose adawise.toml names a root that a worker has begun with a pair.

    Args:
        folder: of the settings.
        root: where nothing is yet.
        pair: of the settings.
    """

    def __init__(self, folder: Path, root: str, pair: PairFolder, captured: Captured) -> None:
        self.folder, self.root, self._captured = folder, root, captured
        self.settings = Settings.model_validate(
            {"model": named(pair), "sink": {"root": root}, "pairs": {"look_s": 0.1}, "log": {"level": "warning"}}
        )
        lines = [
            f"{name} = {json.dumps(int(value) if value.isdigit() else value)}" for name, value in named(pair).items()
        ]
        (folder / "adawise.toml").write_text(f'[sink]\nroot = "{root}"\n[model]\n' + "\n".join(lines))
        self.store = open_store(root)
        self.start = starting_pair(self.settings, read_orders(self.store))
        claims.sink_id(self.store, created_at="2026-11-27T00:00:00Z")
        claim_pair(self.store, self.start.model.classifier.identity, "refuse")
        begin_orders(self.store, self.start)

    @property
    def orders(self) -> Orders:
        """As they are now."""
        return read_orders(self.store)

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """`adawise pair`: its exit code, what it says, and what it says of a mistake."""
        self._captured.readouterr()
        code = adawise(self.folder, "pair", *arguments)
        out, err = self._captured.readouterr()
        assert "Traceback" not in out + err
        return code, out, err.partition("adawise: ")[2].rstrip()

    def stage(self, pair: PairFolder, *arguments: str) -> tuple[int, str, str]:
        """`adawise pair stage`."""
        return self.run("stage", *flags(pair), *arguments)

    def listed(self, expected: int = 0) -> dict[str, Any]:
        """What `pair list --json` says."""
        code, out, _ = self.run("list", "--json")
        assert code == expected
        found: dict[str, Any] = json.loads(out)
        return found

    @contextmanager
    def worker(self, name: str, *, is_killed: bool = False) -> Iterator[None]:
        """One that follows the root meanwhile; one that is killed takes nothing back."""
        pairs = live_pairs(self.settings, self.start, self.store, read_orders(self.store), name)
        ends = threading.Event()

        def turns() -> None:
            while not ends.wait(0.02):
                pairs.turn()

        thread = threading.Thread(target=turns, name=name)
        thread.start()
        try:
            yield
        finally:
            ends.set()
            thread.join()
            if is_killed:
                pairs._leave = lambda: None
            pairs.close()

    def until_reported(self, name: str, state: str) -> None:
        """Until this start says that of pair 1."""
        give_up_s = time.monotonic() + DEADLINE_S
        while f'"1": {{"state": "{state}"'.encode() not in (self.store.get(layout.worker_key(name)) or b""):
            assert time.monotonic() < give_up_s
            threading.Event().wait(0.05)


@pytest.fixture
def yard(tmp_path: Path, pair_folder: PairFolder, capsys: Captured) -> Yard:
    return Yard(tmp_path, str(tmp_path / "output"), pair_folder, capsys)


@pytest.fixture(params=["folder", "s3"])
def any_yard(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    pair_folder: PairFolder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
) -> Yard:
    if request.param == "folder":
        return Yard(tmp_path, str(tmp_path / "output"), pair_folder, capsys)
    url = f"s3://{new_bucket()}/yard"
    open_s3(monkeypatch, s3_server(), url)
    return Yard(tmp_path, url, pair_folder, capsys)


def test_a_pair_is_staged_switched_to_and_rolled_back_and_the_list_says_each_time_how_it_stands(
    any_yard: Yard, other: PairFolder
) -> None:
    yard = any_yard
    code, out, _ = yard.run("list")
    assert code == 0
    assert re.match(r"pair 0  [0-9a-f]{16}  serves\n    theta_0 ", out)
    facts = (f"{len(CLASSES)} classes (car, bus, bicycle, ...), no card", "adapts by tsallis", "nothing is shared")
    assert "".join(f"    {fact}\n" for fact in facts) in out
    assert re.search(r"\norder 0  \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ  begin pair 0, by \S+:\d+\n", out)
    assert "no worker has reported yet: each does within pairs.look_s" in out

    with yard.worker("one"):
        code, out, _ = yard.stage(other, "--wait", "120")
        assert code == 0
        assert out.startswith(f"{yard.root}: pair 1 is staged; the workers prepare it")
        assert out.endswith(": ready\n")
        code, out, _ = yard.run("list")
        assert re.search(r"\npair 1  [0-9a-f]{16}  staged\n", out)
        assert re.search(r"\n    pair 1: ready \(loaded in \d+\.\d s, [\d.]+ [KMG]iB\)\n", out)
        assert out.endswith("shadow of pair 1: no results yet; the next segments write them\n")

        code, out, _ = yard.run("switch", "--state", "keep", "--wait", "60")
        assert code == 0
        assert out.startswith(f"{yard.root}: pair 1 serves from now on; streams keep what they learned\n")
        assert out.endswith(": serves\n")
        code, out, _ = yard.run("list")
        assert re.search(r"pair 0  [0-9a-f]{16}  former: `adawise pair rollback` serves it again\n", out)
        assert re.search(r"\npair 1  [0-9a-f]{16}  serves\n", out)

        code, out, _ = yard.run("rollback", "--state", "reset", "--wait", "60")
        assert code == 0
        assert out.startswith(f"{yard.root}: pair 0 serves again; streams start anew\n")
    assert [order["order"] for order in yard.listed()["orders"]] == ["begin", "stage", "switch", "switch"]


def test_the_json_has_pairs_orders_the_shadow_and_workers(yard: Yard, other: PairFolder) -> None:
    with yard.worker("one"):
        assert yard.stage(other, "--wait", "120", "--shadow", "7")[0] == 0
        found = yard.listed()
    assert set(found) == {"root", "serves", "staged", "pairs", "orders", "damaged", "shadow", "workers"}
    assert (found["root"], found["serves"], found["staged"]) == (yard.root, 0, 1)
    assert found["pairs"]["1"]["classes"] == list(OTHERS)
    described = {"id", "theta_0", "theta_1", "classes", "card", "method", "identity", "tail_share"}
    assert set(found["pairs"]["1"]) == described
    assert found["pairs"]["1"]["tail_share"] == 1.0
    assert [set(order) for order in found["orders"]] == [{"number", "order", "pair", "by", "at"}] * 2
    assert (found["shadow"]["pair"], found["shadow"]["batches"], found["shadow"]["agreement"]) == (1, 0, None)
    (worker,) = found["workers"]
    assert set(worker) == {"worker", "here", "heard", "heard_s", "pairs", "shadow", "partitions"}
    assert worker["here"] is True
    fields = {"why": "", "method": "adapts by tsallis"}
    assert worker["pairs"] == {"0": {"state": "serves", **fields}, "1": {"state": "ready", **fields}}
    assert worker["shadow"] == {"done": 0, "late": 0, "seconds": 0.0, "failed": ""}


def test_a_worker_that_chooses_alpha_otherwise_than_whoever_described_the_pair_says_so(
    yard: Yard, other: PairFolder
) -> None:
    fixed = yard.settings.search.model_copy(update={"strategy": "fixed"})
    yard.settings = yard.settings.model_copy(update={"search": fixed})
    with yard.worker("one"):
        assert yard.stage(other, "--wait", "120")[0] == 0
        out = yard.run("list")[1]
    assert "no card\n    adapts by tsallis\n" in out
    assert "    pair 0: serves, a fixed alpha of 0.5, as search.alpha says\n    pair 1: ready (" in out


def test_a_rollback_before_the_switch_withdraws_what_is_staged(yard: Yard, other: PairFolder) -> None:
    assert yard.stage(other)[0] == 0
    code, out, _ = yard.run("rollback")
    assert (code, out) == (0, f"{yard.root}: pair 1 is withdrawn; pair 0 serves as before\n")
    assert yard.listed()["staged"] is None
    assert yard.run("switch")[0] == 2
    code, out, _ = yard.run("switch", "--pair", "1")
    assert code == 0, "by its number, a pair that was withdrawn can be had all the same"


def test_a_rollback_that_is_given_again_changes_nothing(yard: Yard, other: PairFolder) -> None:
    again = (
        f"{yard.root}: pair 1 was already rolled back, and pair 0 serves; to serve another, name it: `adawise pair "
        "switch --pair N`\n"
    )
    assert yard.stage(other)[0] == 0
    for undo in ("withdrawn", "serves again"):
        assert undo in yard.run("rollback")[1]
        given = read_orders(yard.store)
        for _ in range(2):
            code, out, _ = yard.run("rollback")
            assert (code, out) == (0, again)
        assert read_orders(yard.store) == given
        assert re.search(
            r"\npair 1  [0-9a-f]{16}  rolled back: `adawise pair switch --pair 1` serves", yard.run("list")[1]
        )
        assert yard.run("switch", "--pair", "1")[0] == 0, "what was taken back can be had all the same"
        assert yard.listed()["serves"] == 1


def test_a_list_names_the_command_that_serves_the_former_pair(yard: Yard, other: PairFolder) -> None:
    def roles() -> list[str]:
        return re.findall(r"(?m)^pair \d  [0-9a-f]{16}  (.*)$", yard.run("list")[1])

    yard.stage(other)
    yard.run("switch")
    assert roles() == ["former: `adawise pair rollback` serves it again", "serves"]
    yard.run("stage")  # the pair of the settings, which a rollback would withdraw
    assert roles()[0] == "former: `adawise pair switch --pair 0` serves it again"
    yard.run("rollback")
    code, out, _ = yard.run("rollback")
    assert (code, "to go back further, to pair 0" in out) == (3, True)
    assert roles()[0] == "former: `adawise pair switch --pair 0` serves it again"
    yard.run("switch", "--pair", "0")
    yard.stage(other)
    yard.run("rollback")
    code, out, _ = yard.run("rollback")
    assert (code, "to go back further" in out) == (0, False), "pair 1 was rolled back"
    assert "former" not in yard.run("list")[1]


def test_a_rollback_that_is_given_again_waits_for_the_workers_too(yard: Yard, other: PairFolder) -> None:
    assert yard.stage(other)[0] == 0
    assert yard.run("switch")[0] == 0
    assert yard.run("rollback")[0] == 0
    code, out, _ = yard.run("rollback", "--wait", "0.1")
    assert code == 3
    assert out.endswith("  no worker has reported within 0.1 s; check that one of this version is running\n")


def test_a_root_that_is_given_counts_for_more_than_that_of_the_settings(yard: Yard, other: PairFolder) -> None:
    (yard.folder / "adawise.toml").write_text("[sink]\nroot = 'elsewhere'\n")
    code, out, _ = yard.stage(other, yard.root)
    assert code == 0
    assert out.startswith(f"{yard.root}: pair 1 is staged")
    assert yard.run("switch", yard.root)[0] == 0
    assert yard.run("list", yard.root)[1].startswith("pair 0")
    assert not (yard.folder / "elsewhere").exists()


COMMANDS = (["list"], ["switch"], ["switch", "--pair", "1"], ["rollback"])


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_root_that_is_none_is_named_with_what_to_give(yard: Yard, command: Sequence[str]) -> None:
    assert yard.run(*command[:1], "nowhere", *command[1:]) == (
        2,
        "",
        "nowhere: there is no output of a worker; name the folder of sink.root",
    )
    assert not (yard.folder / "nowhere").exists()


def test_a_pair_is_not_loaded_for_a_root_that_is_none(yard: Yard, other: PairFolder) -> None:
    (yard.folder / "noise.pt").write_bytes(b"no checkpoint")
    code, _, output = yard.stage(other, "nowhere", "--model.theta-1", "noise.pt")
    assert code == 2
    assert "there is no output of a worker" in output


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_root_that_no_worker_of_this_version_served_says_so(yard: Yard, command: Sequence[str]) -> None:
    for key in yard.store.list(layout.PAIRS):
        yard.store.delete(key)
    code, _, output = yard.run(*command)
    assert code == 2
    assert output.endswith("no worker of this version has served it yet: start one, whose pair becomes the first")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("switch", "nothing is staged: run `adawise pair stage` first, or name one of 0 with --pair"),
        ("switch --pair 7", "there is no pair 7; there are 0"),
        ("switch --pair 0", "pair 0 serves already"),
        ("rollback", "nothing to roll back: pair 0 is the first, and nothing is staged"),
    ],
)
def test_what_cannot_be_switched_to_says_what_there_is_and_asks_nothing(
    yard: Yard, command: str, expected: str
) -> None:
    assert yard.run(*command.split()) == (2, "", f"{yard.root}: {expected}")
    assert len(read_orders(yard.store).log) == 1


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("switch --pair one", "--pair = 'one'"),
        ("switch --pair -1", "--pair"),
        ("stage --shadow -1", "--shadow"),
        ("stage --state new", "--state = 'new'"),
        ("list --model.theta-1 new.pt", "--model.theta-1"),
        ("rollback --wait soon", "--wait = 'soon'"),
    ],
)
def test_a_flag_that_is_wrong_is_named(yard: Yard, command: str, expected: str) -> None:
    code, _, output = yard.run(*command.split())
    assert code == 2
    assert expected in output


def test_the_pair_that_serves_cannot_be_staged(yard: Yard, pair_folder: PairFolder) -> None:
    code, _, output = yard.stage(pair_folder)
    assert (code, output) == (
        2,
        f"{yard.root}: the pair of these settings is already serving, as pair 0; name another",
    )


def test_checkpoints_that_do_not_fit_together_end_the_staging_here(yard: Yard, other: PairFolder) -> None:
    wider = Path(shutil.copytree(other.theta_1.removeprefix("local-dir:"), yard.folder / "wider"))
    config = (wider / "open_clip_config.json").read_text().replace('"width": 64', '"width": 80')
    (wider / "open_clip_config.json").write_text(config)
    random_weights(wider)
    weights = str(wider / "open_clip_model.safetensors")
    code, _, output = yard.stage(other, "--model.theta-1", weights)
    assert code == 1
    assert output.startswith(f"model.theta_1: {weights} does not load")
    assert output.endswith("Check the path and that model.architecture is the one that it was trained with.")
    code, _, output = yard.stage(other, "--model.theta-1", "no.pt")
    assert code == 2
    assert f"there is no file {yard.folder}/no.pt; correct the path" in output
    assert len(read_orders(yard.store).log) == 1


def test_pictures_that_are_prepared_otherwise_need_a_start(yard: Yard, other: PairFolder, tmp_path: Path) -> None:
    ends = []
    for end in (other.theta_0, other.theta_1):
        copy = Path(shutil.copytree(end.removeprefix("local-dir:"), tmp_path / Path(end).name))
        config = copy / "open_clip_config.json"
        config.write_text(config.read_text().replace('"bicubic"', '"bilinear"'))
        ends.append(f"local-dir:{copy}")
    theta_0, theta_1 = ends
    code, _, output = yard.stage(PairFolder(theta_0, theta_1, other.classes, other.templates))
    assert code == 2
    assert output.startswith("it preprocesses images as ")
    assert output.endswith("restart them with the new pair and --model.on-change reset or keep")


def test_other_classes_may_be_staged_unless_a_rule_of_alerts_names_one_that_is_gone(
    yard: Yard, pair_folder: PairFolder
) -> None:
    (yard.folder / "more.txt").write_text("\n".join([*OTHERS, "car"]))
    with (yard.folder / "adawise.toml").open("a") as settings:
        settings.write('\n[results]\nenabled = true\n[[alerts.rules]]\nname = "busy"\nlabels = ["bus"]\n')
    more = ("--model.classes", "more.txt")
    code, _, output = yard.stage(pair_folder, *more)
    assert code == 2
    assert output == (
        "alerts.rules: rule busy: expected a class of model.classes, got 'bus'. Correct them, or model.classes"
    )
    settings_file = yard.folder / "adawise.toml"
    settings_file.write_text(settings_file.read_text().replace('"bus"', '"car"'))
    assert yard.stage(pair_folder, *more)[0] == 0
    assert yard.listed()["pairs"]["1"]["classes"] == [*OTHERS, "car"]


def test_a_list_of_classes_that_cannot_be_used_is_named(yard: Yard, pair_folder: PairFolder) -> None:
    (yard.folder / "twice.txt").write_text("car\nbus\ncar\n")
    code, _, output = yard.stage(pair_folder, "--model.classes", "twice.txt")
    assert code == 2
    assert output.startswith("1 thing to correct\n  - model.classes = 'twice.txt'")
    assert output.endswith("has the class 'car' twice; name each once")


@contextmanager
def away(file: Path, to: Path) -> Iterator[None]:
    """Without a file, until the block ends."""
    shutil.move(file, to)
    try:
        yield
    finally:
        shutil.move(to, file)


def test_a_worker_that_cannot_load_the_pair_is_told_and_holds_the_switch_back_unless_it_is_to_be_anyway(
    yard: Yard, other: PairFolder
) -> None:
    assert yard.stage(other)[0] == 0
    weights = other.weights(1)
    with away(weights, yard.folder / "away"), yard.worker("one"):
        yard.until_reported("one", "failed")
        code, out, _ = yard.run("list")
        assert code == 3
        assert re.search(
            rf"\nworker \S+\n    pair 0: serves\n    pair 1: failed: model.theta_1: \S*{weights.parent}", out
        )
        assert yard.listed(expected=3)["workers"][0]["pairs"]["1"]["state"] == "failed"
        code, _, output = yard.run("switch")
        assert code == 2
        assert output.startswith(f"{yard.root}: not every worker has pair 1 ready: ")
        assert " failed: model.theta_1: " in output
        assert output.endswith(
            "Wait for them (`adawise pair list`), or switch with --anyway: they keep serving their pair until they "
            "have the new one"
        )
        assert len(read_orders(yard.store).log) == 2
        code, out, _ = yard.run("switch", "--anyway", "--wait", "60")
        assert code == 3
        assert re.search(r"pair 1 serves from now on; streams start anew\n  \S+: failed: model.theta_1", out)


def test_no_name_of_a_worker_or_of_whoever_asked_moves_a_terminal_s_cursor(yard: Yard, other: PairFolder) -> None:
    """The root may be written to by others; C0 characters damage a document, C1 and directions of text do not."""
    assert yard.stage(other)[0] == 0
    with away(other.weights(1), yard.folder / "away"), yard.worker("one", is_killed=True):
        yard.until_reported("one", "failed")
    evil = "pod\x9b2J\u202eevil"
    document = json.loads(yard.store.get(layout.worker_key("one")) or b"")
    yard.store.put(layout.worker_key("one"), json.dumps(document | {"worker": evil, "again_s": 3_600.0}).encode())
    give_order(yard.store, read_orders(yard.store), "withdraw", pair=1, by=evil)
    give_order(yard.store, read_orders(yard.store), "stage", pair=read_orders(yard.store).pairs[1], by=evil)
    for arguments in (
        ["list"],
        ["switch", "--pair", "1"],
        ["rollback"],
        ["switch", "--pair", "1", "--anyway", "--wait", "0.1"],
    ):
        code, out, error = yard.run(*arguments)
        assert not re.search("[\x9b\u202e]", out + error), arguments
        if arguments != ["rollback"]:
            assert "pod?2J?evil" in out + error, (arguments, code)


def test_nobody_is_waited_for_where_no_worker_is(yard: Yard, other: PairFolder) -> None:
    code, out, _ = yard.stage(other, "--wait", "0.1")
    assert code == 3
    assert out.endswith("  no worker has reported within 0.1 s; check that one of this version is running\n")


def test_a_worker_that_was_killed_holds_the_switch_back_for_no_longer_than_its_reports_may_be_late(
    yard: Yard, other: PairFolder
) -> None:
    """By the files' times, in place of half a minute."""
    assert yard.stage(other)[0] == 0
    with away(other.weights(1), yard.folder / "away"), yard.worker("one", is_killed=True):
        yard.until_reported("one", "failed")
    report = Path(yard.root) / layout.worker_key("one")
    assert report.exists()

    def received(seconds: float) -> None:
        os.utime(report, (time.time() - seconds,) * 2)

    received(17)
    code, _, output = yard.run("switch")
    assert code == 2
    assert re.search(
        r" \(last report 1[78] s ago: if it was killed, run this again in a moment\)\. Wait for them", output
    )
    received(31)
    gone = r"\S+:\d+ is gone: it was killed or is stuck; its last report was at \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ, "
    code, out, _ = yard.run("list")
    assert code == 0, "what it failed to do is no trouble of now"
    assert re.search(rf"\nworker {gone}\d\d s ago, and the others do not wait for it\n", out)
    assert yard.listed()["workers"][0]["here"] is False
    code, out, _ = yard.run("switch")
    assert code == 0
    assert re.search(rf"^  {gone}.*\n\S+: pair 1 serves from now on", out)
    received(86_500)
    assert yard.listed()["workers"] == []


@pytest.mark.check("brokers")
def test_a_worker_that_is_killed_while_it_is_waited_for_is_told(yard: Yard, other: PairFolder) -> None:
    assert yard.stage(other)[0] == 0
    with away(other.weights(1), yard.folder / "away"), yard.worker("one", is_killed=True):
        yard.until_reported("one", "failed")
    document = json.loads(yard.store.get(layout.worker_key("one")) or b"")
    assert document["again_s"] == 10.0
    document |= {"pairs": {}, "again_s": 0.5}  # and it is gone in a second and a half
    yard.store.put(layout.worker_key("one"), json.dumps(document).encode())
    code, out, _ = yard.stage(other, "--wait", "4")
    assert code == 3
    assert f"  {document['worker']} is gone: " in out
    assert "no worker has reported within 4 s" in out
    code, out, _ = yard.stage(other, "--wait", "0.1")
    assert code == 3
    assert f"  {document['worker']} is gone: " in out, "before anybody waited, and nobody else is here"
    assert "no worker has reported within 0.1 s" in out


@pytest.mark.parametrize("command", ["switch", "rollback"])
def test_whoever_was_slower_is_told_and_asks_nothing(
    yard: Yard, other: PairFolder, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert yard.stage(other)[0] == 0
    real = give_order

    def slowly(*args: Any, **fields: Any) -> Any:
        real(yard.store, read_orders(yard.store), "withdraw", pair=1, by="bob@elsewhere")
        return real(*args, **fields)

    monkeypatch.setattr("adawise.pairs.operate.give_order", slowly)
    code, _, fields = yard.run(command)
    assert code == 2
    assert fields.startswith(f"{yard.root}: bob@elsewhere gave order 2 a moment before, so yours was not recorded")
    assert len(read_orders(yard.store).log) == 3


def test_a_damaged_document_is_named_with_what_to_do(yard: Yard) -> None:
    yard.store.put(layout.pair_key(0), b"{half")
    for command in COMMANDS:
        code, _, output = yard.run(*command)
        assert code == 1
        assert layout.pair_key(0) in output


@pytest.mark.check("brokers")
def test_a_worker_whose_report_is_damaged_is_waited_for_and_named_once(yard: Yard, other: PairFolder) -> None:
    assert yard.stage(other)[0] == 0
    yard.store.put(layout.worker_key("two"), b"{half")
    damaged = Path(yard.root) / layout.worker_key("two")
    with yard.worker("one"):
        yard.until_reported("one", "ready")
        os.utime(damaged, (time.time() + 3_600,) * 2)
        yard._captured.readouterr()
        assert adawise(yard.folder, "pair", "switch", "--wait", "5") == 3
        output = yard._captured.readouterr()
        assert ": serves" in output.out, "the other one is done"
        assert output.err.count(layout.worker_key("two")) == 2, "once before the order, and once while it is waited for"
        os.utime(damaged, (time.time() - 3_600,) * 2)
        assert yard.run("switch", "--pair", "0", "--wait", "60")[0] == 0


def test_the_unit_of_systemd_refuses_what_the_next_test_does() -> None:
    unit = (DEPLOY / "systemd" / "adawise@.service").read_text().splitlines()
    assert {"SystemCallFilter=~@privileged @resources", "SystemCallErrorNumber=EPERM"} <= set(unit)


@pytest.mark.check("deploy")
def test_a_pair_is_staged_and_switched_to_where_no_priority_may_be_changed(
    tmp_path: Path, pair_folder: PairFolder, other: PairFolder
) -> None:
    skip_elsewhere()
    assert exit_code(stage_and_switch, tmp_path, pair_folder, other) == 0


def stage_and_switch(folder: Path, pair: PairFolder, other: PairFolder) -> None:
    """In a process of its own, of which nothing is captured."""
    refuse_resources()
    with pytest.raises(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, 5)
    nothing: Any = SimpleNamespace(readouterr=lambda: ("", ""))
    yard = Yard(folder, str(folder / "output"), pair, nothing)
    with yard.worker("one"):
        assert yard.stage(other, "--wait", "60")[0] == 0
        assert yard.run("switch", "--wait", "60")[0] == 0


def test_a_start_with_another_config_is_followed_by_workers_that_run_and_the_value_is_named(
    yard: Yard, pair_folder: PairFolder, tmp_path: Path
) -> None:
    def wider(config: dict[str, dict[str, Any]]) -> None:
        config["model_cfg"]["vision_cfg"]["head_width"] = 32

    ends = (pair_folder.theta_0, pair_folder.theta_1)
    theta_0, theta_1 = (with_config(tmp_path / f"end_{n}", end, wider) for n, end in enumerate(ends))
    changed = PairFolder(theta_0, theta_1, pair_folder.classes, pair_folder.templates)
    code, _, output = yard.stage(changed)
    assert code == 2
    assert re.search(
        r"config \(\w{16} \(vision_cfg.head_width 16\), by its hash; this one's is \w{16} \(\S+ 32\)\)", output
    )
    assert output.endswith("start a worker with the new config and --model.on-change keep, and the others follow")
    model = Settings.model_validate({"model": {**named(changed), "on_change": "keep"}}).model
    with yard.worker("one"):
        begin_orders(yard.store, starting_pair(yard.settings.model_copy(update={"model": model}), yard.orders))
        yard.until_reported("one", "serves")
    first, second = yard.orders.pairs.values()
    assert (first.id, first.config != second.config) == (second.id, True)


def test_a_pair_is_named_by_the_number_of_its_own_order_where_another_was_given_since(
    yard: Yard, other: PairFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*args: Any, **fields: Any) -> Any:
        return give_order(yard.store, give_order(*args, **fields), "switch", pair=1, by="bob@elsewhere")

    monkeypatch.setattr("adawise.pairs.operate.give_order", late)
    code, out, _ = yard.stage(other, "--wait", "0.1")
    assert code == 3
    assert out.startswith(f"{yard.root}: pair 1 is staged")


def test_a_store_that_is_away_for_a_moment_ends_no_wait(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([StoreUnavailable("away"), StoreUnavailable("away")])
    fields = {"worker": "pod:1", "again_s": 10.0, "pairs": {0: {"state": "serves", "why": ""}}}
    serves = Reported(WorkerReport.model_validate({**fields, "partitions": {}, "loads": {}}), datetime.now(UTC), 0.0)

    def away_at_first(_: Any) -> Any:
        for error in answers:
            raise error
        return [serves], []

    monkeypatch.setattr("adawise.pairs.operate.read_reports", away_at_first)
    monkeypatch.setattr("adawise.pairs.operate._POLL_S", 0.0)
    assert wait_for(yard.store, yard.orders, DEADLINE_S, 0, "serves")
    assert next(answers, None) is None
