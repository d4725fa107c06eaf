"""OpenAI's archives are read without running what is in them."""

from __future__ import annotations

import copy
import io
import pickle
import shutil
import zipfile
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip import factory
from safetensors.torch import load_file
from structlog.testing import capture_logs

from adawise.clip import archive as archives
from adawise.clip.archive import is_archive, read_archive
from adawise.clip.load import load_checkpoints
from adawise.errors import CheckpointError
from tests.models import CONFIG, PairFolder

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning", "ignore::torch.jit.TracerWarning")


@pytest.fixture(scope="module")
def archive(pair_folder: PairFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """theta_0 as OpenAI publishes: traced, in half precision, with three numbers of its shape."""
    model = open_clip.CLIP(**CONFIG["model_cfg"], quick_gelu=True).eval()
    model.load_state_dict(load_file(pair_folder.weights(0)))
    for name, number in {"input_resolution": 32, "context_length": 16, "vocab_size": 49408}.items():
        if hasattr(model, name):
            delattr(model, name)
        model.register_buffer(name, torch.tensor(number))
    inputs = {"encode_image": torch.ones(2, 3, 32, 32), "encode_text": torch.zeros(2, 16, dtype=torch.int)}
    path = tmp_path_factory.mktemp("openai") / "ViT-B-32.pt"
    torch.jit.save(torch.jit.trace_module(model, inputs, check_trace=False).half(), path)  # type: ignore[no-untyped-call]
    return path


def test_an_archive_of_openai_loads_with_its_quickgelu_and_preprocessing(
    archive: Path, pair_folder: PairFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(factory._MODEL_CONFIGS, "tiny", CONFIG["model_cfg"])
    with capture_logs() as logged:
        shutil.copy(pair_folder.weights(1), tmp_path / "one.safetensors")
        pair = load_checkpoints("tiny", str(archive), str(tmp_path / "one.safetensors"))
    saved = load_file(pair_folder.weights(0))
    assert all(torch.equal(tensor, saved[f"visual.{name}"].half().float()) for name, tensor in pair.theta_0.items())
    assert set(pair.preparation.sources.values()) == {f"OpenAI's archive {archive}"}
    assert pair.preparation.values["quick_gelu"] is True
    assert logged == []


def test_an_archive_of_another_architecture_is_refused_with_the_key(archive: Path, pair_folder: PairFolder) -> None:
    with pytest.raises(CheckpointError, match=r"ViT-B-32\.pt does not load as ViT-B-16: .*size mismatch for|Missing"):
        load_checkpoints("ViT-B-16", str(archive), str(pair_folder.weights(1)))


def test_other_files_of_torch_are_no_archives(pair_folder: PairFolder, tmp_path: Path, archive: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "plain.pt")
    (tmp_path / "cut.pt").write_bytes(archive.read_bytes()[:5000])
    others = [tmp_path / "plain.pt", tmp_path / "cut.pt", tmp_path / "none.pt", pair_folder.weights(0), tmp_path]
    assert [is_archive(str(path)) for path in others] == [False] * 5
    assert is_archive(str(archive), of_openai=True)


def packed(path: Path, members: dict[str, bytes], *, levels: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", levels) as written:
        for name, content in members.items():
            written.writestr(f"a/{name}", content)
    return path


@pytest.mark.parametrize("scripted", [True, False], ids=["TorchScript", "state_dict"])
def test_a_small_archive_that_unpacks_to_very_much_is_refused_before_it_is_unpacked(
    scripted: bool, pair_folder: PairFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "_SPARE_BYTES", 1 << 20)
    members = {"data.pkl": bytes(1 << 25)} | ({"constants.pkl": b""} if scripted else {"data/0": b""})
    path = packed(tmp_path / "bomb.pt", members)
    assert path.stat().st_size < 1 << 16
    read: list[str] = []
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda self, name, pwd=None: read.append(str(name)))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was unpacked"))
    assert is_archive(str(path)) == scripted
    assert not is_archive(str(path), of_openai=True)
    with pytest.raises(CheckpointError, match=r"bomb\.pt: .*many times its size"):
        load_checkpoints(pair_folder.theta_0, str(path), pair_folder.theta_1)
    folder = shutil.copytree(pair_folder.theta_1.removeprefix("local-dir:"), tmp_path / "theta_1")
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    shutil.copy(path, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(CheckpointError, match="many times its size"):
        load_checkpoints(None, pair_folder.theta_0, f"local-dir:{folder}")
    assert read == []


def test_members_that_share_their_bytes_count_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_SPARE_BYTES", 0)
    path = packed(tmp_path / "overlapping.pt", {"constants.pkl": bytes(1 << 12)}, levels=zipfile.ZIP_STORED)
    archives.check_unpacked_size(str(path))
    with zipfile.ZipFile(path, "a") as written:
        for number in range(9):
            member = copy.copy(written.infolist()[0])
            member.filename = member.orig_filename = f"a/data/{number}"
            written.filelist.append(member)
        written._didModify = True  # type: ignore[attr-defined]
    with pytest.raises(CheckpointError, match="many times its size"):
        read_archive(str(path))


def test_tensors_of_one_storage_share_its_bytes(tmp_path: Path) -> None:
    class Naming(pickle.Pickler):
        def persistent_id(self, obj: object) -> object:
            return ("storage", "FloatStorage", "0", "cpu", 4) if obj == "the storage" else None

    content = io.BytesIO()
    Naming(content).dump(["the storage"] * 100)
    members = {"data.pkl": content.getvalue(), "constants.pkl": b"", "data/0": bytes(16)}
    path = packed(tmp_path / "shared.pt", members, levels=zipfile.ZIP_STORED)
    with zipfile.ZipFile(path) as archive:
        found = archives._TensorReader(archive).load()
    assert len({tensor.data_ptr() for tensor in found}) == 1


class Hostile:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("run",))


@pytest.mark.parametrize("content", [pickle.dumps(Hostile()), pickle.dumps(torch.nn.Linear), pickle.dumps(io.BytesIO)])
def test_an_archive_that_names_more_than_tensors_is_refused_unrun(
    content: bytes, pair_folder: PairFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "hostile.pt"
    with zipfile.ZipFile(path, "w") as written:
        written.writestr("a/data.pkl", content)
        written.writestr("a/constants.pkl", b"")
    with pytest.raises(pickle.UnpicklingError, match="it names"):
        read_archive(str(path))
    with pytest.raises(CheckpointError, match=r"hostile\.pt is a pickle with more than tensors"):
        load_checkpoints(pair_folder.theta_0, str(path), pair_folder.theta_1)
    assert capsys.readouterr().out == ""
