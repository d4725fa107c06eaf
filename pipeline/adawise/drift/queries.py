"""The questions that a report asks of the traces and the predictions, as SQL.

They go by the tables `traces` and `predictions`, each with the computed column `time` (`read_traces`), so that a reader
can ask them again: the page shows each beside what it made. `$bin` is the width of a bin in microseconds. `UNMEASURED`
and `measures` come first: what came of a batch is in its trace, or, of an earlier version, in its rows.
"""

from __future__ import annotations

SPAN = """
SELECT epoch_us(min(time)) AS first_us, epoch_us(max(time)) AS last_us, count(*) AS batches,
       count(DISTINCT stream_id) AS cameras
FROM traces
"""

TRACES = """
SELECT stream_id,
       epoch_us(time) // $bin AS bin,
       count(*) AS batches,
       sum(images)::BIGINT AS images,
       sum(alpha * images) / sum(images) AS alpha,
       min(alpha) AS alpha_low,
       max(alpha) AS alpha_high,
       min(least(alpha, list_min(list_transform(trials, lambda t: t.alpha)))) AS tried_low,
       max(greatest(alpha, list_max(list_transform(trials, lambda t: t.alpha)))) AS tried_high,
       avg(objective) FILTER (NOT isnan(objective)) AS objective,
       avg(posterior_sd) AS posterior_sd,
       avg(reference) AS reference,
       sum(forward_equivalents * images) / sum(images) AS forward_equivalents
FROM traces LEFT JOIN levels USING (alpha)
GROUP BY GROUPING SETS ((stream_id, bin), (bin)) ORDER BY stream_id NULLS FIRST, bin
"""

UNMEASURED = """
CREATE OR REPLACE TEMP TABLE unmeasured AS
SELECT stream_id,
       CASE WHEN bool_and(mean_confidence IS NULL) THEN 'infinity'::TIMESTAMPTZ
            ELSE max(time) FILTER (mean_confidence IS NULL) END AS until
FROM traces GROUP BY stream_id HAVING bool_or(mean_confidence IS NULL);
"""

LAST_UNMEASURED = "SELECT max(until)::VARCHAR FROM unmeasured"

_MEASURES = """
CREATE OR REPLACE TEMP VIEW measured AS
SELECT traces.* FROM traces LEFT JOIN unmeasured USING (stream_id) WHERE until IS NULL OR time > until;

CREATE OR REPLACE TEMP VIEW unmeasured_rows AS
SELECT predictions.* FROM predictions JOIN unmeasured USING (stream_id) WHERE $condition;

CREATE OR REPLACE TEMP VIEW measures AS
SELECT stream_id, time, images, mean_confidence::DOUBLE * images AS confidence, compared, agreed,
       coalesce(rejected, 0) AS rejected
FROM measured
UNION ALL
SELECT stream_id, time, (label IS NOT NULL)::INTEGER, confidence::DOUBLE,
       ((zero_shot_label = fine_tuned_label) IS NOT NULL)::INTEGER, (zero_shot_label = fine_tuned_label)::INTEGER,
       (status = 'rejected')::INTEGER
FROM unmeasured_rows;

CREATE OR REPLACE TEMP VIEW class_rows AS
SELECT stream_id, time, entry.key AS label, entry.value AS rows
FROM (SELECT stream_id, time, unnest(map_entries(class_counts)) AS entry FROM measured)
UNION ALL
SELECT stream_id, time, label, 1 FROM unmeasured_rows WHERE label IS NOT NULL;
"""

PREDICTIONS = """
SELECT stream_id,
       epoch_us(time) // $bin AS bin,
       sum(confidence) / nullif(sum(images), 0) AS confidence,
       sum(agreed) / nullif(sum(compared), 0) AS endpoints_agree,
       avg(served_zero_shot) AS served_zero_shot,
       avg(served_fine_tuned) AS served_fine_tuned,
       coalesce(sum(rejected), 0)::BIGINT AS rejected
FROM (
    FROM measures UNION ALL BY NAME
    SELECT stream_id, time, (label = zero_shot_label)::INTEGER AS served_zero_shot,
           (label = fine_tuned_label)::INTEGER AS served_fine_tuned
    FROM predictions WHERE stream_id IS NOT NULL
)
GROUP BY GROUPING SETS ((stream_id, bin), (bin)) ORDER BY stream_id NULLS FIRST, bin
"""

PATHS = """
SELECT stream_id,
       epoch_us(time) // $fine AS fine,
       epoch_us(min(time)) AS first_us,
       epoch_us(max(time)) AS last_us,
       count(*) AS batches,
       avg(alpha) AS alpha,
       avg(objective) FILTER (NOT isnan(objective)) AS objective
FROM traces
GROUP BY ALL ORDER BY stream_id, fine
"""

CAMERAS = """
SELECT stream_id,
       count(*) AS batches,
       sum(images)::BIGINT AS images,
       epoch_us(min(time)) AS first_us,
       epoch_us(max(time)) AS last_us,
       sum(alpha * images) / sum(images) AS alpha,
       min(alpha) AS alpha_low,
       max(alpha) AS alpha_high,
       arg_max(alpha, time) AS alpha_last,
       sum(forward_equivalents * images) / sum(images) AS forward_equivalents
FROM traces GROUP BY stream_id ORDER BY stream_id
"""

ROWS = """
SELECT stream_id,
       sum(images + rejected)::BIGINT AS rows,
       sum(rejected)::BIGINT AS rejected,
       sum(confidence) / nullif(sum(images), 0) AS confidence,
       sum(agreed) / nullif(sum(compared), 0) AS endpoints_agree
FROM measures GROUP BY stream_id ORDER BY stream_id
"""

CLASSES = """
WITH edges AS (
    SELECT stream_id,
           epoch_us(min(time)) + (epoch_us(max(time)) - epoch_us(min(time))) // 4 AS early,
           epoch_us(max(time)) - (epoch_us(max(time)) - epoch_us(min(time))) // 4 AS late
    FROM class_rows GROUP BY stream_id
)
SELECT stream_id,
       label,
       sum(class_rows.rows)::BIGINT AS rows,
       coalesce(sum(class_rows.rows) FILTER (epoch_us(time) <= early), 0)::BIGINT AS early_rows,
       coalesce(sum(class_rows.rows) FILTER (epoch_us(time) >= late), 0)::BIGINT AS late_rows
FROM class_rows JOIN edges USING (stream_id)
GROUP BY ALL ORDER BY stream_id, rows DESC, label
"""

REASONS = """
SELECT stream_id, reason, count(*) AS rows FROM predictions
WHERE status = 'rejected' AND stream_id IS NOT NULL GROUP BY ALL ORDER BY stream_id, rows DESC, reason
"""

RESETS = """
SELECT stream_id, reset, count(*) AS batches FROM traces
WHERE reset IS NOT NULL GROUP BY ALL ORDER BY stream_id, batches DESC, reset
"""

MODELS = """
SELECT stream_id, model_fingerprint, epoch_us(min(time)) AS first_us, epoch_us(max(time)) AS last_us,
       count(*) AS batches
FROM traces
GROUP BY GROUPING SETS ((stream_id, model_fingerprint), (model_fingerprint))
ORDER BY stream_id NULLS FIRST, first_us
"""

STARTS = """
SELECT stream_id, reset, epoch_us(time) AS time_us FROM traces
WHERE reset IN ('settings_changed', 'silent') ORDER BY stream_id, time
"""

AROUND = """
SELECT time < make_timestamp($at) AT TIME ZONE 'UTC' AS before, label, sum(class_rows.rows)::BIGINT AS rows
FROM class_rows
WHERE stream_id = $stream
  AND time >= make_timestamp($since) AT TIME ZONE 'UTC' AND time < make_timestamp($until) AT TIME ZONE 'UTC'
GROUP BY ALL
"""

NEAREST = """
(SELECT 'before' AS side, epoch_us(time) AS time_us, topic, partition, "offset", "index", label, confidence, alpha
 FROM predictions
 WHERE stream_id = $stream AND label IS NOT NULL
   AND time < make_timestamp($from) AT TIME ZONE 'UTC' AND time >= make_timestamp($since) AT TIME ZONE 'UTC'
 ORDER BY time DESC LIMIT $count)
UNION ALL
(SELECT 'after', epoch_us(time), topic, partition, "offset", "index", label, confidence, alpha
 FROM predictions
 WHERE stream_id = $stream AND label IS NOT NULL
   AND time >= make_timestamp($to) AT TIME ZONE 'UTC' AND time < make_timestamp($until) AT TIME ZONE 'UTC'
 ORDER BY time LIMIT $count)
"""


def measures(last: str | None = "infinity") -> str:
    """The views that other questions go by, beside `UNMEASURED`.

    `last`: time of the last batch whose trace does not say what came of it, so that no file is read that is newer; None
    where each does, so that no row is read.
    """
    if last is None:
        return _MEASURES.replace("$condition", "false")
    until = f"<= '{last}'::TIMESTAMPTZ"
    # As `read_predictions` has it: conditions on one column alone meet a row group's statistics.
    beside = f"(captured_at IS NULL OR captured_at {until}) AND (captured_at IS NOT NULL OR kafka_timestamp {until})"
    return _MEASURES.replace("$condition", "time <= until" if last == "infinity" else f"time <= until AND {beside}")


def written_out(bin_us: int, fine_us: int) -> dict[str, str]:
    """The questions by what they are for, with the widths of the bins filled in, to be asked again.

    They need `traces` and `predictions` as tables or views with the column `time`.
    """
    questions = {
        "measures": UNMEASURED + measures(),
        "series": TRACES,
        "rows": PREDICTIONS,
        "changes": PATHS,
        "cameras": CAMERAS,
        "classes": CLASSES,
        "rejects": REASONS,
        "resets": RESETS,
        "models": MODELS,
    }
    return {
        name: sql.strip().replace("$bin", str(bin_us)).replace("$fine", str(fine_us)) for name, sql in questions.items()
    }
