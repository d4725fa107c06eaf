"""What a user sees when something is wrong: an exit code, one message that names the thing, and the remedy at its end.

The tests of each part show that its errors are raised; these show how they arrive. Where it matters that the whole
program behaves, it is a process; loading torch takes seconds, so the rest calls the command line in this process.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from adawise.sink.owner import Owner, claim_owner
from adawise.store.store import open_store
from tests.brokers import Broker, MakeTopic
from tests.deadlines import DEADLINE_S
from tests.kafka.certificates import Authority
from tests.models import PairFolder, write_pair
from tests.replay.runs import adawise, events, process

Captured = pytest.CaptureFixture[str]
NOBODY = "127.0.0.1:1"

pytestmark = pytest.mark.usefixtures("logs_of_this_process")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> PairFolder:
    return write_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture
def folder(tmp_path: Path, pair: PairFolder) -> Path:
    """A folder with settings that lack nothing but a broker; `theirs.txt` are class names, `file` is a file."""
    lines = [f"theta_0 = '{pair.theta_0}'", f"theta_1 = '{pair.theta_1}'", f"classes = '{pair.classes}'"]
    lines += ["device = 'cpu'", "precision = 'fp32'", f"architecture = '{pair.theta_0}'"]
    (tmp_path / "adawise.toml").write_text("[model]\n" + "\n".join(lines))
    (tmp_path / "file").touch()
    return tmp_path


def message(captured: Captured) -> str:
    """What was said of the mistake: nothing else is on the error output but the log."""
    err = captured.readouterr().err
    assert "Traceback" not in err
    return err[err.index("adawise: ") :].rstrip()


def ended(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """A real process: exit code, output proper, error output."""
    with process(folder, *arguments) as running:
        out, err = running.communicate(timeout=DEADLINE_S)
        assert "Traceback" not in out + err
        return running.returncode, out, err


def test_check_tells_every_fault_of_every_part_and_ends_with_1(
    folder: Path, pair: PairFolder, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = write_pair(tmp_path_factory.mktemp("other"), seed=1)
    wider = Path(shutil.copytree(other.theta_1.removeprefix("local-dir:"), folder / "wider"))
    config = (wider / "open_clip_config.json").read_text().replace('"width": 64', '"width": 80')
    (wider / "open_clip_config.json").write_text(config)
    random_weights(wider)
    flags = (
        "--model.theta-1",
        str(wider / "open_clip_model.safetensors"),
        "--sink.root",
        "file/out",
        "--kafka.bootstrap-servers",
        NOBODY,
    )
    code, out, err = ended(folder, "doctor", *flags)
    *lines, counts = out.splitlines()
    fields = {line[6:].partition(":")[0]: line for line in lines}
    assert (code, lines[0], err) == (1, "OK    settings", "")
    broker, store, model = fields["broker"], fields["output folder"], fields["model pair and card"]
    assert broker.startswith(f"FAIL  broker: could not reach Kafka at {NOBODY}: ")
    start = f"or `adawise broker --port {NOBODY.rpartition(':')[2]}`"
    assert broker.endswith(f"{start}, or name another with --kafka.bootstrap-servers (kafka.bootstrap_servers).")
    assert fields["topic"] == "SKIP  topic: needs broker"
    assert fields["codecs of batches"] == "OK    codecs of batches: none, gzip, snappy, lz4, zstd"
    assert store.startswith("FAIL  output folder: file/out/")
    assert store.endswith("set sink.root to one, or give this user the permission")
    assert ", 3 failed, " in counts
    assert model.startswith(
        f"FAIL  model pair and card: model.theta_1: {wider}/open_clip_model.safetensors does not load"
    )
    assert "visual.class_embedding: copying a param with shape torch.Size([80])" in model
    assert model.endswith("Check the path and that model.architecture is the one that it was trained with.")
    assert list(folder.glob("runs*")) == []


def random_weights(folder: Path) -> None:
    """Weights for the folder's own configuration."""
    import json

    import open_clip
    from safetensors.torch import save_file

    model = open_clip.CLIP(**json.loads((folder / "open_clip_config.json").read_text())["model_cfg"])
    state = {name: tensor.detach().contiguous().clone() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")


def test_a_worker_whose_certificate_ends_soon_says_so_when_it_starts(folder: Path) -> None:
    authority = Authority(folder, "ours")
    pair = authority.pair("worker", days=0.5)
    security = f"[kafka.security]\nprotocol = 'SSL'\nssl_ca = '{authority.certificate}'\n"
    security += f"ssl_certificate = '{pair.certificate}'\nssl_key = '{pair.key}'\n"
    with (folder / "adawise.toml").open("a") as settings:
        settings.write(f"\n{security}[log]\nformat = 'json'\n")
    with process(folder, "run", "--kafka.bootstrap-servers", NOBODY) as running:
        line = next(event for event in events(running.stderr) if event["event"] == "certificate_aged")
        running.terminate()
        assert running.wait(timeout=DEADLINE_S) == 0
    assert (line["setting"], line["file"]) == ("kafka.security.ssl_certificate", str(pair.certificate))
    assert f"expires at {line['ends']}, in 12 h; then no new connection is accepted. Replace it" in line["note"]


@pytest.mark.parametrize("command", ["run", "record -o recording", "doctor"])
def test_a_missing_topic_is_named_with_the_remedy(folder: Path, broker: Broker, capsys: Captured, command: str) -> None:
    servers = broker.bootstrap_servers
    assert adawise(folder, *command.split(), "--kafka.topic", "yard", "--kafka.bootstrap-servers", servers) == 1
    captured = capsys.readouterr()
    assert f"there is no topic 'yard' at {servers}. Create the topic" in captured.out + captured.err


def test_a_mistyped_topic_and_a_root_of_another_group_are_told_before_the_model_is_loaded(
    folder: Path, broker: Broker, topic: MakeTopic, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loads(*_: object, **__: object) -> None:
        raise AssertionError("nothing is loaded")

    monkeypatch.setattr("adawise.app.worker.run_worker", loads)
    name = topic()
    at = ("--kafka.bootstrap-servers", broker.bootstrap_servers, "--sink.root", "live")
    assert adawise(folder, "run", *at, "--kafka.topic", f"{name}s") == 1
    assert f"(did you mean '{name}'?). Create the topic" in message(capsys)
    claim_owner(open_store(str(folder / "live")), Owner("", name, "first", "run"))
    assert adawise(folder, "run", *at, "--kafka.topic", name, "--kafka.group", "second") == 2
    assert f"belongs to the workers of group 'first' on topic '{name}'" in message(capsys)


def test_a_topic_is_not_created_by_producing_without_being_asked(
    folder: Path, broker: Broker, capsys: Captured
) -> None:
    (folder / "images").mkdir()
    assert adawise(folder, "produce", "images", "--kafka.bootstrap-servers", broker.bootstrap_servers) == 1
    assert message(capsys).endswith("but there is none of that name. Create it, or give --create-topic.")


@pytest.mark.parametrize(
    ("flags", "code", "begin", "end"),
    [
        (
            "--model.card other.card.json",
            1,
            "model.card other.card.json: the card belongs to another pair: its theta_1 is ",
            "Make a card for this pair: adawise card make --labelled FOLDER -o FILE",
        ),
        ("--model.card no.card.json", 1, "no.card.json: ", "adawise card make --labelled FOLDER -o FILE"),
        ("--sink.root file/out", 2, "file/out/_owner.json: expected a folder that can be written", "the permission"),
        ("--model.theta-1 module.pt", 1, "model.theta_1: module.pt ", "need that once, offline)."),
        ("--model.theta-1 noise.pt", 1, "model.theta_1: noise.pt ", "offline)."),
        ("--model.theta-1 noise.safetensors", 1, "model.theta_1: noise.safetensors does not load ", "trained with."),
        ("--model.theta-1 arrow.bin", 1, "model.theta_1: arrow.bin ", "offline)."),
        (
            "--model.classes twice.txt",
            2,
            "1 thing to correct\n  - model.classes = 'twice.txt'",
            "has the class 'car' twice; name each once",
        ),
        ("--model.classes empty.txt", 2, "model.classes: empty.txt: ", "found none. Correct it."),
        ("--search.objective calibrated_entropy", 2, "1 thing to correct\n  - search.objective", "objective tsallis"),
    ],
)
def test_a_worker_that_cannot_begin_says_why(
    folder: Path,
    pair: PairFolder,
    broker: Broker,
    topic: MakeTopic,
    capsys: Captured,
    flags: str,
    code: int,
    begin: str,
    end: str,
) -> None:
    _write_bad_files(folder, pair)
    at = ("--kafka.topic", topic(), "--kafka.bootstrap-servers", broker.bootstrap_servers)
    assert adawise(folder, "run", *at, *flags.split()) == code
    output = message(capsys).removeprefix("adawise: ")
    assert output.startswith(begin)
    assert output.endswith(end)
    assert list(folder.glob("runs/output/predictions")) == []


def _write_bad_files(folder: Path, pair: PairFolder) -> None:
    (folder / "twice.txt").write_text("car\nbus\ncar\n")
    (folder / "empty.txt").write_text("\n")
    torch.save(torch.nn.Linear(2, 2), folder / "module.pt")
    for name in ("noise.pt", "noise.safetensors", "no.card.json"):
        (folder / name).write_bytes(b"no checkpoint and no card " * 50)
    with pa.OSFile(str(folder / "arrow.bin"), "wb") as file, pa.ipc.new_stream(file, pa.schema([])) as writer:
        writer.write_table(pa.table({}))
    (folder / "other.card.json").write_text(_card_of_another(folder, pair))


def _card_of_another(folder: Path, pair: PairFolder) -> str:
    """A real card, but of theta_1 with another hash."""
    from datetime import UTC, datetime

    from adawise.card.card import make_card
    from tests.models import classifier, load

    subject = classifier(load(pair))
    logits = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    identity = {**subject.identity, "theta_1": "0123456789abcdef"}
    now = datetime.now(UTC).isoformat()
    card = make_card(lambda _: logits, torch.arange(20) % 5, alphas=subject.alphas, identity=identity, created_at=now)
    return card.to_json()


def test_every_wrong_name_is_told_at_once_with_what_was_meant(tmp_path: Path) -> None:
    (tmp_path / "adawise.toml").write_text('[modl]\ntheta_0 = "x"\n[batch]\nimage = 5\nmax_age_s = "soon"\n')
    code, out, err = ended(tmp_path, "run", "--log.format", "console", "--serch.alpha", "0")
    assert (code, out) == (2, "")
    assert "modl  (adawise.toml line 1)\n      there is no such group; did you mean [model]?" in err
    assert "batch.image  (adawise.toml line 4)\n      there is no such setting; did you mean batch.images" in err
    assert "batch.max_age_s = 'soon'  (adawise.toml line 5)\n      expected a number above 0 up to 3600" in err
    assert "--serch.alpha  (flag)\n      there is no such flag; did you mean --search.alpha?" in err


def test_without_any_settings_run_lists_what_is_missing_and_how_to_set_it(tmp_path: Path) -> None:
    code, out, err = ended(tmp_path, "run", "--log.format", "console")
    assert (code, out) == (2, "")
    assert err.startswith("adawise: 3 things to correct\n")
    for name, flag in (("theta_0", "theta-0"), ("theta_1", "theta-1"), ("classes", "classes")):
        assert f"  - model.{name}  (not set)\n" in err
        assert (
            f"set it by --model.{flag} or ADAWISE_MODEL__{name.upper()} or {name} under [model] in adawise.toml" in err
        )
    assert list(tmp_path.iterdir()) == []


def test_a_classes_file_that_is_not_there_is_told_before_anything_is_loaded(folder: Path) -> None:
    code, _, err = ended(folder, "run", "--log.format", "console", "--model.classes", "nowhere.txt")
    assert code == 2
    assert err == (
        "adawise: 1 thing to correct\n  - model.classes = 'nowhere.txt'  (flag --model.classes)\n"
        f"      there is no file {folder}/nowhere.txt; correct the path\n"
    )


def test_a_source_of_images_that_is_not_there_is_named(folder: Path, capsys: Captured) -> None:
    assert adawise(folder, "produce", "pictures") == 2
    assert message(capsys) == "adawise: there is no pictures; name a folder of images, a list of them, or a video"
