"""Parcels of images -> acknowledged Kafka messages, within bounded memory. The producers' boundary to Kafka.

kafka-python 3's producer accepts any amount (600 MB within half a second, measured), so the bytes that are sent and not
yet acknowledged are bounded here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from kafka import KafkaAdminClient, KafkaProducer, errors

from adawise.decode.arrow_batch import ARROW_STREAM, encode_batch
from adawise.decode.headers import written_headers
from adawise.errors import AdawiseError, BrokerUnavailable, SettingsError, SourceError
from adawise.kafka.client import TOO_LARGE, kafka_errors, open_client, translated
from adawise.produce.produce import ROOM_BYTES, Parcel

_REQUEST_BYTES = 512 * 1024  # of a request with several small images; below the 1 MB that a topic takes by default


class KafkaSender:
    """A sender of parcels to one topic, which has to exist (`ensure_topic`). It implements `produce.Sender`.

    It is not safe for use by several threads at once.

    Args:
        bootstrap_servers: the brokers.
        security: kafka-python's arguments for TLS and SASL.
        client_id: the name of this client at the brokers.
        topic: the topic to send to.
        max_message_bytes: the largest message.
        max_inflight_bytes: unacknowledged bytes above which `send` waits; one message always fits.
        timeout_s: how long `send` and `flush` wait for each acknowledgement.
        on_progress: called with the number of images of each message that is acknowledged.

    Raises:
        BrokerUnavailable: no broker answers.
        SettingsError: the security settings cannot work.
    """

    def __init__(
        self,
        *,
        bootstrap_servers: str,
        security: Mapping[str, object],
        client_id: str,
        topic: str,
        max_message_bytes: int,
        max_inflight_bytes: int,
        timeout_s: float,
        on_progress: Callable[[int], object] = lambda _: None,
    ) -> None:
        patience_ms = int(timeout_s * 1000)
        self._producer = open_client(
            KafkaProducer,
            bootstrap_servers,
            security,
            client_id=client_id,
            acks="all",
            max_request_size=max_message_bytes + ROOM_BYTES,
            batch_size=_REQUEST_BYTES,
            linger_ms=5,
            max_block_ms=patience_ms,
            delivery_timeout_ms=patience_ms + 1000,
            request_timeout_ms=patience_ms,
            allow_auto_create_topics=False,
        )
        self._where, self._topic, self._timeout_s = bootstrap_servers, topic, timeout_s
        self._max_inflight_bytes, self._on_progress = max_inflight_bytes, on_progress
        self._inflight: deque[tuple[Any, int, int]] = deque()  # future, images, bytes of the value
        self._inflight_bytes = 0

    def send(self, parcel: Parcel) -> None:
        """See `produce.Sender`."""
        value, headers = message_of(parcel)
        while self._inflight and self._inflight_bytes + len(value) > self._max_inflight_bytes:
            self._settle_oldest()
        while self._inflight and self._inflight[0][0].is_done:
            self._settle_oldest()
        try:
            future = self._producer.send(self._topic, value=value, key=parcel.stream_id.encode(), headers=headers)
        except errors.KafkaError as error:
            raise self._translated(error, len(value)) from error
        self._inflight.append((future, len(parcel.shots), len(value)))
        self._inflight_bytes += len(value)

    def flush(self) -> None:
        """See `produce.Sender`."""
        while self._inflight:
            self._settle_oldest()

    def close(self) -> None:
        """Close the producer; what is not acknowledged by then is given up. It may be called twice."""
        with suppress(errors.KafkaError):  # `flush` raises for what is left over
            self._producer.close(timeout=0 if self._inflight else self._timeout_s)

    def _settle_oldest(self) -> None:
        future, images, size_bytes = self._inflight[0]
        try:
            future.get(timeout=self._timeout_s)
        except errors.KafkaError as error:
            raise self._translated(error, size_bytes) from error
        self._inflight.popleft()
        self._inflight_bytes -= size_bytes
        self._on_progress(images)

    def _translated(self, error: errors.KafkaError, size_bytes: int) -> AdawiseError:
        if isinstance(error, TOO_LARGE):
            msg = (
                f"expected room for {size_bytes} bytes in a message of topic {self._topic!r} at {self._where}: {error}"
            )
            return SettingsError(f"{msg}. Send fewer images in a batch, or raise max.message.bytes of the topic.")
        return translated(error, self._where, f"send to topic {self._topic!r}")


def message_of(parcel: Parcel) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Return (value, headers) of a parcel: the image as it is, or an Arrow batch."""
    if parcel.is_batch:
        value = encode_batch(
            [shot.data for shot in parcel.shots],
            stream_id=parcel.stream_id,
            frame_ids=[shot.frame_id for shot in parcel.shots],
            captured_at_us=parcel.captured_at_us,
            labels=[shot.label for shot in parcel.shots],
        )
        return value, [("content-type", ARROW_STREAM.encode())]
    (shot,), (captured_at_us,) = parcel.shots, parcel.captured_at_us
    return shot.data, written_headers(shot.content_type, captured_at_us, shot.frame_id, label=shot.label)


def ensure_topic(
    *,
    bootstrap_servers: str,
    security: Mapping[str, object],
    client_id: str,
    topic: str,
    create: bool,
    partitions: int = 1,
    replication: int = -1,
    max_message_bytes: int | None = None,
) -> bool:
    """Make sure that the topic exists; return True if it was created. `replication` -1 is the broker's default.

    Raises:
        SourceError: there is no such topic, and `create` is False.
        BrokerUnavailable, SettingsError: as in `KafkaSender`, or the topic cannot be created like this.
    """
    admin = open_client(KafkaAdminClient, bootstrap_servers, security, client_id=client_id)
    try:
        with kafka_errors(bootstrap_servers, f"send to topic {topic!r}"):
            found = errors.for_code(admin.describe_topics([topic])[0]["error_code"])
            if found is errors.NoError:
                return False
            # Without the right to describe a topic, the broker hides whether it exists, yet the user may be allowed to
            # create it.
            if found is not errors.UnknownTopicOrPartitionError and not create:
                raise found
        if not create:
            raise SourceError(
                f"expected the topic {topic!r} at {bootstrap_servers}, but there is none of that name. Create it, "
                "or give --create-topic."
            )
        configs = {} if max_message_bytes is None else {"max.message.bytes": str(max_message_bytes)}
        options = {"num_partitions": partitions, "replication_factor": replication, "configs": configs}
        with kafka_errors(bootstrap_servers, f"create the topic {topic!r}"):
            admin.create_topics({topic: options}, wait_for_metadata=True)
        return True
    except BrokerUnavailable as error:
        if isinstance(error.__cause__, errors.TopicAlreadyExistsError):
            return False  # another producer was quicker
        if isinstance(error.__cause__, errors.InvalidReplicationFactorError | errors.InvalidPartitionsError):
            raise SettingsError(
                f"{error.__cause__}: {partitions} partitions of {replication} replicas for topic {topic!r}. Set at "
                "most as many replicas as there are brokers."
            ) from error
        raise
    finally:
        admin.close()
