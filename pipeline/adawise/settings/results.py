"""The settings of results that are published on a Kafka topic, in addition to the output."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field
from typing_extensions import override

from adawise.settings.group import KAFKA_NAME_EXPECTED, Group, KafkaName

RESULTS_SUFFIX = ".results"


class ResultsSettings(Group):
    """The settings `[results]`: the result of each image is published on a Kafka topic."""

    enabled: bool = Field(default=False, description="publish the result of each image on a Kafka topic too")
    topic: KafkaName | None = Field(
        default=None,
        description=f"results topic; none: the topic's name with {RESULTS_SUFFIX}",
        json_schema_extra={"expected": KAFKA_NAME_EXPECTED},
    )
    when: Literal["early", "committed"] = Field(
        default="early",
        description="early: publish as soon as a batch is served, and perhaps again by another worker; committed: "
        "publish only durable rows, up to sink.flush_age_s later; alerts are always about durable rows",
    )
    per: Literal["image", "batch"] = Field(default="image", description="one message for an image, or one for a batch")
    form: Literal["json", "arrow"] = Field(
        default="json",
        description="format of the messages; arrow (an IPC stream with a row for each image) needs per = batch",
    )
    days: int = Field(
        default=7, ge=1, le=36_500, description="days for which the topic keeps messages, if it is created here"
    )

    def topic_of(self, images: str) -> str:
        """Return the topic of results for the topic `images`."""
        return self.topic or f"{images}{RESULTS_SUFFIX}"

    @override
    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield a mistake for Arrow messages with a single image each. See `Group`."""
        if self.form == "arrow" and self.per == "image":
            yield "form", "arrow needs batches; set results.per to batch, or form to json"
