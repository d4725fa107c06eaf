"""The questions that a report asks of the traces and the predictions, as SQL.

They go by the tables `traces` and `predictions`, each with the computed column `time` (`read_traces`), so that a reader
can ask them again: the page shows each beside what it made. `$bin` is the width of a bin in microseconds.
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

PREDICTIONS = """
SELECT stream_id,
       epoch_us(time) // $bin AS bin,
       avg(confidence) AS confidence,
       avg((zero_shot_label = fine_tuned_label)::INTEGER) AS endpoints_agree,
       avg((label = zero_shot_label)::INTEGER) AS served_zero_shot,
       avg((label = fine_tuned_label)::INTEGER) AS served_fine_tuned,
       count(*) FILTER (status = 'rejected') AS rejected
FROM predictions
WHERE stream_id IS NOT NULL
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
       count(*) AS rows,
       count(*) FILTER (status = 'rejected') AS rejected,
       avg(confidence) AS confidence,
       avg((zero_shot_label = fine_tuned_label)::INTEGER) AS endpoints_agree
FROM predictions WHERE stream_id IS NOT NULL GROUP BY stream_id ORDER BY stream_id
"""

CLASSES = """
WITH edges AS (
    SELECT stream_id,
           epoch_us(min(time)) + (epoch_us(max(time)) - epoch_us(min(time))) // 4 AS early,
           epoch_us(max(time)) - (epoch_us(max(time)) - epoch_us(min(time))) // 4 AS late
    FROM predictions WHERE label IS NOT NULL GROUP BY stream_id
)
SELECT stream_id,
       label,
       count(*) AS rows,
       count(*) FILTER (epoch_us(time) <= early) AS early_rows,
       count(*) FILTER (epoch_us(time) >= late) AS late_rows
FROM predictions JOIN edges USING (stream_id) WHERE label IS NOT NULL
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
SELECT time < make_timestamp($at) AT TIME ZONE 'UTC' AS before, label, count(*) AS rows
FROM predictions
WHERE stream_id = $stream AND label IS NOT NULL
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


def written_out(bin_us: int, fine_us: int) -> dict[str, str]:
    """The questions by what they are for, with the widths of the bins filled in, to be asked again.

    They need `traces` and `predictions` as tables or views with the column `time`.
    """
    questions = {
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
