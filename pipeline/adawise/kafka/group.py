"""A check that a consumer group can be joined, which never becomes a member of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from kafka import KafkaConsumer, errors
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.structs import MemberState

from adawise.kafka.client import REQUEST_TIMEOUT_MS, kafka_errors, open_client

_CLOSE_MS, _AGAIN_S = 5_000, 0.1


def check_group(
    *,
    bootstrap_servers: str,
    topic: str,
    group: str,
    client_id: str,
    session_timeout_ms: int,
    security: Mapping[str, object],
) -> None:
    """Ask to join as a worker does, and leave once the broker has assigned a member id: no other member notices.

    Raises:
        FatalError, SettingsError: the group may not be read, or not with this session timeout or assignor.
        BrokerUnavailable: no broker answered.
    """
    consumer: Any = open_client(
        KafkaConsumer,
        bootstrap_servers,
        security,
        client_id=f"{client_id}-check",
        group_id=group,
        partition_assignment_strategy=[CooperativeStickyAssignor],
        enable_auto_commit=False,
        allow_auto_create_topics=False,
        session_timeout_ms=session_timeout_ms,
        heartbeat_interval_ms=min(3_000, session_timeout_ms // 3),
    )
    try:
        with kafka_errors(bootstrap_servers, f"join group {group!r}"):
            consumer.subscribe([topic])
            _ask_to_join(consumer._coordinator, consumer._client._net)
    finally:
        consumer.close(timeout_ms=_CLOSE_MS)


def _ask_to_join(coordinator: Any, net: Any) -> None:
    """Ask to join until the broker assigns a member id.

    Raises:
        KafkaError: at once if it is final; a passing one, as from a broker that has just started, after 10 s.
    """
    give_up_s = time.monotonic() + REQUEST_TIMEOUT_MS / 1000
    while True:
        try:
            if not coordinator.ensure_coordinator_ready(timeout_ms=REQUEST_TIMEOUT_MS):
                raise errors.CoordinatorNotAvailableError()
            net.run(coordinator._do_join_and_sync_async)
        except errors.MemberIdRequiredError:  # the broker has checked by then all that it can refuse
            # The embedded broker counts each client with an id as a member. `close` gives the id back, but not in state
            # UNJOINED.
            coordinator.state = MemberState.REBALANCING
            return
        except errors.RetriableError:
            if time.monotonic() > give_up_s:
                raise
            time.sleep(_AGAIN_S)
        else:
            return
