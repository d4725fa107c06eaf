"""What the doctor says of the output, of the recording that a worker would make, and of what is under them."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adawise.app.recording import recording_folder
from adawise.doctor import store as module
from adawise.doctor.known import CheckResult, Known
from adawise.errors import ChainError, FatalError, SettingsError, SourceError
from adawise.ports import TopicIdentity
from adawise.settings import Settings
from adawise.settings.scene import SceneSettings
from adawise.sink import claims
from adawise.store.answers import AlreadyExists
from adawise.store.store import LocalStore, open_store
from tests.store.clouds import new_bucket, open_s3, s3_server
from tests.watch.status.yard import Yard

IDENTITY = TopicIdentity("cluster", "an-id", 2)


def settings(folder: Path | str, topic: str = "yard", *, enabled: bool = True) -> Settings:
    return Settings.model_validate(
        {
            "kafka": {"topic": topic},
            "sink": {"root": f"{folder}/out"},
            "record": {"enabled": enabled, "root": f"{folder}/recording"},
        }
    )


def facts(wanted: Settings, commits: dict[Any, Any] | None = None) -> Known:
    """As a broker would have told them."""
    known = Known(wanted)
    known.__dict__ |= {"identity": IDENTITY, "commits": commits or {}}
    return known


def test_the_folder_of_the_recording_is_looked_at(tmp_path: Path) -> None:
    known = facts(settings(tmp_path))
    assert module.recording(known) == CheckResult(
        "ok", f"{tmp_path}/recording supports conditional creation, and can hold a recording of yard"
    )
    recording_folder(settings(tmp_path), IDENTITY)
    assert module.recording(known) == CheckResult(
        "ok", f"{tmp_path}/recording supports conditional creation, and is a recording of yard"
    )


@pytest.mark.parametrize("name", ["folder", "s3"])
def test_nothing_is_left_behind_where_nothing_was(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = f"s3://{new_bucket()}/some/prefix" if name == "s3" else f"{tmp_path}/not/there"
    store = open_s3(monkeypatch, s3_server(), root) if name == "s3" else None
    known = facts(settings(root))
    for check in (module.output, module.recording, module.clock, module.chains):
        assert check(known).status == "ok", check
    assert (store.list("") if store else list(tmp_path.iterdir())) == []


def test_an_output_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    claims.sink_id(open_store(str(tmp_path / "out")), created_at="then")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert module.output(facts(settings(tmp_path))).status == "ok"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_store_that_overwrites_fails_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalStore, "create", LocalStore.put)
    with pytest.raises(SettingsError, match="refuses to create a key that exists"):
        module.output(facts(settings(tmp_path)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("kept", "found"), [(b"old", "3 other bytes"), (None, "nothing")])
def test_a_store_that_does_not_have_what_was_written_last_fails(
    kept: bytes | None, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalStore, "get", lambda self, key: kept if key.startswith("_check-") else None)
    with pytest.raises(SettingsError, match=f"returns what was written last, but it has {found}"):
        module.output(facts(settings(tmp_path)))


def test_an_output_of_another_group_fails_with_or_without_a_broker(tmp_path: Path) -> None:
    from adawise.sink.owner import Owner, claim_owner

    claim_owner(open_store(str(tmp_path / "out")), Owner("cluster", "yard", "others", "run"))
    without = Known(settings(tmp_path))
    without.failed.add("topic")
    for known in (facts(settings(tmp_path)), without):
        with pytest.raises(SettingsError, match="belongs to the workers of group 'others'"):
            module.output(known)


def test_an_empty_output_of_a_group_that_had_one_fails(tmp_path: Path) -> None:
    from adawise.records import TopicPartition

    with pytest.raises(SettingsError, match="is empty, but group 'adawise' has committed offset 7"):
        module.output(facts(settings(tmp_path), {TopicPartition("yard", 0): (7, "")}))


def test_a_hole_in_a_chain_fails_with_what_mends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adawise.sink.holes.of_root", lambda store: [("yard/0", f"hole {n}") for n in range(5)])
    with pytest.raises(ChainError, match=r"hole 0; .*hole 2 and 2 more.*`adawise repair "):
        module.chains(facts(settings(tmp_path)))


def test_a_recording_of_another_topic_is_told_before_the_worker_starts(tmp_path: Path) -> None:
    recording_folder(settings(tmp_path, "street"), IDENTITY)
    with pytest.raises(SourceError, match=r"street.*Record into a new folder"):
        module.recording(facts(settings(tmp_path)))


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (
            [("gate-*", ["car", "tram"])],
            ("ok", "of 3 cameras that served under a shortlist within the last hour, none often"),
        ),
        ([("gate-*", [])], ("ok", "")),
        ([("gate-1", ["car", "bus"]), ("gate-*", ["car", "tram"])], ("warn", "gate-1: 40 of 120 .* show 'bus', which")),
        ([("gate-*", ["car", "tram"]), ("gate-1", ["car", "bus"])], ("ok", "")),
        ([("gate-*", ["not", "bus"])], ("warn", "gate-1: 40 of 120 .* show 'bus', which")),
        ([("gate-*", ["car", "tram"]), ("yrad", ["car", "bus"])], ("warn", "no camera of the output is called yrad")),
    ],
)
def test_shortlists_are_compared_with_what_was_served(
    tmp_path: Path, rules: list[tuple[str, list[str]]], expected: tuple[str, str]
) -> None:
    """What was served: gate-0 and gate-2 show what is listed; gate-1 shows buses, which its list lacks."""
    wanted = settings(tmp_path)
    yard = Yard(LocalStore(Path(wanted.sink.root)), now_s=time.time())
    yard.write(ago_s=7_000, batches=[("gate-0", 400, 0.5)], shortlist=("a", {1: 400}))
    for ago_s in (60, 50):
        yard.write(ago_s=ago_s, batches=[(f"gate-{n}", 60, 0.5) for n in (0, 2)], shortlist=("a", {}))
        yard.write(ago_s=ago_s, batches=[("gate-1", 60, 0.5)], shortlist=("a", {1: 20}))
    lists: list[dict[str, Any]] = []
    for streams, names in rules:
        given = {"exclude": names[1:]} if names[:1] == ["not"] else {"classes": names} if names else {}
        lists.append({"streams": streams, **given})
    if rules[0][1] == ["car", "tram"] and len(rules) == 1:
        lists.append({"streams": "gate-1", "exclude": ["dog"]})
    wanted = wanted.model_copy(update={"scene": SceneSettings.model_validate({"shortlists": lists})})
    found = module.shortlists(facts(wanted))
    assert (found.status, bool(re.search(expected[1], found.detail))) == (expected[0], True), found.detail


def test_shortlists_of_an_output_that_was_not_begun_pass(tmp_path: Path) -> None:
    wanted = settings(tmp_path).model_copy(
        update={"scene": SceneSettings.model_validate({"shortlists": [{"streams": "gate-*", "exclude": ["dog"]}]})}
    )
    assert module.shortlists(facts(wanted)).status == "ok"


def mounted(root: Path, *lines: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    fields = "".join(f"{number} 1 0:{number} / {line} rw\n" for number, line in enumerate(lines))
    (root / "proc/self/mountinfo").write_text(fields)
    return root


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("nfs4", "Mount it `hard`, with version 4"),
        ("cifs", "depend on the server"),
        ("fuse.s3fs", "Name the store itself (s3://...)"),
        ("overlay", "is deleted with the container. Mount a volume there"),
        ("tmpfs", "lost at a restart"),
    ],
)
def test_a_file_system_that_does_not_keep_what_it_has_is_a_warning(kind: str, expected: str, tmp_path: Path) -> None:
    machine = mounted(tmp_path / "machine", "/ rw - ext4 /dev/vda", f"{tmp_path} rw - {kind} there")
    answer = module.file_system(facts(settings(tmp_path)), machine)
    assert answer.status == "warn"
    assert answer.detail.startswith(f"{tmp_path}/out is on {kind}: ")
    assert f"; {tmp_path}/recording is on {kind}: " in answer.detail
    assert expected in answer.detail


def test_the_last_mount_over_the_longest_path_counts(tmp_path: Path) -> None:
    over = mounted(
        tmp_path / "machine", f"{tmp_path} rw - nfs4 there", f"{tmp_path} rw - xfs /dev/vdb", "/ rw - tmpfs t"
    )
    answer = module.file_system(facts(settings(tmp_path, enabled=False)), over)
    assert answer == CheckResult("ok", f"{tmp_path}/out is on xfs")


def test_a_bucket_has_no_file_system_and_no_end(tmp_path: Path) -> None:
    known = facts(settings("s3://bucket"))
    assert {module.file_system(known).status, module.space(known).status} == {"skip"}
    assert module.file_system(facts(settings(tmp_path)), tmp_path).status == "skip"  # it names no mounts


def test_the_kernel_of_this_machine_is_understood(tmp_path: Path) -> None:
    answer = module.file_system(facts(settings(tmp_path, enabled=False)))
    assert answer.detail.startswith(f"{tmp_path}/out is on ")
    shared = Path("/dev/shm")
    if shared.is_dir():
        assert module.file_system(facts(settings(shared / "x", enabled=False))).status == "warn"


def disk(monkeypatch: pytest.MonkeyPatch, *, free: int, nodes: int = 10**6) -> None:
    real = os.statvfs
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=2**40, free=free))
    monkeypatch.setattr(
        os, "statvfs", lambda path: SimpleNamespace(f_files=10**7, f_favail=nodes, f_bavail=real(path).f_bavail)
    )


def test_a_disk_that_is_full_fails_and_so_does_one_without_room_for_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(monkeypatch, free=2**29)
    with pytest.raises(FatalError, match=r"1\.0 GiB of free space or more, got 512\.0 MiB of 1\.0 TiB"):
        module.space(facts(settings(tmp_path)))
    disk(monkeypatch, free=2**40, nodes=3)
    with pytest.raises(FatalError, match="has 3 inodes left"):
        module.space(facts(settings(tmp_path)))


def test_space_is_told_in_days_at_the_pace_of_the_last_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out" / "predictions"
    folder.mkdir(parents=True)
    for name, age_s in (("old", 3 * 86_400), ("then", 43_200), ("now", 0)):
        (folder / name).write_bytes(bytes(2**20))
        os.utime(folder / name, (time.time() - age_s,) * 2)
    disk(monkeypatch, free=40 * 2**30)  # 4 MiB a day
    assert module.space(facts(settings(tmp_path, enabled=False))) == CheckResult(
        "ok", f"{tmp_path}/out: 40.0 GiB free, enough for 10240 days at the rate of the last day"
    )
    with (folder / "large").open("wb") as file:
        file.truncate(10 * 2**30)
    answer = module.space(facts(settings(tmp_path, enabled=False)))
    assert answer.status == "warn"
    assert answer.detail.endswith(
        "grew by 20.0 GiB a day, and 40.0 GiB are free: enough for 48 h. Free space, or keep less"
    )


@pytest.mark.parametrize(("ours_s", "expected"), [(-3600, "60 min ahead of"), (10_800, "3 h behind")])
def test_a_store_whose_clock_is_another_is_a_warning(
    ours_s: int, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shifted = SimpleNamespace(time=lambda: time.time() + ours_s, monotonic=time.monotonic)
    monkeypatch.setattr(module, "time", shifted)
    answer = module.clock(facts(settings(tmp_path, enabled=False)))
    assert answer.status == "warn"
    assert f"the store's clock is {expected} this machine's" in answer.detail
    assert list(tmp_path.iterdir()) == []


def test_a_store_whose_answers_are_lost_is_proved_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client asks again, and hears that the key is there."""
    create = LocalStore.create

    def forgetful(store: LocalStore, key: str, data: bytes) -> None:
        create(store, key, data)
        raise AlreadyExists(key)

    monkeypatch.setattr(LocalStore, "create", forgetful)
    module.prove_store(str(tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []
