from __future__ import annotations

import os
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from structlog.testing import capture_logs

from adawise.adapt.names import GRID
from adawise.clip.classifier import PairClassifier
from adawise.clip.device import numerics
from adawise.clip.heads import HeadCache, encoded, heads_path, read_heads
from adawise.clip.load import CheckpointPair
from adawise.clip.prompts import Prompts
from adawise.errors import CardError
from tests.models import CLASSES, classifier, load, random_images, write_pair

EMBEDDINGS = torch.randn(3, 8, 5, generator=torch.Generator().manual_seed(0))


def put(path: Path, embeddings: torch.Tensor) -> str:
    content, digest = encoded(embeddings)
    path.write_bytes(content)
    return digest


def test_heads_lie_beside_their_card() -> None:
    assert heads_path(Path("a/pair.card.json")) == Path("a/pair.card.heads.safetensors")


def test_heads_are_the_same_after_the_file(tmp_path: Path) -> None:
    digest = put(tmp_path / "h", EMBEDDINGS)
    back = read_heads(tmp_path / "h", digest, (3, 5))
    assert back is not None
    assert torch.equal(back, EMBEDDINGS)


def test_without_the_file_there_are_no_heads(tmp_path: Path) -> None:
    assert read_heads(tmp_path / "none", "0" * 16, (3, 5)) is None


def test_heads_of_another_card_or_damaged_are_refused(tmp_path: Path) -> None:
    digest = put(tmp_path / "h", EMBEDDINGS)
    with pytest.raises(
        CardError, match=rf"expected heads with hash {'0' * 16}, got {digest}\. Delete it .*adawise card"
    ):
        read_heads(tmp_path / "h", "0" * 16, (3, 5))
    content = bytearray((tmp_path / "h").read_bytes())
    content[-1] ^= 1
    (tmp_path / "h").write_bytes(content)
    with pytest.raises(CardError, match="expected heads with hash"):
        read_heads(tmp_path / "h", digest, (3, 5))


def test_a_file_that_holds_something_else_is_refused_even_if_the_card_names_it(tmp_path: Path) -> None:
    from hashlib import sha256

    def digest() -> str:
        return sha256((tmp_path / "h").read_bytes()).hexdigest()[:16]

    (tmp_path / "h").write_bytes(b"no heads" * 10)
    with pytest.raises(CardError, match="not a card's heads"):
        read_heads(tmp_path / "h", digest(), (3, 5))
    save_file({"other": EMBEDDINGS}, tmp_path / "h")
    with pytest.raises(CardError, match="not a card's heads"):
        read_heads(tmp_path / "h", digest(), (3, 5))
    for wrong in (EMBEDDINGS[:2], EMBEDDINGS[0], EMBEDDINGS.double(), EMBEDDINGS[..., :4]):
        with pytest.raises(CardError, match="expected float32 heads for 3 alphas and 5 classes, got"):
            read_heads(tmp_path / "h", put(tmp_path / "h", wrong), (3, 5))


@pytest.mark.parametrize("head", ["text", "interpolate"])
def test_with_the_heads_of_its_card_a_classifier_encodes_no_prompt_and_gives_the_same_logits(
    pair: CheckpointPair, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = random_images(3)
    first = classifier(pair, head=head)
    logits = [first.logits(j, images) for j in (0, 7, 20)]
    embeddings = first.embeddings()
    assert embeddings.shape == (21 if head == "text" else 2, 32, len(CLASSES))

    def encode(*_: object) -> None:
        raise AssertionError("a prompt was encoded")

    second = classifier(pair, head=head)
    second.use_embeddings(embeddings, "abc")
    monkeypatch.setattr(Prompts, "encode", encode)
    for expected, j in zip(logits, (0, 7, 20), strict=True):
        assert torch.equal(second.logits(j, images), expected)


def test_heads_that_come_from_a_file_are_part_of_the_fingerprint(pair: CheckpointPair) -> None:
    own, given = classifier(pair), classifier(pair)
    given.use_embeddings(own.embeddings(), "abc")
    assert given.fingerprint != own.fingerprint
    assert given.identity == own.identity


MIB = 2**20
HEAD = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
IMAGES = random_images(3)


def cache(folder: Path, *, key: str = "k", classes: int = 5, limit_bytes: int = MIB) -> HeadCache:
    return HeadCache(folder, key=key, classes=classes, limit_bytes=limit_bytes)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def started(pair: CheckpointPair, folder: Path, **changes: object) -> PairClassifier:
    subject = classifier(pair, **changes)  # type: ignore[arg-type]
    subject.use_cache(folder, MIB)
    return subject


def prepare_all(subject: PairClassifier) -> None:
    while subject.prepare(range(len(GRID))):
        pass


def never_encodes(monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(*_: object) -> None:
        raise AssertionError("a prompt was encoded")

    monkeypatch.setattr(Prompts, "encode", encode)


def test_a_head_is_the_same_bits_after_the_file(tmp_path: Path) -> None:
    cache(tmp_path).write(0.35, HEAD)
    back = cache(tmp_path).read([0.3, 0.35, 0.4])
    assert list(back) == [0.35]
    assert torch.equal(back[0.35], HEAD)
    assert back[0.35].dtype == torch.float32


@pytest.mark.parametrize("head", ["text", "interpolate"])
def test_a_second_start_encodes_no_prompt_and_gives_the_same_logits_and_fingerprint(
    pair: CheckpointPair, tmp_path: Path, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = classifier(pair, head=head)
    first = started(pair, tmp_path, head=head)
    prepare_all(first)
    never_encodes(monkeypatch)
    second = started(pair, tmp_path, head=head)
    assert not second.prepare(range(len(GRID)))
    monkeypatch.undo()
    for index in (0, 7, 20):
        logits = without.logits(index, IMAGES)
        assert torch.equal(first.logits(index, IMAGES), logits)
        assert torch.equal(second.logits(index, IMAGES), logits)
    assert second.fingerprint == first.fingerprint == without.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"classes": ("bus", "car", "bicycle", "person", "empty street")},
        {"templates": ("a {}.", "{}")},
    ],
    ids=["another order of classes", "other prompts"],
)
def test_heads_of_other_words_are_not_taken(pair: CheckpointPair, tmp_path: Path, change: dict[str, object]) -> None:
    prepare_all(started(pair, tmp_path))
    other = started(pair, tmp_path, **change)
    assert other.prepare([7])  # there is something to encode
    assert torch.equal(other.logits(7, IMAGES), classifier(pair, **change).logits(7, IMAGES))  # type: ignore[arg-type]


def test_heads_of_another_pair_are_not_taken(pair: CheckpointPair, tmp_path: Path) -> None:
    prepare_all(started(pair, tmp_path / "cache"))
    other = load(write_pair(tmp_path / "pair", seed=7))
    assert torch.equal(started(other, tmp_path / "cache").logits(7, IMAGES), classifier(other).logits(7, IMAGES))


@pytest.mark.parametrize("what", ["threads", "kernels", "torch", "environment"])
def test_heads_of_a_machine_that_may_round_otherwise_are_not_taken(
    pair: CheckpointPair, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_all(started(pair, tmp_path))
    assert not started(pair, tmp_path).prepare([7])
    if what == "threads":
        monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    elif what == "kernels":
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    elif what == "torch":
        monkeypatch.setattr(torch, "__version__", "9.9")
    else:
        monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    assert started(pair, tmp_path).prepare([7])


def test_numerics_are_the_same_for_two_processes_of_one_machine() -> None:
    assert numerics() == numerics()
    assert f"threads: {torch.get_num_threads()}" in numerics()


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def nonsense(path: Path) -> None:
    path.write_bytes(b"\xff" * 500)


def a_long_header(path: Path) -> None:
    path.write_bytes((2**62).to_bytes(8, "little") + b"{}" * 50)


def an_unknown_dtype(path: Path) -> None:
    header = b'{"head":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0")


def other_tensors(path: Path) -> None:
    save_file({"other": HEAD}, path)


def without_a_sum(path: Path) -> None:
    save_file({"head": HEAD}, path)


def of_another_alpha(path: Path) -> None:
    path.write_bytes((path.parent / "0.100000.safetensors").read_bytes())


def huge(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(2**40)  # sparse


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "damage",
    [
        *(flipped, cut, emptied, nonsense, a_long_header, an_unknown_dtype, other_tensors, without_a_sum),
        *(of_another_alpha, huge, a_pipe),
    ],
)
def test_a_damaged_file_is_told_of_and_made_anew(pair: CheckpointPair, tmp_path: Path, damage: object) -> None:
    first = started(pair, tmp_path)
    prepare_all(first)
    (path,) = tmp_path.rglob("0.350000.safetensors")
    damage(path)  # type: ignore[operator]
    with capture_logs() as log:
        second = started(pair, tmp_path)
        assert torch.equal(second.logits(7, IMAGES), first.logits(7, IMAGES))
    assert [(entry["event"], entry["file"]) for entry in log] == [("head_damaged", str(path))]
    with capture_logs() as log:
        assert not started(pair, tmp_path).prepare([7])  # it was written again
    assert log == []


def test_a_head_with_another_number_of_classes_is_not_taken(tmp_path: Path) -> None:
    cache(tmp_path).write(0.5, HEAD)
    assert cache(tmp_path, classes=6).read([0.5]) == {}


def test_many_workers_write_the_same_heads_at_once_and_none_reads_half_a_file(tmp_path: Path) -> None:
    alphas = [j / 20 for j in range(21)]
    heads = {alpha: torch.full((64, 5), alpha) for alpha in alphas}

    def work(_: int) -> None:
        ours = cache(tmp_path)
        for alpha in alphas:
            ours.write(alpha, heads[alpha])
            for found, head in ours.read(alphas).items():
                assert torch.equal(head, heads[found])

    with capture_logs() as log, ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(16)))
    assert log == []
    assert len(files(tmp_path)) == 21
    assert len(cache(tmp_path).read(alphas)) == 21


def test_the_folder_is_bounded_and_what_was_not_used_for_longest_makes_room(tmp_path: Path) -> None:
    cache(tmp_path).write(0.5, HEAD)
    size = files(tmp_path)[0].stat().st_size
    shutil.rmtree(cache(tmp_path)._home)
    for used_s, key in enumerate(("oldest", "middle", "newest"), 1):
        ours = cache(tmp_path, key=key)
        ours.write(0.5, HEAD)
        os.utime(ours._home, (used_s, used_s))
    assert cache(tmp_path, key="oldest").read([0.5])  # and so it was used now
    cache(tmp_path, key="next", limit_bytes=3 * size + size // 2).write(0.5, HEAD)
    kept = [key for key in ("oldest", "middle", "newest", "next") if cache(tmp_path, key=key).read([0.5])]
    assert kept == ["oldest", "newest", "next"]


def test_heads_that_are_larger_than_the_bound_are_not_kept_and_this_is_told_once(tmp_path: Path) -> None:
    subject = cache(tmp_path, limit_bytes=100)
    with capture_logs() as log:
        subject.write(0.5, HEAD)
        subject.write(0.6, HEAD)
    assert [entry["event"] for entry in log] == ["head_cache_not_written"]
    assert "model.cache_mib" in log[0]["error"]
    assert files(tmp_path) == []


def test_heads_that_do_not_fit_delete_none_of_another_pair(tmp_path: Path) -> None:
    other = cache(tmp_path, key="other")
    other.write(0.5, HEAD)
    cache(tmp_path, limit_bytes=100).write(0.5, HEAD)
    assert other.read([0.5])


def test_nothing_but_its_own_files_is_ever_deleted(tmp_path: Path) -> None:
    cache(tmp_path, key="old").write(0.5, HEAD)
    (home,) = tmp_path.iterdir()
    (home / "thesis.txt").write_text("three years")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.safetensors").write_bytes(b"x" * 10_000)
    (tmp_path / "letter").write_text("dear")
    cache(tmp_path, key="new", limit_bytes=600).write(0.5, HEAD)
    assert (home / "thesis.txt").read_text() == "three years"
    assert (tmp_path / "photos" / "a.safetensors").exists()
    assert (tmp_path / "letter").exists()
    assert cache(tmp_path, key="old").read([0.5]) == {}
    assert cache(tmp_path, key="new").read([0.5])


def test_what_a_killed_worker_left_in_the_making_is_deleted_after_an_hour(tmp_path: Path) -> None:
    subject = cache(tmp_path)
    subject.write(0.5, HEAD)
    (home,) = tmp_path.iterdir()
    for name, age_s in (("old.part", 4_000), ("new.part", 10)):
        (home / name).write_bytes(b"half")
        then = os.stat(home / name).st_mtime - age_s
        os.utime(home / name, (then, then))
    subject.write(0.6, HEAD)
    assert [path.name for path in files(tmp_path) if path.suffix == ".part"] == ["new.part"]


@pytest.mark.parametrize("folder", ["a file", "below a file"])
def test_a_folder_that_cannot_be_written_costs_one_line_and_no_start(
    pair: CheckpointPair, tmp_path: Path, folder: str
) -> None:
    (tmp_path / "file").write_text("not a folder")
    place = tmp_path / "file" if folder == "a file" else tmp_path / "file" / "heads"
    with capture_logs() as log:
        subject = started(pair, place)
        prepare_all(subject)
    assert log.pop()["event"] == "heads_encoded"
    assert {entry["event"] for entry in log} <= {"head_cache_not_read", "head_cache_not_written"}
    assert len(log) == len({entry["event"] for entry in log})
    assert "model.cache" in log[-1]["remedy"]
    assert torch.equal(subject.logits(7, IMAGES), classifier(pair).logits(7, IMAGES))


def test_the_folder_is_its_users_alone(tmp_path: Path) -> None:
    cache(tmp_path / "heads").write(0.5, HEAD)
    (home,) = (tmp_path / "heads").iterdir()
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_heads_beside_a_card_come_before_those_of_the_cache(pair: CheckpointPair, tmp_path: Path) -> None:
    prepare_all(started(pair, tmp_path))
    subject = classifier(pair)
    given = torch.nn.functional.normalize(torch.randn(21, 32, len(CLASSES)), dim=1)
    subject.use_embeddings(given, "abc")
    before = subject.logits(7, IMAGES)
    subject.use_cache(tmp_path, MIB)
    assert torch.equal(subject.logits(7, IMAGES), before)


def test_a_full_disk_costs_one_line_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    subject = cache(tmp_path)
    with capture_logs() as log:
        subject.write(0.5, HEAD)
        subject.write(0.6, HEAD)
    assert [entry["event"] for entry in log] == ["head_cache_not_written"]
    assert files(tmp_path) == []
