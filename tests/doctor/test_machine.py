"""What the doctor says of cores, memory, open files and the device, on machines and in containers of all sizes."""

from __future__ import annotations

import os
import resource
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from adawise.app import machine
from adawise.app import model as build_model
from adawise.app import worker as build_worker
from adawise.app.model import ModelPair
from adawise.doctor import machine as module
from adawise.doctor.known import CheckResult, Known
from adawise.errors import FatalError, SettingsError
from adawise.kafka.inquiry import Cluster, Replicas, Topic
from adawise.settings import Settings
from tests.app.test_machine import SECOND, tree

MIB, GIB = 2**20, 2**30
CARD = torch.device("cuda:0")


def facts(**groups: Mapping[str, Any]) -> Known:
    return Known(Settings.model_validate(groups))


def container(folder: Path, *, cpu: str = "max 100000", memory: str = "max") -> Path:
    return tree(folder, "0::/\n", SECOND.format(root="/"), {"cpu.max": cpu, "memory.max": memory})


@pytest.fixture(autouse=True)
def _host_of_64_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    monkeypatch.setattr(os, "cpu_count", lambda: 64)


def test_a_container_s_quota_decides_how_many_threads_decode(tmp_path: Path) -> None:
    small = container(tmp_path, cpu="200000 100000")
    assert module.cores(facts(), small) == CheckResult(
        "ok", "2 cores may be used of 64, by a quota of 2; 2 threads to decode"
    )


@pytest.mark.parametrize(
    ("cpu", "groups", "text_of"),
    [
        ("200000 100000", {"decode": {"threads": 64}}, "decode.threads is 64, and 2 cores may be used of 64"),
        ("200000 100000", {"model": {"threads": 5}}, "model.threads is 5, and 2 cores may be used of 64"),
        ("50000 100000", {}, "by a quota of 0.5: a forward waits for the next period again and again"),
    ],
)
def test_threads_that_the_cores_are_too_few_for_are_a_warning(
    cpu: str, groups: dict[str, Any], text_of: str, tmp_path: Path
) -> None:
    answer = module.cores(facts(**groups), container(tmp_path, cpu=cpu))
    assert answer.status == "warn"
    assert text_of in answer.detail


def test_as_many_threads_as_are_of_use_are_none(tmp_path: Path) -> None:
    small = container(tmp_path, cpu="200000 100000")
    assert module.cores(facts(decode={"threads": 4}, model={"threads": 2}), small).status == "ok"


def with_pair(known: Known, *, copies: int = 4, copy_bytes: int = 100 * MIB, where: str = "cpu") -> Known:
    """A pair whose bank takes so much; what else there is of it nobody asks for."""
    bank = SimpleNamespace(capacity=copies, copy_bytes=copy_bytes)
    classifier = SimpleNamespace(bank=bank, device=SimpleNamespace(where=torch.device(where)))
    known.model = cast(ModelPair, SimpleNamespace(classifier=classifier))
    return known


def test_a_container_that_is_too_small_for_pair_bank_and_messages_fails(tmp_path: Path) -> None:
    small = container(tmp_path, memory=str(GIB))
    with pytest.raises(FatalError) as found:
        module.memory(with_pair(facts()), small, 500 * MIB)
    assert str(found.value) == (
        "expected 1.6 GiB of memory: 500.0 MiB for the program and the pair, 400.0 MiB for 4 merged copies "
        "(model.bank_mib), 512.0 MiB for messages (limits.inflight_mib), 50.0 MiB for fetched messages; but the "
        "container's limit has 1.0 GiB, so the worker would be killed. Lower model.bank_mib or "
        "limits.inflight_mib, or give it more memory."
    )


def test_pictures_of_the_largest_size_in_all_threads_are_a_warning(tmp_path: Path) -> None:
    answer = module.memory(with_pair(facts()), container(tmp_path, memory=str(3 * GIB)), 500 * MIB)
    assert answer.status == "warn"
    assert "but not when 64 threads decode pictures of decode.max_pixels (34000000) at once" in answer.detail
    assert "which takes 7.7 GiB" in answer.detail


def test_what_is_enough_is_told_with_its_parts(tmp_path: Path) -> None:
    large = container(tmp_path, memory=str(16 * GIB))
    known = with_pair(facts(record={"enabled": True}))
    answer = module.memory(known, large, 500 * MIB)
    assert answer.status == "ok"
    assert answer.detail.startswith("1.8 GiB of 16.0 GiB: ")
    assert "256.0 MiB for the recording (record.inflight_mib)" in answer.detail
    assert module.memory(known, large).status == "ok"  # as much as this process holds


def test_a_bank_that_the_card_has_no_room_for_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda where: (2 * GIB, 24 * GIB))
    large = container(tmp_path, memory=str(64 * GIB))
    known = with_pair(facts(), copies=21, copy_bytes=100 * MIB, where="cuda:0")
    answer = module.memory(known, large, GIB)
    assert answer.status == "warn"
    assert "take 2.1 GiB, and 2.0 GiB of 24.0 GiB on cuda:0 are free: the bank shrinks" in answer.detail
    assert module.memory(with_pair(known, copies=4, where="cuda:0"), large, GIB).status == "ok"


def test_without_a_pair_or_a_machine_that_tells_nothing_is_said_of_memory(tmp_path: Path) -> None:
    assert module.memory(facts(), container(tmp_path)).status == "skip"
    assert module.memory(with_pair(facts()), tmp_path / "nothing", GIB).status == "skip"


def with_topic(known: Known, partitions: int) -> Known:
    found = Topic(tuple(Replicas(number, 3, 3, is_led=True) for number in range(partitions)), None)
    known.__dict__ |= {"cluster": Cluster("id", 3, "3.9"), "topic": found}
    return known


@pytest.mark.parametrize(
    ("soft", "status"), [(20_000, "ok"), (resource.RLIM_INFINITY, "ok"), (300, "warn"), (150, "fail")]
)
def test_open_files_are_counted_against_the_limit(soft: int, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, 1024))
    known = with_topic(facts(decode={"threads": 4}), 12)
    if status == "fail":
        with pytest.raises(
            FatalError, match=r"expected 156 open files or more \(3 brokers, 12 partitions, 4 threads\)"
        ):
            module.open_files(known)
        return
    answer = module.open_files(known)
    assert answer.status == status
    assert ("the hard limit is 1024" in answer.detail) == (status == "warn")


def test_a_card_that_is_not_there_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(SettingsError, match="torch sees 0 CUDA devices"):
        module.device(facts(model={"device": "cuda"}))
    with pytest.raises(SettingsError, match=r"model\.precision is fp16, which needs a GPU"):
        module.device(facts(model={"device": "cpu", "precision": "fp16"}))
    answer = module.device(facts(model={"precision": "fp32"}))
    assert answer == CheckResult("ok", "cpu in float32; there is no GPU")


def test_a_card_that_is_there_and_not_used_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    answer = module.device(facts(model={"precision": "fp32"}))
    assert answer.status == "warn"
    assert "although there is a GPU" in answer.detail


def test_a_card_is_told_with_its_memory_and_number_format(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = SimpleNamespace(where=CARD, auto_format=torch.bfloat16)
    monkeypatch.setattr(build_model, "open_device", lambda settings: opened)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda where: (20 * GIB, 24 * GIB))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda where: "NVIDIA L4")
    answer = module.device(facts())
    assert answer.status == "ok"
    assert answer.detail.startswith(
        "NVIDIA L4 as cuda:0 in bfloat16 by the rule for new roots: 20.0 GiB of 24.0 GiB free, CUDA "
    )


def test_a_port_that_others_have_fails_if_it_was_asked_for_and_is_passed_over_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SettingsError, match=f"127.0.0.1 port {port} is taken, perhaps by another worker"):
            module.http_port(facts(http={"port": port}))
        monkeypatch.setattr("adawise.settings.http.PORT", port)
        verdict = module.http_port(facts())
        assert verdict.status == "ok"
        assert verdict.detail.endswith(f"is free; {port} is taken, so it is the next free one")
    assert module.http_port(facts(http={"port": port})) == CheckResult("ok", f"http://127.0.0.1:{port}/ is free")
    assert module.http_port(facts(http={"port": 0})) == CheckResult("ok", "any port is free")
    with pytest.raises(SettingsError, match="expected an address of this machine"):
        module.http_port(facts(http={"listen": "192.0.2.1", "port": 0}))


def test_a_port_that_others_can_reach_without_a_token_is_a_warning() -> None:
    verdict = module.http_port(facts(http={"listen": "0.0.0.0", "port": 0}))
    assert verdict.status == "warn"
    assert "http.token is not set: so there is no page" in verdict.detail
    assert module.http_port(facts(http={"listen": "0.0.0.0", "port": 0, "token": "x" * 32})).status == "ok"


def test_decoding_and_torch_keep_to_the_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = container(tmp_path, cpu="150000 100000")
    monkeypatch.setattr(build_worker, "usable_cores", lambda: machine.usable_cores(small))
    assert build_worker.decode_threads(Settings()) == 2
    assert build_worker.decode_threads(Settings.model_validate({"decode": {"threads": 7}})) == 7
    given: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    monkeypatch.setattr(build_model, "usable_cores", lambda: machine.usable_cores(small))
    build_model.use_cores(None)
    build_model.use_cores(5)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    build_model.use_cores(None)  # never more than torch would take: the last bits may depend on it
    assert given == [2, 5, 1]


def test_heads_that_can_be_kept_are_told_with_their_folder_and_nothing_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "heads"
    answer = module.text_heads(facts(model={"cache": folder, "cache_mib": 64}))
    assert answer.status == "ok"
    assert answer.detail.startswith(f"cached in {folder}, at most 64.0 MiB; ")
    assert not list(tmp_path.iterdir())
    assert module.text_heads(facts(model={"cache_mib": 0})).detail == "none are cached (model.cache_mib is 0)"


def test_heads_that_cannot_be_kept_are_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def text_of(cache: Path | None) -> str:
        answer = module.text_heads(facts(model={"cache": cache}))
        assert answer.status == "warn"
        assert answer.detail.startswith("text heads cannot be cached, so each start encodes them again: ")
        return answer.detail

    (tmp_path / "file").write_bytes(b"")
    assert "file: Not a directory. Set model.cache to a folder" in text_of(tmp_path / "file" / "heads")
    with monkeypatch.context() as patch:
        full = SimpleNamespace(free=MIB, total=GIB, used=GIB - MIB)
        patch.setattr(shutil, "disk_usage", lambda _: full)
        assert "heads has 1.0 MiB of free space. Free space" in text_of(tmp_path / "heads")

    def no_home() -> Path:
        raise RuntimeError

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    assert "this user has no home" in text_of(None)
