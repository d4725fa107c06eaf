"""Retention of one chain: what goes, what stays, and that whoever looks at the root afterwards finds it whole."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import cache, partial
from pathlib import Path

import duckdb
import pytest

from adawise.errors import ChainError
from adawise.output.compaction import sql_views
from adawise.output.compaction.compact import FileLimits, compact
from adawise.output.compaction.delete import deletable, delete
from adawise.output.compaction.retain import FAILPOINTS, removal, remove, sweep
from adawise.output.verify.repair import plan
from adawise.output.verify.root import verify
from adawise.sink import claims, holes, layout, segment
from adawise.sink.files import compacted_names, data_keys, segment_names
from adawise.sink.layout import SegmentName
from adawise.store.store import LocalStore, Store, open_store
from tests.output.compaction.building import FIRST_DAY, LIMITS, Days, content
from tests.sink.building import IDENTITY, TP, DictStore, open_chain
from tests.sink.stored import read_predictions
from tests.sink.test_name_reuse import SEGMENTS as ZOMBIES
from tests.sink.test_name_reuse import Frozen, Zombie
from tests.store.clouds import new_bucket, open_s3, s3_server

SEGMENTS, STEP = 9, timedelta(hours=17)  # from 2026-11-21 to 2026-11-27
LATER = datetime(2026, 12, 9, tzinfo=UTC)
BEFORE = date(2026, 11, 24)


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    if request.param == "folder":
        return open_store(str(tmp_path / "yard"))
    if request.param == "s3":
        return open_s3(monkeypatch, s3_server(), f"s3://{new_bucket()}/yard")
    return DictStore()


def prepared(store: Store, kind: str) -> Days:
    """A chain whose segments are small, compacted, compacted and deleted, or compacted in part."""
    days = Days(store, step=STEP)
    days.commit(SEGMENTS)
    before = {"small": FIRST_DAY.date(), "half": date(2026, 11, 23)}.get(kind, LIMITS.before)
    [*compact(store, TP, FileLimits(LIMITS.max_rows, LIMITS.max_bytes, before))]
    if kind == "deleted":
        for covered in deletable(store, TP, made_before=datetime.max.replace(tzinfo=UTC)):
            [*delete(store, covered)]
    return days


@cache
def _objects(kind: str) -> dict[str, bytes]:
    store = DictStore()
    prepared(store, kind)
    return store.objects


def copied(kind: str, store: DictStore | None = None) -> DictStore:
    """As `prepared`, at once."""
    store = store or DictStore()
    store.objects = dict(_objects(kind))
    return store


def retained(store: Store, before: date = BEFORE) -> int:
    """How many keys went."""
    found = removal(store, TP, before=before, now=datetime.now(UTC) + timedelta(days=30))
    return 0 if found is None else len([*remove(store, found)])


def rows(store: Store) -> dict[str, object]:
    table = read_predictions(store)
    return {row["row_id"]: row for row in table.to_pylist()}


def days_of(store: Store) -> dict[str, date]:
    """When each row was committed."""
    found: dict[str, date] = {}
    for name in segment_names(store, TP):
        key = layout.segment_key(TP, name)
        data = store.get(key)
        assert data is not None
        day = datetime.fromisoformat(segment.read_footer(data, key).created_at).date()
        found |= dict.fromkeys(segment.read_rows(data, key, ["row_id"])["row_id"].to_pylist(), day)
    return found


@pytest.mark.parametrize(
    ("store", "kind"),
    [
        ("fake", "small"),
        ("fake", "half"),
        ("fake", "compacted"),
        ("fake", "deleted"),
        ("folder", "half"),
        ("s3", "half"),
    ],
    indirect=["store"],
)
@pytest.mark.cases("worker", every=3)
def test_whole_files_go_that_are_older_and_everything_else_stays_and_is_whole(store: Store, kind: str) -> None:
    peace = DictStore()
    Days(peace, step=STEP).commit(SEGMENTS)
    committed = days_of(peace)
    days = prepared(store, kind)
    before = rows(store)
    found = removal(store, TP, before=BEFORE, now=datetime.now(UTC) + timedelta(days=30))
    assert found is not None
    assert rows(store) == before  # to look changes nothing
    gone = [*remove(store, found)]
    gone = [key for key in gone if "/plans/" not in key]
    assert (len(gone), found.since_day, found.until_day) == (found.files, "2026-11-21", "2026-11-23")
    left = rows(store)
    assert left == {row_id: row for row_id, row in before.items() if committed[row_id] >= BEFORE}
    assert found.rows == len(before) - len(left)
    assert verify(store) == []
    assert plan(store).steps == []
    assert plan(store).beyond == []
    assert retained(store) == 0
    head = open_chain(store).recover(TP, IDENTITY, 0)
    assert not head.holes
    assert head.next_offset == days.head.next_offset
    days.commit(3)  # the worker beside it heard of nothing
    assert verify(store) == []
    [*compact(store, TP, LIMITS)]
    assert verify(store) == []
    assert retained(store, date(2026, 11, 26)) > 0  # what a cut left goes with a later one
    assert verify(store) == []
    begins = claims.read_beginning(store, TP)
    assert begins is not None
    assert begins[1].until_day == "2026-11-25"
    assert begins[1].rows == sum(day < date(2026, 11, 26) for day in committed.values())
    assert store.list(layout.RETAINED) == [layout.retained_key(TP, begins[0])]


@pytest.mark.parametrize("kind", ["small", "compacted"])
def test_the_head_and_what_it_may_have_to_read_stay_however_old_they_are(kind: str) -> None:
    store = DictStore()
    prepared(store, kind)
    before = segment_names(store, TP)
    retained(store, date(2100, 1, 1))
    assert segment_names(store, TP)[-2:] == before[-2:]
    assert verify(store) == []
    assert open_chain(store).recover(TP, IDENTITY, 0).newest


def test_a_root_that_is_young_or_was_only_begun_keeps_everything() -> None:
    store = DictStore()
    open_chain(store).recover(TP, IDENTITY, 0)
    assert removal(store, TP, before=date(2100, 1, 1), now=LATER) is None
    Days(store, step=STEP).commit(2)
    assert removal(store, TP, before=date(2100, 1, 1), now=LATER) is None
    young = DictStore()
    prepared(young, "small")
    assert removal(young, TP, before=FIRST_DAY.date(), now=LATER) is None


def test_nothing_goes_that_the_store_has_had_for_less_than_a_day_whatever_the_workers_clock_said() -> None:
    store = copied("small")
    assert removal(store, TP, before=BEFORE, now=store.now + timedelta(hours=23)) is None
    assert removal(store, TP, before=BEFORE, now=store.now + timedelta(hours=25)) is not None


@pytest.mark.parametrize("kind", ["small", "half", "deleted"])
@pytest.mark.parametrize("point", FAILPOINTS)
@pytest.mark.cases("kills", every=4)
def test_a_pass_that_dies_leaves_a_root_that_is_whole_and_the_next_one_ends_it(point: str, kind: str) -> None:
    peace = copied(kind)
    before = rows(peace)
    retained(peace)
    wanted = rows(peace)
    for at in (0, 1, 5):
        store = copied(kind)
        if point == "retain.forgotten":
            retained(store, date(2026, 11, 22))
        came = 0

        def die(name: str) -> None:
            nonlocal came
            came += name == point
            if name == point and came > at:  # noqa: B023
                raise KeyboardInterrupt

        found = removal(store, TP, before=BEFORE, now=LATER + timedelta(days=900))
        assert found is not None
        try:
            [*remove(store, found, failpoint=die)]
        except KeyboardInterrupt:
            assert verify(store) == []
            assert rows(store) in ((before, wanted) if point == "retain.planned" else (wanted,))
            assert not open_chain(store).recover(TP, IDENTITY, 0).holes
            assert not plan(store).steps
            assert len(data_keys(store)) == len({*data_keys(store)})
            [*compact(store, TP, LIMITS)]
            assert verify(store) == []
            [*sweep(store, TP, now=LATER + timedelta(days=900))]
            retained(store)
            assert rows(store) == wanted
            assert verify(store) == []
            assert len(store.list(layout.RETAINED)) == 1
        else:
            assert at > 0 or (point, kind) == ("retain.planned", "deleted")


def test_a_lost_file_behind_a_retained_beginning_is_still_lost() -> None:
    for at, expected in ((0, "there is a gap"), (3, "there is a gap")):
        store = copied("small")
        retained(store)
        names = segment_names(store, TP)
        lost = layout.segment_key(TP, names[at])
        for key in (lost, layout.traces_key(lost)):
            store.delete(key)
        assert any(expected in str(fault) for fault in verify(store))
        [hole] = open_chain(store).recover(TP, IDENTITY, 0).holes
        assert "1 segment is missing" in hole
        mended = plan(store)
        assert len(mended.steps) == 1
        assert not mended.beyond
        if at == 0:
            assert "--state-of" not in mended.steps[0].again  # of what was removed there is no state
        mended.steps[0].do()
        assert verify(store) == []
        assert not open_chain(store).recover(TP, IDENTITY, 0).holes


def test_a_chain_with_a_hole_is_left_alone() -> None:
    store = copied("small")
    names = segment_names(store, TP)
    store.delete(layout.segment_key(TP, names[0]))
    with pytest.raises(ChainError, match="nothing is removed from a chain with a hole"):
        removal(store, TP, before=BEFORE, now=LATER + timedelta(days=900))


def test_a_worker_that_stood_still_for_days_builds_on_nothing_that_was_removed() -> None:
    zombie = Zombie(*range(1, ZOMBIES, 2))
    assert retained(zombie.store, date(2100, 1, 1)) > 10
    before, keys = content(zombie.store), sorted(zombie.store.objects)
    zombie.pass_hours()
    for chain, head in zombie.all:
        zombie.head = head
        late = chain.commit(zombie.draft)
        assert not late.won
        assert late.head == zombie.days.head
    assert (content(zombie.store), sorted(zombie.store.objects)) == (before, keys)
    assert verify(zombie.store) == []
    zombie.check_adopted(late.head)


def test_what_a_worker_wrote_that_stood_still_just_before_its_request_is_seen_by_nobody_and_removed() -> None:
    store = Frozen()
    zombie = Zombie(3, store=store)

    def meanwhile(key: str) -> None:
        retained(store, date(2100, 1, 1))
        zombie.pass_hours()
        assert key not in store.objects

    store.meanwhile = meanwhile
    late = zombie.chain.commit(zombie.draft)
    assert not late.won
    stray = layout.segment_key(TP, SegmentName(zombie.head.next_offset))
    assert stray in store.objects
    assert stray not in data_keys(store)
    assert verify(store) == []
    assert not plan(store).steps
    assert list(sweep(store, TP, now=store.now)) == []  # it was written a moment ago
    assert list(sweep(store, TP, now=LATER + timedelta(days=900))) == [stray]
    zombie.check_adopted(late.head)


def forged(store: DictStore, at: int, **changes: object) -> bytes:
    """The claim that a chain begins with that segment, as retention writes it, but for these fields."""
    key = layout.segment_key(TP, segment_names(store, TP)[at])
    document: dict[str, object] = {
        "layout": 1,
        "previous": segment.read_footer(store.objects[key], key).previous,
        "pending": [],
        "lineage": "",
        "rows": 1,
        "files": 1,
        "size_bytes": 1,
        "until_day": "2026-11-22",
        "removed_at": "2026-11-29T00:00:00+00:00",
    }
    return json.dumps({**document, **changes}).encode()


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[]", b"{}", b'{"layout": 1', b"[" * 100_000, b"\xff\x00", b'{"layout": 2}'],
    ids=["empty", "null", "list", "nothing said", "truncated", "nested", "binary", "later layout"],
)
def test_nothing_is_removed_on_the_word_of_a_claim_that_cannot_be_read(content: bytes) -> None:
    store = copied("small")
    store.objects[layout.retained_key(TP, segment_names(store, TP)[-2])] = content
    before = dict(store.objects)
    with pytest.raises(ChainError, match=r"_retained/.*damaged; restore it"):
        [*sweep(store, TP, now=LATER + timedelta(days=900))]
    assert store.objects == before


@pytest.mark.parametrize(
    ("named", "changes", "expected"),
    [
        (-2, {"previous": ""}, "damaged"),
        (-2, {"previous": None}, "damaged"),
        (-2, {"previous": "predictions/topic-frames/partition-00007/00000000000000000000.parquet"}, "damaged"),
        (-2, {"previous": "predictions/topic-frames/partition-00000/99999999999999999999.parquet"}, "damaged"),
        (-2, {"pending": "many"}, "damaged"),
        (-2, {"unknown": 1}, "damaged"),
        (-2, {"previous": "predictions/topic-frames/partition-00003/00000000000000000001.parquet"}, "but it names"),
        (-1, {}, "expected 2 segments from"),
        (None, {}, "expected a file that begins with"),
    ],
)
def test_nothing_is_removed_on_the_word_of_a_claim_that_does_not_fit_the_chain(
    named: int | None, changes: dict[str, object], expected: str
) -> None:
    store = copied("small")
    begins = SegmentName(10**9) if named is None else segment_names(store, TP)[named]
    store.objects[layout.retained_key(TP, begins)] = forged(store, -2, **changes)
    before = dict(store.objects)
    with pytest.raises(ChainError, match=expected):
        [*sweep(store, TP, now=LATER + timedelta(days=900))]
    assert store.objects == before


def test_a_claim_that_fits_removes_nothing_that_was_written_today() -> None:
    store = copied("small")
    begins = segment_names(store, TP)[-2]
    store.objects[layout.retained_key(TP, begins)] = forged(store, -2)
    before = dict(store.objects)
    assert list(sweep(store, TP, now=store.now + timedelta(hours=23))) == []
    assert store.objects == before
    assert len(list(sweep(store, TP, now=store.now + timedelta(hours=25)))) > 10
    assert verify(store) == []


def test_files_of_a_name_that_nobody_gave_stay_beside_the_claims() -> None:
    store = copied("small")
    retained(store, date(2026, 11, 22))
    strange = f"{layout.retained_folder(TP)}0-notes.json"
    store.objects[strange] = b"not ours"
    assert retained(store) > 0
    assert strange in store.objects
    assert len(store.list(layout.RETAINED)) == 2


class Interrupted(DictStore):
    """Something else happens at one of its requests."""

    meanwhile_at = -1

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], object] = lambda: None

    def get(self, key: str) -> bytes | None:
        self._count()
        return super().get(key)

    def create(self, key: str, data: bytes) -> None:
        self._count()
        super().create(key, data)

    def _count(self) -> None:
        self.meanwhile_at -= 1
        if self.meanwhile_at == 0:
            self.meanwhile()


@pytest.mark.check("kills")
def test_compaction_and_retention_beside_each_other_lose_no_row() -> None:
    """Either is stopped at each of its requests, and the other does all of its work there."""

    peace = copied("small")
    before = {*rows(peace)}
    retained(peace)
    wanted = {*rows(peace)}
    small = FileLimits(max_rows=60, max_bytes=1 << 30, before=LIMITS.before)
    whole = 0
    moments = [("compact", at) for at in (1, 3, 8, 20, 45, 10_000)] + [("retain", at) for at in (1, 3, 8, 16, 10_000)]
    for which, at in moments:
        store = copied("small", Interrupted())
        assert isinstance(store, Interrupted)
        both: list[Callable[[], object]] = [
            partial(retained, store),
            partial(lambda within: [*compact(within, TP, small)], store),
        ]
        store.meanwhile, store.meanwhile_at = both[which != "compact"], at
        try:
            both[which == "compact"]()
        except ChainError:
            assert which == "retain"  # the next pass begins again
        whole += store.meanwhile_at > 0
        store.meanwhile_at = -1
        assert verify(store) == []
        assert wanted <= {*rows(store)} <= before
        retained(store)
        [*compact(store, TP, small)]
        assert verify(store) == []
        assert wanted <= {*rows(store)} <= before
    assert whole == 2, "of each the one that nothing came between"


def test_what_is_removed_while_it_is_verified_is_no_fault() -> None:
    def tidy(store: Store) -> None:
        [*compact(store, TP, LIMITS)]
        for covered in deletable(store, TP, made_before=datetime.max.replace(tzinfo=UTC)):
            [*delete(store, covered)]

    def cut(store: Store) -> None:
        retained(store)

    met = 0
    for what in (tidy, cut):
        for at in (1, 5, 21):
            store = copied("small", Interrupted())
            assert isinstance(store, Interrupted)
            store.meanwhile, store.meanwhile_at = partial(what, store), at
            assert verify(store) == []
            met += store.meanwhile_at <= 0
    assert met == 6
    lost = copied("small", Interrupted())
    assert isinstance(lost, Interrupted)
    key = layout.segment_key(TP, segment_names(lost, TP)[-3])
    lost.meanwhile, lost.meanwhile_at = partial(lost.delete, key), 8
    assert verify(lost), "what is lost meanwhile is still lost"


def test_duckdb_sees_a_retained_root_as_this_program_does(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    prepared(store, "half")
    found = removal(store, TP, before=BEFORE, now=datetime.now(UTC) + timedelta(days=30))
    assert found is not None
    at = random.Random(3).randrange(found.files)
    for number, _ in enumerate(remove(store, found)):
        if number == at:  # in the middle of it
            break
    assert len(rows(store)) == _by_duckdb(tmp_path, store)
    [*sweep(store, TP, now=LATER + timedelta(days=900))]
    assert len(rows(store)) == _by_duckdb(tmp_path, store)
    assert content(store)


def _by_duckdb(root: Path, store: Store) -> int:
    with duckdb.connect() as connection:
        connection.execute(sql_views.sql(str(root)))
        counted = connection.execute("select count(*) from predictions").fetchone()
    assert counted is not None
    return int(counted[0])


def test_what_a_cut_counts_goes_on_in_the_lineage() -> None:
    store = copied("small")
    names = segment_names(store, TP)
    retained(store)
    left = segment_names(store, TP)
    key = layout.segment_key(TP, left[-1])
    data = store.get(key)
    assert data is not None
    assert holes.after(segment.read_footer(data, key)).count == len(names)
    begins = claims.read_beginning(store, TP)
    assert begins is not None
    counted = begins[1].after_previous()
    assert counted is not None
    assert counted.count == len(names) - len(left)
    assert compacted_names(store, layout.PREDICTIONS, TP) == []
