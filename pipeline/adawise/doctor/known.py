"""The common parts of checks: the facts, each queried once, and the results: passed, a warning, failed, not checked.

A worker can live with a warning today. A failure ends it, or blocks a partition.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from adawise.console import print_json
from adawise.ports import TopicIdentity
from adawise.records import TopicPartition
from adawise.settings import Settings
from adawise.text import counted

if TYPE_CHECKING:
    from adawise.app.model import ModelPair
    from adawise.app.precision import PrecisionChoice
    from adawise.kafka.inquiry import Cluster, KafkaInquiry, Topic
    from adawise.kafka.topic import KafkaTopics

Status = Literal["ok", "warn", "fail", "skip"]

_WORDS: dict[Status, str] = {"ok": "passed", "fail": "failed", "skip": "skipped"}


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The finding of a check, which ends with the remedy where one is needed, and the name of the part it is about."""

    status: Status
    detail: str = ""
    name: str = ""


def ok(detail: str = "") -> CheckResult:
    """Return the result that nothing is to be done."""
    return CheckResult("ok", detail)


def warn(detail: str) -> CheckResult:
    """Return the result that a worker runs, and that what was found is going to cost something."""
    return CheckResult("warn", detail)


def skip(detail: str) -> CheckResult:
    """Return the result that the part could not be checked, for a reason that is no fault of its own."""
    return CheckResult("skip", detail)


def warn_if_any(warnings: Iterable[str], detail: str) -> CheckResult:
    """Return a warning with all of `warnings`; without any, a pass with `detail`."""
    return warn("; ".join(found)) if (found := list(warnings)) else ok(detail)


def report(results: Iterable[CheckResult]) -> list[CheckResult]:
    """Print a line for each result as it comes, and a last one with counts; return the results."""
    shown = []
    for each in results:
        detail = each.detail.replace("\n", "\n" + " " * 6)
        print(f"{each.status.upper():<6}{each.name}{': ' if detail else ''}{detail}", flush=True)
        shown.append(each)
    counts = Counter(each.status for each in shown)
    words = (counted(n, "warning") if status == "warn" else f"{n} {_WORDS[status]}" for status, n in counts.items())
    print(", ".join(words))
    return shown


def report_json(results: Iterable[CheckResult]) -> list[CheckResult]:
    """Print one object with the list `checks`; return the results."""
    found = list(results)
    print_json({"checks": [{"name": o.name, "status": o.status, "detail": o.detail} for o in found]})
    return found


class Known:
    """The settings, and what was found out so far.

    Errors come from the system that is asked. A query that failed is made again at the next access.

    Attributes:
        failed: names of checks that failed, or could not be made.
        model: the pair, once it was loaded.
        precision: the number format in which it was loaded, likewise.
        is_silent: True once a check had no answer in its time and still waits.
        clients: the Kafka clients that were opened. A client serves one thread at a time. `commits` is the only fact
            from the broker that two lanes query, so it has a lock.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.failed: set[str] = set()
        self.model: ModelPair | None = None
        self.precision: PrecisionChoice | None = None
        self.clients: list[Any] = []
        self.is_silent = False
        self._opened, self._connecting = ExitStack(), threading.Lock()

    @cached_property
    def cluster(self) -> Cluster:
        """The cluster of the broker that answers."""
        return self.inquiry.cluster()

    @cached_property
    def topic(self) -> Topic:
        """The topic that is read."""
        return self.inquiry.topic(self.settings.kafka.topic)

    @cached_property
    def configs(self) -> Mapping[str, str] | None:
        """The topic's configuration at the broker; None if the broker does not disclose it."""
        return self.inquiry.configs(self.settings.kafka.topic)

    @cached_property
    def identity(self) -> TopicIdentity:
        """The topic's identity. Raises SourceError if there is no topic of this name."""
        return self.topics.identity(self.settings.kafka.topic)

    @cached_property
    def commits(self) -> Mapping[TopicPartition, tuple[int, str]]:
        """The offsets that the group has committed, each with the id of the root that it was for."""
        with self._connecting:
            return self.topics.committed(self.settings.kafka.group, self.settings.kafka.topic)

    @cached_property
    def inquiry(self) -> KafkaInquiry:
        """The client that queries clusters and topics."""
        from adawise.app.kafka import reach
        from adawise.kafka.inquiry import KafkaInquiry

        return self._opened.enter_context(closing(KafkaInquiry(**reach(self.settings.kafka))))

    @cached_property
    def topics(self) -> KafkaTopics:
        """The client that makes a worker's queries."""
        from adawise.app.kafka import kafka_topics

        return self._opened.enter_context(closing(kafka_topics(self.settings.kafka)))

    def close(self) -> None:
        """Free what was opened. A check that still waits for an answer gets none, and ends."""
        if not self.is_silent:
            self._opened.close()
        for client in self.clients:
            with suppress(RuntimeError):  # its owner has closed it already
                client.close()
