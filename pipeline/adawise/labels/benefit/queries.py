"""The questions behind "did it help?", as SQL over `answers`: a row for each labelled image and each arm.

`answers` has the batch's key, `truth`, `served` (whether what was served is right), `served_alpha`, and of the arm its
number, `answer`, `confidence` and `alpha`. It is a view: nothing of the size of the images is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BINS = 15
"""Of the calibration error, as on the card."""

KINDS = """
SELECT arm, stream_id, topic, partition, images, served, own, count(*) AS times
FROM (
    SELECT arm, stream_id, topic, partition, count(*) AS images, count(*) FILTER (served) AS served,
           count(*) FILTER (answer = truth) AS own
    FROM answers WHERE answer IS NOT NULL
    GROUP BY arm, topic, partition, stream_id, batch_number
)
GROUP BY ALL ORDER BY ALL
"""

CONFIDENCES = f"""
SELECT arm, stream_id, least(floor(confidence * {BINS})::INTEGER, {BINS - 1}) AS bin,
       count(*) AS images,
       sum((answer = truth)::INTEGER - confidence::DOUBLE) AS gap,
       count(*) FILTER (alpha = served_alpha) AS same,
       min(alpha) AS lowest, max(alpha) AS highest
FROM answers WHERE answer IS NOT NULL
GROUP BY ALL ORDER BY ALL
"""

CONFUSIONS = """
SELECT arm, truth, answer, count(*) AS images FROM answers WHERE answer IS NOT NULL GROUP BY ALL ORDER BY ALL
"""

ACCEPTED = "SELECT count(*) FROM predictions WHERE status = 'accepted'"

SERVED_AT = """
SELECT alpha, count(*) AS images FROM accepted WHERE shortlist IS NULL GROUP BY ALL ORDER BY ALL
"""

WITHOUT_FIGURES = """
SELECT count(*) FROM accepted
WHERE shortlist IS NOT NULL AND shortlist NOT IN (SELECT shortlist FROM thresholds WHERE shortlist IS NOT NULL)
"""

BELOW = """
SELECT avg((entropy <= threshold)::INTEGER) AS below, count(*) AS images,
       count(*) FILTER (accepted.shortlist IS NOT NULL) AS listed
FROM accepted JOIN thresholds
    ON accepted.alpha = thresholds.alpha AND accepted.shortlist IS NOT DISTINCT FROM thresholds.shortlist
"""

NO_BATCHES = """
SELECT NULL::VARCHAR AS topic, NULL::INTEGER AS partition, NULL::VARCHAR AS stream_id, NULL::BIGINT AS batch_number,
       NULL::BIGINT AS first_offset, NULL::BIGINT AS last_offset, NULL::VARCHAR AS shortlist
WHERE FALSE
"""
"""The batches that were served among a shortlist, with its digest, where there are none."""


def create_accepted(listed: str) -> str:
    """Return the SQL of the view `accepted`: alpha and entropy of accepted images, with the digest of the shortlist.

    `listed` are the batches with a shortlist, as `NO_BATCHES`.
    """
    return f"""
    CREATE OR REPLACE TEMP VIEW accepted AS
    SELECT alpha, entropy, shortlist FROM predictions LEFT JOIN ({listed}) AS each
        ON each.topic = predictions.topic AND each.partition = predictions.partition
            AND each.stream_id = predictions.stream_id AND each.batch_number = predictions.batch_number
            AND predictions."offset" BETWEEN each.first_offset AND each.last_offset
    WHERE status = 'accepted'
    """


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of an arm's answers, as SQL over the labelled rows."""

    answer: str
    confidence: str
    alpha: str


SERVED = Columns("label", "confidence", "alpha")
ENDPOINTS = (
    Columns("zero_shot_label", "zero_shot_confidence", "0.0::DOUBLE"),
    Columns("fine_tuned_label", "fine_tuned_confidence", "1.0::DOUBLE"),
)
SCENE = Columns("scene_label", "scene_confidence", "'nan'::DOUBLE")  # of the alphas that served


def of_run(number: int) -> Columns:
    """Return the columns of another run, which is the view `run_<number>`."""
    return Columns(*(f"run_{number}_{name}" for name in ("label", "confidence", "alpha")))


def create_answers(arms: Sequence[Columns], runs: int) -> str:
    """Return the SQL of the view `answers` of these arms, over `labelled` and the views of other runs."""
    structs = ", ".join(
        f"{{arm: {number}, answer: {arm.answer}, confidence: {arm.confidence}, alpha: {arm.alpha}}}"
        for number, arm in enumerate(arms)
    )
    renamed = "".join(
        f", run_{n}.{name} AS run_{n}_{name}" for n in range(runs) for name in ("label", "confidence", "alpha")
    )
    joins = " ".join(f'LEFT JOIN run_{n} USING (topic, partition, "offset", "index")' for n in range(runs))
    return f"""
    CREATE OR REPLACE TEMP VIEW answers AS
    SELECT topic, partition, stream_id, batch_number, truth, served, served_alpha, unnest(arms, recursive := true)
    FROM (
        SELECT topic, partition, stream_id, batch_number, truth, label = truth AS served, alpha AS served_alpha,
               [{structs}] AS arms
        FROM (SELECT labelled.*{renamed} FROM labelled {joins})
    )
    """
