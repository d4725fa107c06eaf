"""The SQL by which DuckDB reads everything under a root, each row once, without this program.

It follows the rule of `read.data_keys`. It lists the files once: later queries see the same rows until it is run again.
"""

from __future__ import annotations

from pathlib import Path

from adawise.sink import layout, schemas
from adawise.store.store import Store

_HEAD = """\
-- DuckDB: the views `predictions` and `traces` of all output up to now, each row once.
-- Run it again to see later output. If this folder has another name on your machine, set it before:
--   set variable root = 'FOLDER or s3://BUCKET/PREFIX';

set variable root = coalesce(getvariable('root'), {root});
"""

# The same escapes as in `adawise.store.store.as_pattern`: the chosen files are listed, and then read, by patterns.
_PATTERN = r"""
create or replace temp macro as_pattern(path) as regexp_replace(path, '([\[*?])', '[\1]', 'g');
"""

# Names without ending sort in the order of the chain.
_DATASET = r"""
set variable {dataset}_files = (
    with segments as (
        select file,
            regexp_extract(file, 'topic-[^/]+/partition-\d+') as chain,
            regexp_extract(file, '(\d{{20}}(_\d{{6}})?)\.parquet$', 1) as name
        from glob(as_pattern(getvariable('root')) || '/{dataset}/topic-*/partition-*/*.parquet')
    ),
    compacted as (
        select file,
            regexp_extract(file, 'topic-[^/]+/partition-\d+') as chain,
            regexp_extract(file, '_(\d{{20}}(_\d{{6}})?)-[\d_]+\.parquet$', 1) as first,
            regexp_extract(file, '-(\d{{20}}(_\d{{6}})?)\.parquet$', 1) as until
        from glob(as_pattern(getvariable('root')) || '/{compacted}/{dataset}/topic-*/partition-*/*.parquet')
    ),
    beginnings as (
        select regexp_extract(file, 'topic-[^/]+/partition-\d+') as chain,
            max(regexp_extract(file, '(\d{{20}}(_\d{{6}})?)\.json$', 1)) as name
        from glob(as_pattern(getvariable('root')) || '/{retained}/topic-*/partition-*/*.json')
        group by chain
    )
    select list(as_pattern(file)) from (
        select file, chain, first as name from compacted
        union all
        select file, chain, name from segments where not exists (
            select 1 from compacted
            where compacted.chain = segments.chain and first <= segments.name and segments.name < until
        )
    ) as files
    where not exists (select 1 from beginnings where beginnings.chain = files.chain and files.name < beginnings.name)
);
create or replace temp view {dataset} as
select {columns} from read_parquet(
    getvariable('{dataset}_files'), union_by_name = true, hive_partitioning = false
);
"""

_REGRET = schemas.AUDIT_REGRET  # earlier versions wrote nan for null
_TRACES = f"* replace (case when not isnan({_REGRET}) then {_REGRET} end as {_REGRET})"


def write(store: Store, root: str) -> None:
    """Write the statements into the root, which this program knows as `root`, unless they are there already."""
    is_local = "://" not in root or root.startswith("file://")
    data = sql(str(Path(root.removeprefix("file://")).resolve()) if is_local else root).encode()
    if store.get(layout.VIEWS) != data:
        store.put(layout.VIEWS, data)


def sql(root: str) -> str:
    """Return the statements for a root of this path or URL."""
    text = "'" + root.rstrip("/").replace("'", "''") + "'"
    parts = [
        _DATASET.format(dataset=name, columns=columns, compacted=layout.COMPACTED, retained=layout.RETAINED)
        for name, columns in ((layout.PREDICTIONS, "*"), (layout.TRACES, _TRACES))
    ]
    return _HEAD.format(root=text) + _PATTERN + "".join(parts)
