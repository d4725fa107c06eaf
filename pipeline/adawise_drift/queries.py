"""The questions that a report asks of the traces and the predictions, as SQL.

They go by the tables `traces` and `predictions`, each with the computed column `time` (`read_traces`), so that a reader
can ask them again: the page shows each beside what it made. `$bin` is the width of a bin in microseconds. `SPANS`,
`fine_bins` and `measures` come first: what came of a batch is in its trace, or, of an earlier version, in its rows. A
year of traces is read once by each, so that what goes together is asked at once.
"""

from __future__ import annotations

SPANS = """
CREATE OR REPLACE TEMP TABLE spans AS
SELECT stream_id, model_fingerprint, min(time) AS first, max(time) AS last, count(*) AS batches,
       max(time) FILTER (mean_confidence IS NULL) AS unmeasured, count(mean_confidence) = 0 AS is_old,
       arg_max_null(shortlist, time) AS shortlist
FROM traces GROUP BY ALL;

CREATE OR REPLACE TEMP TABLE unmeasured AS
SELECT stream_id, CASE WHEN bool_and(is_old) THEN 'infinity'::TIMESTAMPTZ ELSE max(unmeasured) END AS until
FROM spans GROUP BY stream_id HAVING count(unmeasured) > 0;

CREATE OR REPLACE TEMP TABLE resets AS SELECT stream_id, reset, time FROM traces WHERE reset IS NOT NULL;
"""

_FINE_BINS = """
CREATE OR REPLACE TEMP TABLE fine_bins AS
SELECT stream_id, epoch_us(time) // $fine AS fine, condition,
       epoch_us(min(time)) AS first_us,
       epoch_us(max(time)) AS last_us,
       count(*) AS batches,
       fsum(alpha) AS alphas,
       fsum(objective) FILTER (NOT isnan(objective)) AS objectives,
       count(*) FILTER (NOT isnan(objective)) AS finite,
       min(batch_number) = 0 AS is_anew,
       bool_and(returned) AS returned,
       count(*) FILTER (alarm) AS alarms
FROM traces GROUP BY ALL;
"""

SPAN = """
SELECT epoch_us(min(first)) AS first_us, epoch_us(max(last)) AS last_us, sum(batches)::BIGINT AS batches,
       count(DISTINCT stream_id) AS cameras
FROM spans
"""

TRACES = """
SELECT stream_id,
       epoch_us(time) // $bin AS bin,
       count(alpha) AS batches,
       coalesce(sum(images), 0)::BIGINT AS images,
       fsum(alpha * images) / sum(images) AS alpha,
       min(alpha) AS alpha_low,
       max(alpha) AS alpha_high,
       min(least(alpha, list_min(list_transform(trials, lambda t: t.alpha)))) AS tried_low,
       max(greatest(alpha, list_max(list_transform(trials, lambda t: t.alpha)))) AS tried_high,
       favg(objective) FILTER (NOT isnan(objective)) AS objective,
       favg(posterior_sd) AS posterior_sd,
       favg(reference) FILTER (shortlist IS NULL) AS reference,
       fsum(forward_equivalents * images) / sum(images) AS forward_equivalents,
       fsum(confidence) / nullif(sum(answered), 0) AS confidence,
       sum(agreed) / nullif(sum(compared), 0) AS endpoints_agree,
       coalesce(sum(rejected), 0)::BIGINT AS rejected
FROM outcomes LEFT JOIN levels USING (alpha)
GROUP BY GROUPING SETS ((stream_id, bin), (bin)) ORDER BY stream_id NULLS FIRST, bin
"""

LISTED = """
SELECT topic, partition, stream_id, batch_number, first_offset, last_offset, shortlist
FROM traces WHERE shortlist IS NOT NULL
UNION ALL
SELECT topic, partition, stream_id, arg_max(batch_number, last_offset) + 1, max(last_offset) + 1, 9223372036854775807,
       arg_max_null(shortlist, last_offset)
FROM traces GROUP BY topic, partition, stream_id HAVING arg_max_null(shortlist, last_offset) IS NOT NULL
"""
"""The batches that were served among a shortlist, as `labels.benefit.estimate` takes them.

The trace of a batch that goes on beyond the time that is read is missing: it counts as served like the one before.
"""

LAST_UNMEASURED = "SELECT max(until)::VARCHAR FROM unmeasured"

_MEASURES = """
CREATE OR REPLACE TEMP VIEW batches AS
SELECT traces.* REPLACE (coalesce(rejected, 0) AS rejected), until IS NULL OR time > until AS is_measured
FROM traces LEFT JOIN unmeasured USING (stream_id);

CREATE OR REPLACE TEMP VIEW unmeasured_rows AS
SELECT predictions.* FROM predictions JOIN unmeasured USING (stream_id) WHERE $condition;

CREATE OR REPLACE TEMP VIEW outcomes AS
SELECT batches.* REPLACE (
           CASE WHEN is_measured THEN compared END AS compared,
           CASE WHEN is_measured THEN agreed END AS agreed,
           CASE WHEN is_measured THEN rejected END AS rejected
       ),
       CASE WHEN is_measured THEN images END AS answered,
       CASE WHEN is_measured THEN mean_confidence::DOUBLE * images END AS confidence
FROM batches
UNION ALL BY NAME
SELECT stream_id, time, (label IS NOT NULL)::INTEGER AS answered, confidence::DOUBLE AS confidence,
       ((zero_shot_label = fine_tuned_label) IS NOT NULL)::INTEGER AS compared,
       (zero_shot_label = fine_tuned_label)::INTEGER AS agreed, (status = 'rejected')::INTEGER AS rejected
FROM unmeasured_rows;

CREATE OR REPLACE TEMP VIEW class_rows AS
SELECT stream_id, time, entry.key AS label, entry.value AS rows
FROM (SELECT stream_id, time, unnest(map_entries(class_counts)) AS entry FROM batches WHERE is_measured)
UNION ALL
SELECT stream_id, time, label, 1 FROM unmeasured_rows WHERE label IS NOT NULL;
"""

_CLASS_BINS = """
CREATE OR REPLACE TEMP TABLE class_bins AS
SELECT stream_id, epoch_us(time) // $mix AS bin, label, epoch_us(min(time)) AS time_us,
       sum(class_rows.rows)::BIGINT AS rows
FROM class_rows GROUP BY stream_id, bin, label;
"""

WIDE = """
SELECT stream_id,
       epoch_us(time) // $wide AS wide,
       epoch_us(min(time)) AS time_us,
       epoch_us(max(time)) AS last_us,
       count(alpha) AS batches,
       coalesce(sum(images), 0)::BIGINT AS images,
       favg(alpha) AS alpha,
       favg(objective) FILTER (NOT isnan(objective)) AS objective,
       fsum(confidence) / nullif(sum(answered), 0) AS confidence,
       coalesce(sum(compared), 0)::BIGINT AS compared,
       coalesce(sum(agreed), 0)::BIGINT AS agreed,
       coalesce(sum(rejected), 0)::BIGINT AS rejected,
       favg(forward_equivalents) AS forward_equivalents,
       favg(luminance_mean) AS luminance,
       favg(contrast_mean) AS contrast,
       favg(gradient_mean) AS gradient,
       favg(laplacian_mean) AS laplacian,
       favg(colourfulness_mean) AS colourfulness,
       coalesce(sum(labelled), 0)::BIGINT AS labelled,
       coalesce(sum(correct), 0)::BIGINT AS correct
FROM (FROM outcomes UNION ALL BY NAME FROM judged_rows)
GROUP BY ALL ORDER BY stream_id, wide
"""

ANALYSED = """
CREATE OR REPLACE TEMP VIEW judged_rows AS
SELECT stream_id, time, 1 AS labelled, (label = truth)::INTEGER AS correct FROM $labelled;
"""

MIXES = """
WITH ranked AS (
    SELECT stream_id, label, row_number() OVER (PARTITION BY stream_id ORDER BY sum(rows) DESC, label) AS place
    FROM class_bins GROUP BY stream_id, label
)
SELECT stream_id, bin, CASE WHEN place <= 8 THEN label END AS label, min(time_us) AS time_us, sum(rows)::BIGINT AS rows
FROM class_bins JOIN ranked USING (stream_id, label) GROUP BY ALL ORDER BY stream_id, bin, label
"""

PATHS = """
SELECT stream_id,
       fine,
       min(first_us) AS first_us,
       max(last_us) AS last_us,
       sum(batches)::BIGINT AS batches,
       fsum(alphas) / sum(batches) AS alpha,
       fsum(objectives) / nullif(sum(finite), 0) AS objective
FROM fine_bins
GROUP BY ALL ORDER BY stream_id, fine
"""

STAYS = """
WITH lives AS (
    SELECT *, sum(is_anew::BIGINT) OVER (PARTITION BY stream_id ORDER BY first_us, last_us) AS state
    FROM fine_bins
    WHERE stream_id IN (SELECT stream_id FROM fine_bins WHERE condition IS NOT NULL)
), known AS (
    SELECT *, lag((state, condition)) OVER of_camera AS before, first_us - lag(last_us) OVER of_camera AS pause_us
    FROM lives WHERE condition IS NOT NULL
    WINDOW of_camera AS (PARTITION BY stream_id ORDER BY first_us, last_us)
), numbered AS (
    SELECT *, before IS NOT NULL AND returned AS is_back, before IS DISTINCT FROM (state, condition) AS began,
           sum((began OR pause_us > 3_600_000_000)::BIGINT) OVER (PARTITION BY stream_id ORDER BY first_us, last_us)
               AS stay
    FROM known
)
SELECT stream_id,
       min(first_us) AS since_us,
       max(last_us) AS until_us,
       any_value(state)::BIGINT AS state,
       any_value(condition)::BIGINT AS condition,
       sum(batches)::BIGINT AS batches,
       fsum(alphas) / sum(batches) AS alpha,
       fsum(objectives) / nullif(sum(finite), 0) AS objective,
       bool_or(began) AS began,
       bool_or(began AND is_back) AS returned,
       sum(alarms)::BIGINT AS alarms
FROM numbered GROUP BY stream_id, stay ORDER BY stream_id, since_us
"""

CAMERAS = """
SELECT stream_id,
       count(alpha) AS batches,
       coalesce(sum(images), 0)::BIGINT AS images,
       epoch_us(min(time) FILTER (alpha IS NOT NULL)) AS first_us,
       epoch_us(max(time) FILTER (alpha IS NOT NULL)) AS last_us,
       fsum(alpha * images) / sum(images) AS alpha,
       min(alpha) AS alpha_low,
       max(alpha) AS alpha_high,
       arg_max(alpha, time) AS alpha_last,
       fsum(forward_equivalents * images) / sum(images) AS forward_equivalents,
       coalesce(sum(answered + rejected), 0)::BIGINT AS rows,
       coalesce(sum(rejected), 0)::BIGINT AS rejected,
       fsum(confidence) / nullif(sum(answered), 0) AS confidence,
       sum(agreed) / nullif(sum(compared), 0) AS endpoints_agree
FROM outcomes WHERE epoch_us(time) >= $judged GROUP BY stream_id HAVING count(alpha) > 0 ORDER BY stream_id
"""

CLASSES = """
WITH edges AS (
    SELECT stream_id, min(bin) + (max(bin) - min(bin)) // 4 AS early, max(bin) - (max(bin) - min(bin)) // 4 AS late
    FROM class_bins GROUP BY stream_id
)
SELECT stream_id,
       label,
       sum(class_bins.rows)::BIGINT AS rows,
       coalesce(sum(class_bins.rows) FILTER (bin <= early), 0)::BIGINT AS early_rows,
       coalesce(sum(class_bins.rows) FILTER (bin >= late), 0)::BIGINT AS late_rows
FROM class_bins JOIN edges USING (stream_id)
GROUP BY ALL ORDER BY stream_id, rows DESC, label
"""

REASONS = """
SELECT stream_id, reason, count(*) AS rows FROM predictions
WHERE status = 'rejected' AND stream_id IS NOT NULL AND epoch_us(time) >= $judged
GROUP BY ALL ORDER BY stream_id, rows DESC, reason
"""

ALL_REJECTED = """
SELECT stream_id, epoch_us(min(time)) AS first_us
FROM predictions JOIN (SELECT stream_id, max(last) AS last FROM spans GROUP BY stream_id) USING (stream_id)
WHERE status = 'rejected' AND time > last GROUP BY stream_id ORDER BY stream_id
"""

RESETS = """
SELECT stream_id, reset, count(*) AS batches FROM resets
WHERE epoch_us(time) >= $judged GROUP BY ALL ORDER BY stream_id, batches DESC, reset
"""

OFF_LIST = """
WITH newest AS (
    SELECT stream_id, arg_max_null(shortlist, last) AS shortlist FROM spans GROUP BY stream_id
), listed AS (
    SELECT stream_id, sum(images)::BIGINT AS listed,
           flatten(list(map_entries(off_list)) FILTER (cardinality(off_list) > 0)) AS entries
    FROM traces JOIN newest USING (stream_id, shortlist)
    WHERE off_list IS NOT NULL AND epoch_us(time) >= $judged GROUP BY stream_id
)
SELECT stream_id, entry.key AS label, any_value(listed) AS listed, sum(entry.value)::BIGINT AS images
FROM (SELECT stream_id, listed, unnest(entries) AS entry FROM listed)
GROUP BY ALL ORDER BY stream_id, images DESC, label
"""

MODELS = """
SELECT stream_id, model_fingerprint, epoch_us(min(first)) AS first_us, epoch_us(max(last)) AS last_us,
       sum(batches)::BIGINT AS batches
FROM spans
GROUP BY GROUPING SETS ((stream_id, model_fingerprint), (model_fingerprint))
ORDER BY stream_id NULLS FIRST, first_us
"""

STARTS = """
SELECT stream_id, reset, epoch_us(time) AS time_us FROM resets
WHERE reset IN ('settings_changed', 'silent', 'shortlist') ORDER BY stream_id, time
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

RECORDED = """
SELECT epoch_us(min(time)) AS first_us, epoch_us(max(time)) AS last_us
FROM traces JOIN recorded USING (topic, partition)
WHERE last_offset >= first AND first_offset < until
"""

_GALLERY = """
WITH recent AS (
    SELECT stream_id, epoch_us(time) AS time_us, topic, partition, "offset", "index", label, zero_shot_label,
           fine_tuned_label, confidence
    FROM predictions JOIN recorded USING (topic, partition)
    WHERE label IS NOT NULL AND stream_id IS NOT NULL AND "offset" >= first AND "offset" < until
      AND time >= make_timestamp($since) AT TIME ZONE 'UTC' AND time <= make_timestamp($last) AT TIME ZONE 'UTC'
)
SELECT kind, unnest(best) FROM (
    (SELECT 'least confident' AS kind, arg_min(recent, row(confidence, time_us, "index")) AS best
     FROM recent GROUP BY stream_id ORDER BY min(confidence), stream_id LIMIT $count)
    UNION ALL
    (SELECT 'endpoints disagree', arg_max(recent, row(confidence, time_us, "index"))
     FROM recent WHERE zero_shot_label <> fine_tuned_label
     GROUP BY stream_id ORDER BY max(confidence) DESC, stream_id LIMIT $count)
    UNION ALL
    (SELECT 'class', arg_max(recent, row(confidence, time_us, "index"))
     FROM recent GROUP BY label ORDER BY count(*) DESC, label LIMIT $count)
)
"""


def fine_bins(fine_us: int) -> str:
    """Return the SQL of the table of narrow bins by condition, which `PATHS` and `STAYS` read."""
    return _FINE_BINS.replace("$fine", str(fine_us))


def measures(mix_us: int, last: str | None = "infinity") -> str:
    """Return the SQL of the views and tables that other questions read, beside `SPANS`.

    `last`: time of the last batch whose trace does not say what came of it, so that no file is read that is newer; None
    where each does, so that no row is read.
    """
    made = _MEASURES + _CLASS_BINS.replace("$mix", str(mix_us))
    if last is None:
        return made.replace("$condition", "false")
    until = f"<= '{last}'::TIMESTAMPTZ"
    # As `read_predictions` has it: conditions on one column alone meet a row group's statistics.
    beside = f"(captured_at IS NULL OR captured_at {until}) AND (captured_at IS NOT NULL OR kafka_timestamp {until})"
    return made.replace("$condition", "time <= until" if last == "infinity" else f"time <= until AND {beside}")


def gallery(since_us: int, last_us: int, count: int) -> str:
    """Return the SQL of rows to look at, `count` of a kind, within these times.

    The table `recorded` (topic, partition, first, until) has the offsets of a recording.
    """
    values = {"$since": since_us, "$last": last_us, "$count": count}
    sql = _GALLERY.strip()
    for place, value in values.items():
        sql = sql.replace(place, str(value))
    return sql


_NO_LABELS = "(SELECT NULL AS stream_id, NULL::TIMESTAMPTZ AS time, NULL AS label, NULL AS truth WHERE false)"


def analysed_rows(is_labelled: bool) -> str:
    """Return the SQL of the view of labelled rows and whether they were right, over `labelled` (`labels.join`)."""
    return ANALYSED.replace("$labelled", "labelled" if is_labelled else _NO_LABELS)


def written_out(
    bin_us: int, fine_us: int, wide_us: int, mix_us: int, judged_us: int, *, is_labelled: bool = False
) -> dict[str, str]:
    """Return the questions by what they are for, with widths of bins and the begin of what is judged filled in.

    They need `traces` and `predictions` as tables or views with the column `time`, and `labelled` if it is there.
    """
    questions = {
        "measures": SPANS + _FINE_BINS + measures(mix_us) + analysed_rows(is_labelled),
        "series": TRACES,
        "changes": PATHS,
        "calendar": STAYS,
        "events": WIDE,
        "mixes": MIXES,
        "cameras": CAMERAS,
        "classes": CLASSES,
        "rejects": REASONS,
        "resets": RESETS,
        "shortlists": OFF_LIST,
        "models": MODELS,
    }
    widths = {"$bin": bin_us, "$fine": fine_us, "$wide": wide_us, "$judged": judged_us}
    found = {}
    for name, sql in questions.items():
        for place, width_us in widths.items():
            sql = sql.replace(place, str(width_us))
        found[name] = sql.strip()
    return found
