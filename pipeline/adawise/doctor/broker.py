"""Checks of the broker and the topic as a worker will use them, and of the topic's configuration."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

from adawise.doctor.known import CheckResult, Known, ok, skip, warn, warn_if_any
from adawise.errors import FatalError, SettingsError, SourceError
from adawise.kafka.embedded import NOT_FOR
from adawise.records import TopicPartition
from adawise.text import as_duration, counted, some

NOT_PERMITTED = "the topic's settings are not known: this user lacks the right DESCRIBE_CONFIGS on the topic"
NOT_KNOWN = "the embedded broker has no settings of topics"
CLOCK_S = 60.0
"""Seconds by which clocks may differ before a check warns."""

_SOON = 0.2  # share of the retention that is left to an unread message when a check warns
_FULL = 0.8  # share of retention.bytes that is unread when a check warns


def certificates(known: Known) -> CheckResult:
    """Check that the certificates in the settings are valid, and say until when."""
    from adawise.app.kafka import certificates, renewal

    now, found = datetime.now(UTC), certificates(known.settings.kafka)
    if over := [each for each in found if each.is_over(now)]:
        expired = "; ".join(f"{each.setting}: {each.file} expired at {each.until}" for each in over)
        raise SettingsError(f"{expired}: no connection is accepted. Renew it, or correct the clock of this machine.")
    ends = ", ".join(f"{each.setting.rpartition('.')[2]} until {each.until}" for each in found)
    return warn_if_any((renewal(each, now) for each in found if each.ends_soon(now)), ends)


def broker(known: Known) -> CheckResult:
    """Check that a broker answers, and say which."""
    found = known.cluster
    if found.is_embedded:
        return ok(
            f"the embedded broker at {known.settings.kafka.bootstrap_servers}, for trying out: {NOT_FOR} cannot "
            "connect to it"
        )
    return ok(
        f"cluster {found.id} at {known.settings.kafka.bootstrap_servers}: "
        f"{counted(found.brokers, 'broker')}, Kafka {found.version} or newer"
    )


def topic(known: Known) -> CheckResult:
    """Check that the topic exists, may be read, and is not compacted."""
    kafka = known.settings.kafka
    partitions = known.identity.partitions
    rights = known.topic.rights
    if rights is not None and "READ" not in rights:
        raise SourceError(
            f"topic {kafka.topic!r} at {kafka.bootstrap_servers}: expected the right to read it, and this user has "
            f"{', '.join(sorted(rights)) or 'none'}. Give the user the ACLs READ and DESCRIBE on the topic."
        )
    if kafka.on_compacted == "fail":
        known.topics.expect_not_compacted(kafka.topic)
    elif "compact" in (known.configs or {}).get("cleanup.policy", ""):
        return warn(
            f"{kafka.topic} has cleanup.policy={(known.configs or {})['cleanup.policy']}: the broker removes frames of "
            "a camera before they are read, and kafka.on_compacted=skip records the gaps. Set cleanup.policy=delete"
        )
    return ok(f"{kafka.topic} at {kafka.bootstrap_servers} has {counted(partitions, 'partition')}, and can be read")


def replicas(known: Known) -> CheckResult:
    """Check that each partition has a leader and all its replicas, and how safe acknowledged messages are."""
    found = known.topic.partitions
    if headless := [each.partition for each in found if not each.is_led]:
        raise SourceError(
            f"partition {some(headless)} of topic {known.settings.kafka.topic!r} has no leader, so it can be "
            "neither read nor written. Start the brokers that hold its replicas."
        )
    behind = [each.partition for each in found if each.in_sync < each.count]
    least, copies = int((known.configs or {}).get("min.insync.replicas", 0)), min(each.count for each in found)
    refused = [each.partition for each in found if each.in_sync < least]

    def warnings() -> Iterator[str]:
        if refused:
            yield (
                f"partition {some(refused)} has fewer in-sync replicas than min.insync.replicas={least}: producers are "
                "refused. Start the brokers that hold its replicas"
            )
        elif behind:
            yield f"partition {some(behind)} has replicas that are behind, or whose broker is down: check the brokers"
        if copies > 1 and least == 1:
            yield (
                f"min.insync.replicas=1 with {copies} replicas: acknowledged frames can be lost with one broker, "
                "which blocks their partition. Set min.insync.replicas=2 on the topic"
            )

    return warn_if_any(warnings(), f"all in sync, {counted(copies, 'copy', 'copies')} of each partition")


def message_size(known: Known) -> CheckResult:
    """Compare the sizes of messages and batches that the topic accepts with those that a worker reads."""
    if known.configs is None:
        return skip(_unknown_settings(known))
    decode, kafka = known.settings.decode, known.settings.kafka
    largest = int(known.configs.get("max.message.bytes", 0))

    def warnings() -> Iterator[str]:
        from adawise.produce.produce import ROOM_BYTES

        if largest > decode.max_message_bytes + ROOM_BYTES:
            yield (
                f"the topic takes messages up to {largest} bytes, and those above decode.max_message_bytes "
                f"({int(decode.max_message_bytes)}) are rejected as too_large. Lower max.message.bytes of the "
                "topic, or raise decode.max_message_bytes (and limits.inflight_mib with it)"
            )
        if largest > kafka.max_partition_fetch_bytes:
            yield (
                f"the topic takes batches up to {largest} bytes, and kafka.max_partition_fetch_bytes is "
                f"{int(kafka.max_partition_fetch_bytes)}: larger ones are fetched one at a time, and take more "
                f"memory than the setting allows. Set it to {largest} or more"
            )

    return warn_if_any(warnings(), f"the topic takes messages up to {largest} bytes, and all of them are accepted")


def retention(known: Known) -> CheckResult:
    """Check that the broker does not delete messages before the group has read them."""
    kafka = known.settings.kafka
    bounds = known.inquiry.bounds(kafka.topic, (each.partition for each in known.topic.partitions))
    begins = {
        number: known.commits.get(TopicPartition(kafka.topic, number), (end if kafka.origin == "latest" else start,))[0]
        for number, (start, end) in bounds.items()
    }
    if lost := [number for number, (start, _) in bounds.items() if begins[number] < start]:
        count = sum(bounds[number][0] - begins[number] for number in lost)
        what = f"the broker has deleted {counted(count, 'message')} of partition {some(lost)} before they were read"
        if kafka.on_gap == "fail":
            raise SourceError(
                f"{what}, and a worker stops there. Set kafka.on_gap=skip to record the gap and go on, and raise "
                "retention.ms and retention.bytes of the topic, or start more workers."
            )
        return warn(f"{what}: the gap will be recorded. Raise retention.ms and retention.bytes, or start more workers")
    lags = {number: end - begins[number] for number, (_, end) in bounds.items() if end > begins[number]}
    lag = f"{counted(sum(lags.values()), 'message')} not read yet"
    if not lags or known.configs is None:
        return ok(lag) if known.configs is not None else skip(f"{lag}; {_unknown_settings(known)}")
    kept_ms, kept_bytes = (int(known.configs.get(f"retention.{of}", -1)) for of in ("ms", "bytes"))

    def warnings() -> Iterator[str]:
        if kept_ms > 0:
            at = int(time.time() * 1000 - (1 - _SOON) * kept_ms)
            younger = known.inquiry.offsets_at(kafka.topic, dict.fromkeys(lags, at))
            late = [number for number in lags if (found := younger[number]) is None or found > begins[number]]
            if late:
                yield (
                    f"partition {some(late)} has messages not read yet that are older than {1 - _SOON:.0%} of "
                    f"retention.ms ({as_duration(kept_ms / 1000)}): they will be deleted soon. Start more workers, or "
                    "raise retention.ms of the topic"
                )
        sizes = known.inquiry.sizes(kafka.topic, lags) if kept_bytes > 0 else None
        unread = {
            number: size * lags[number] / max(1, bounds[number][1] - bounds[number][0])
            for number, size in (sizes or {}).items()
            if number in lags
        }
        if full := [number for number, size in unread.items() if size > _FULL * kept_bytes]:
            yield (
                f"partition {some(full)} has more unread bytes than {_FULL:.0%} of retention.bytes ({kept_bytes}): "
                "they will be deleted soon. Start more workers, or raise retention.bytes of the topic"
            )

    kept = "for good" if kept_ms < 0 else f"for {as_duration(kept_ms / 1000)}"
    return warn_if_any(warnings(), f"{lag}, kept {kept}" + (f" and {kept_bytes} bytes" if kept_bytes > 0 else ""))


def timestamps(known: Known) -> CheckResult:
    """Say whose clock the messages' times are by, and check that it is not ahead of this machine's."""
    kafka = known.settings.kafka
    kind = (known.configs or {}).get("message.timestamp.type", "CreateTime")
    whose = "the broker's" if kind == "LogAppendTime" else "the producers'"
    ahead_ms = int((time.time() + CLOCK_S) * 1000)
    if known.cluster.is_embedded:
        return skip(f"times are by {whose} clock; the embedded broker does not find offsets by time")
    timestamps = dict.fromkeys((each.partition for each in known.topic.partitions), ahead_ms)
    ahead = [number for number, at in known.inquiry.offsets_at(kafka.topic, timestamps).items() if at is not None]
    if ahead:
        return warn(
            f"partition {some(ahead)} has messages more than {CLOCK_S:g} s ahead of this machine's clock; their "
            f"times are by {whose} clock. Set the clocks by NTP: forgetting streams and cutting replays depend on "
            "these times"
        )
    return ok(f"by {whose} clock ({kind}); none is ahead of this machine's")


def workers(known: Known) -> CheckResult:
    """Compare the number of the group's members with the number of partitions."""
    kafka, partitions = known.settings.kafka, len(known.topic.partitions)
    members = known.inquiry.members(kafka.group)
    if members is None:
        return ok(f"up to {counted(partitions, 'worker')} at once, one for each partition; the members are not known")
    if members >= partitions:
        return warn(
            f"{counted(members, 'member')} of group {kafka.group!r} for {counted(partitions, 'partition')}: one more "
            f"waits in reserve. To share the work, give the topic more partitions"
        )
    return ok(f"{counted(members, 'member')} of group {kafka.group!r} now, for {counted(partitions, 'partition')}")


def group(known: Known) -> CheckResult:
    """Check that the group can be joined."""
    from adawise.app.kafka import check_joining

    check_joining(known.settings.kafka, is_embedded=known.cluster.is_embedded)
    return ok(f"{known.settings.kafka.group} can be joined")


def dead_letters(known: Known) -> CheckResult:
    """Check that dead letters can be written, with the message in them."""
    from adawise.app.kafka import own_dead_letter_topics
    from adawise.kafka.own_topic import HEADERS_ROOM_BYTES

    kafka, largest = known.settings.kafka, known.settings.decode.max_message_bytes
    if not own_dead_letter_topics(kafka, largest).check(kafka.dead_letters_to):
        return ok(f"{kafka.dead_letters_to} can be created, at the first dead letter")
    room = (known.inquiry.configs(kafka.dead_letters_to) or {}).get("max.message.bytes")
    if room is not None and int(room) < largest + HEADERS_ROOM_BYTES:
        return warn(
            f"{kafka.dead_letters_to} can be written, and takes up to {room} bytes: dead letters of larger "
            "messages do not contain the message, which `dlq replay` then cannot send again. Set its "
            f"max.message.bytes to {largest + HEADERS_ROOM_BYTES}"
        )
    return ok(f"{kafka.dead_letters_to} can be written")


def results(known: Known) -> CheckResult:
    """Check that results can be published."""
    from adawise.app.kafka import result_topic

    topic = known.settings.results.topic_of(known.settings.kafka.topic)
    exists = result_topic(known.settings).check(topic)
    return ok(f"{topic} {'can be written' if exists else 'can be created, at the first result'}")


def codecs(known: Known) -> CheckResult:
    """Check that batches of every compression can be decompressed."""
    from adawise.kafka.batches import CODECS, missing_codecs

    del known
    if missing := missing_codecs():
        raise FatalError(
            f"expected {', '.join(CODECS.values())}, but this build of pyarrow lacks {', '.join(missing)}: a batch "
            "compressed with one of these blocks its partition. Install pyarrow from PyPI"
        )
    return ok(f"none, {', '.join(CODECS.values())}")


def _unknown_settings(known: Known) -> str:
    return NOT_KNOWN if known.cluster.is_embedded else NOT_PERMITTED
