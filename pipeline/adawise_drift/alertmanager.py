"""Alerts of a report for Prometheus' Alertmanager, by its API (`POST /api/v2/alerts`)."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from http.client import HTTPException
from typing import TYPE_CHECKING, Any
from urllib import request as http
from urllib.error import HTTPError, URLError

import structlog

from adawise.errors import AlertsNotSent
from adawise_drift.changes.times import utc
from adawise_drift.events.result import DriftEvent
from adawise_drift.events.severity import moved
from adawise_drift.events.together import incidents
from adawise_drift.report import Report
from adawise_drift.words import short_cost

if TYPE_CHECKING:  # of the extra `report`
    from stamina.instrumentation import RetryDetails

_NAME = "AdawiseDrift"
_ATTEMPTS, _TIMEOUT_S = 3, 10.0
_MOST_BYTES = 500  # of an answer, in the message
_GRACE = timedelta(hours=1)  # in which the next report is made
_LONGEST = timedelta(days=7)


def alerts(report: Report, analysed: timedelta, now: datetime) -> list[dict[str, Any]]:
    """Return an alert for each incident that is more than noted, as the API takes it.

    An alert is active until the next report is due: for as long as the time that is judged, and an hour.
    """
    ends = now + min(analysed, _LONGEST) + _GRACE
    heavy = [those for those in incidents(report.events).values() if those[0].severity != "noted"]
    return [_alert(those, report, ends) for those in heavy]


def send(url: str, made: list[dict[str, Any]]) -> None:
    """Post the alerts, if there are any, in three attempts. Raises AlertsNotSent."""
    if not made:
        return
    import stamina
    from stamina.instrumentation import get_on_retry_hooks, set_on_retry_hooks

    address = f"{url.rstrip('/')}/api/v2/alerts"
    body = json.dumps(made).encode()
    request = http.Request(address, body, {"content-type": "application/json"}, method="POST")
    opener = http.OpenerDirector()  # follows no redirect: it would get the other address, and not post there
    for handler in (
        http.ProxyHandler,
        http.HTTPHandler,
        http.HTTPSHandler,
        http.HTTPErrorProcessor,
        http.HTTPDefaultErrorHandler,
    ):
        opener.add_handler(handler())
    others = get_on_retry_hooks()  # the store's
    set_on_retry_hooks([_log_retry])
    try:
        for attempt in stamina.retry_context(on=_may_pass, attempts=_ATTEMPTS):
            with attempt, opener.open(request, timeout=_TIMEOUT_S):
                return
    except HTTPError as error:
        with error:
            reason = error.read(_MOST_BYTES).decode(errors="replace").strip()
        why = f"it answers {error.code}{f' ({reason})' if reason else ''}"
    except (URLError, OSError) as error:
        why = str(getattr(error, "reason", error))
    except (HTTPException, ValueError) as error:
        why = f"the answer is not HTTP ({type(error).__name__})"
    finally:
        set_on_retry_hooks(others)
    raise AlertsNotSent(
        f"{len(made)} alerts could not be sent to {address}: {why}; check it or correct --alertmanager, and run "
        "the report again, which changes nothing else"
    )


def _log_retry(details: RetryDetails) -> None:
    log = structlog.get_logger("drift")
    log.warning("alerts_retried", error=str(details.caused_by), wait_s=round(details.wait_for, 1))


def _may_pass(error: Exception) -> bool:
    if isinstance(error, HTTPError):
        return error.code >= 500 or error.code == 429
    return isinstance(error, (URLError, OSError))


def _alert(those: tuple[DriftEvent, ...], report: Report, ends: datetime) -> dict[str, Any]:
    lead = those[0]
    measures = "; ".join(moved(event) for event in those)
    causes = dict.fromkeys(cause.sentence for event in those for cause in event.causes if cause.kind != "incident")
    lost = f" Accuracy {short_cost(lead.cost)}." if lead.cost is not None else ""
    return {
        "labels": {
            "alertname": _NAME,
            "job": "adawise-drift",
            "root": report.root,
            "stream_id": lead.stream_id,
            "measure": lead.measure,
            "shape": lead.shape,
            "state": lead.state,
            "severity": "ticket",
        },
        "annotations": {
            "summary": f"{lead.stream_id}: {moved(lead)}",
            "description": f"{measures}.{lost} {'; '.join(causes)}".strip(),
            "next": lead.next,
        },
        "startsAt": _moment(utc(lead.since_us)),
        "endsAt": _moment(ends),
    }


def _moment(of: datetime) -> str:
    return of.isoformat(timespec="milliseconds")
