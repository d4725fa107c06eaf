"""Tables come back as they were written, and a file that is none is refused with what is wrong with it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adawise.errors import SettingsError
from adawise_lab.evaluate.tables import LogitTable, read_table, read_tables, write_table
from tests.lab.evaluate.building import a_table, write_tables

Arrays = dict[str, Any]


def arrays_of(table: LogitTable) -> Arrays:
    return {
        "logits": table.logits,
        "labels": table.labels,
        "alphas": np.asarray(table.alphas),
        "class_names": np.asarray(table.class_names),
    }


def equal(a: LogitTable, b: LogitTable) -> bool:
    same = (a.name, a.alphas, a.class_names, a.logit_scale) == (b.name, b.alphas, b.class_names, b.logit_scale)
    pixels = [None if t.pixels is None else (t.pixels.dtype, t.pixels.tobytes()) for t in (a, b)]
    return (
        same
        and a.logits.dtype == b.logits.dtype
        and a.logits.tobytes() == b.logits.tobytes()
        and pixels[0] == pixels[1]
    )


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("more", [False, True])
def test_a_table_comes_back_bit_by_bit(tmp_path: Path, dtype: str, more: bool) -> None:
    table = a_table("base_fog2", images=7)
    scale = tuple(20.0 + a for a in table.alphas) if more else None
    pixels = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32) if more else None
    table = replace(table, logits=table.logits.astype(dtype), logit_scale=scale, pixels=pixels)
    write_table(tmp_path / "base_fog2.npz", table)
    back = read_table(tmp_path / "base_fog2.npz")
    assert equal(back, table)
    assert (back.labels == table.labels).all()
    assert (len(back), back.group) == (7, "base")
    assert [path.name for path in tmp_path.iterdir()] == ["base_fog2.npz"]


def test_alphas_stored_in_single_precision_are_the_grids_own(tmp_path: Path) -> None:
    arrays = arrays_of(a_table("a")) | {"alphas": np.linspace(0, 1, 21, dtype=np.float32)}
    np.savez(tmp_path / "a.npz", **arrays)
    assert read_table(tmp_path / "a.npz").alphas == tuple(j / 20 for j in range(21))


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="no space"):
        write_table(tmp_path / "a.npz", a_table("a"))
    assert list(tmp_path.iterdir()) == []


def _set(name: str, value: Any) -> Callable[[Arrays], Arrays]:
    return lambda arrays: arrays | {name: value}


def _poisoned(arrays: Arrays) -> Arrays:
    logits = arrays["logits"].copy()
    logits[3, 5, 1] = np.nan
    return arrays | {"logits": logits}


WRONG: dict[str, tuple[Callable[[Arrays], Arrays], str]] = {
    "nothing": (lambda _: {}, "logits is missing"),
    "no labels": (lambda a: {k: v for k, v in a.items() if k != "labels"}, "labels is missing"),
    "objects": (_set("class_names", np.array([{"a": 1}] * 10, dtype=object)), "class_names: expected 1 dimensions of"),
    "a matrix": (lambda a: a | {"logits": a["logits"][0]}, "logits: expected 3 dimensions of kind 'f', got 2"),
    "integers": (lambda a: a | {"logits": a["logits"].astype(int)}, "of kind 'f', got 3 of int64"),
    "not finite": (_poisoned, "image 5 at alpha 0.15 has none"),
    "a label too many": (lambda a: a | {"labels": np.r_[a["labels"], 0]}, "labels: expected 96 for logits"),
    "a label too high": (lambda a: a | {"labels": a["labels"] + 9}, "class indices below 10"),
    "a negative label": (lambda a: a | {"labels": a["labels"] - 9}, "class indices below 10"),
    "unsigned labels": (_set("labels", np.full(96, 2**64 - 1, dtype=np.uint64)), "class indices below 10"),
    "falling alphas": (lambda a: a | {"alphas": a["alphas"][::-1]}, "ascend from 0 to 1"),
    "nan alphas": (lambda a: a | {"alphas": a["alphas"] * np.nan}, "ascend from 0 to 1"),
    "no endpoint": (lambda a: a | {"alphas": a["alphas"] / 2}, "ascend from 0 to 1"),
    "no image": (lambda a: a | {"logits": a["logits"][:, :0], "labels": a["labels"][:0]}, "at least 2 alphas, 1 image"),
    "one class twice": (_set("class_names", np.array(["cat"] * 10)), "class_names: expected each once"),
    "pixels of others": (_set("pixels", np.ones((95, 4))), "pixels: expected finite numbers (96, 5), got (95, 4)"),
    "dark pixels": (_set("pixels", np.full((96, 5), -np.inf)), "pixels: expected finite numbers (96, 5)"),
    "scales of others": (_set("logit_scale", np.ones(3)), "logit_scale: expected 21 finite numbers"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_table_with_something_wrong_is_refused_and_told_what(tmp_path: Path, wrong: str) -> None:
    change, message = WRONG[wrong]
    np.savez(tmp_path / "bad.npz", **change(arrays_of(a_table("bad"))))
    with pytest.raises(SettingsError) as refused:
        read_table(tmp_path / "bad.npz")
    text = str(refused.value)
    assert message in text
    assert text.startswith(f"{tmp_path / 'bad.npz'}: not a table of logits: ")
    assert text.endswith("Make it again, or leave it out (--domains).")


def test_a_header_that_promises_terabytes_is_not_believed(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (21, 10**9, 100)})
    np.savez(tmp_path / "small.npz", **arrays_of(a_table("small")))
    with zipfile.ZipFile(tmp_path / "small.npz") as there, zipfile.ZipFile(tmp_path / "bomb.npz", "w") as bomb:
        for name in there.namelist():
            bomb.writestr(name, header.getvalue() if name == "logits.npy" else there.read(name))
    with pytest.raises(SettingsError, match="its header says 8400000000000 bytes, the archive has"):
        read_table(tmp_path / "bomb.npz")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), st.integers(1, 40), st.booleans())
def test_a_damaged_file_is_a_table_or_an_error_of_ours(tmp_path: Path, at: int, count: int, cut: bool) -> None:
    path = tmp_path / "whole.npz"
    if not path.exists():
        write_table(path, a_table("whole", images=12, alphas=(0.0, 0.5, 1.0)))
    data = bytearray(path.read_bytes())
    at %= len(data)
    data[at : at + count] = b"" if cut else bytes(b ^ 0x5A for b in data[at : at + count])
    (tmp_path / "damaged.npz").write_bytes(data)
    try:
        images, found = len(read_table(tmp_path / "damaged.npz")), ""
    except SettingsError as error:
        images, found = 12, str(error)
    assert images == 12
    assert not found or found.startswith(str(tmp_path / "damaged.npz"))


def test_a_file_that_is_not_there_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"gone\.npz: the table cannot be read \(No such file"):
        read_table(tmp_path / "gone.npz")


def test_tables_for_choices_are_left_out_unless_they_are_named(tmp_path: Path) -> None:
    write_tables(tmp_path, a_table("new_clean"), a_table("base_fog2"), a_table("val_clean"))
    (tmp_path / ".base_fog2.npz.17").touch()  # what a writer that was killed leaves
    (tmp_path / ".hidden.npz").touch()
    assert [table.name for table in read_tables(tmp_path)] == ["base_fog2", "new_clean"]
    assert [table.name for table in read_tables(tmp_path, ["val_clean", "new_clean"])] == ["new_clean", "val_clean"]


def test_a_domain_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    write_tables(tmp_path, a_table("val_clean"))
    with pytest.raises(SettingsError, match="no table of 'val_fog'; there are val_clean"):
        read_tables(tmp_path, ["val_fog"])
    with pytest.raises(SettingsError, match="does not begin with val; there are val_clean"):
        read_tables(tmp_path)
    with pytest.raises(SettingsError, match="there is no such folder"):
        read_tables(tmp_path / "gone")


def test_tables_of_different_grids_are_not_compared(tmp_path: Path) -> None:
    write_tables(tmp_path, a_table("a"), a_table("b", alphas=(0.0, 0.5, 1.0)))
    with pytest.raises(SettingsError, match=r"b has the alphas \[0\.0, 0\.5, 1\.0\] and a \[0\.0, 0\.05"):
        read_tables(tmp_path)
