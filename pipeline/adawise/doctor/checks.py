"""The parts that the doctor checks, in their order, and the threads that check them.

A part that fails does not hide a fault of the next one. A part that needs a failed part is skipped, and its result says
so. Parts that ask the same broker, or the same store, are a lane: they are checked one after another, and lanes side by
side. A part that exceeds its time has failed, and the rest of its lane is skipped: a broker behind a firewall answers
no other question either.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

from adawise.doctor import broker, machine, model, store
from adawise.doctor.known import CheckResult, Known, skip
from adawise.errors import AdawiseError
from adawise.kafka.client import OPENED
from adawise.settings import Settings
from adawise.settings.mistakes import NOT_SET, Mistake

_PAIR = {"model.theta_0", "model.theta_1", "model.classes", "model.card", "search.objective"}
_QUICK_S, _STORE_S, _LONG_S = 25.0, 45.0, 180.0  # seconds; clients give up earlier, with a message that says more
_THREAD = "doctor-"  # prefix of the names of the threads that check a part


def is_checking() -> bool:
    """Return True if a part that exceeded its time still waits for an answer."""
    return any(thread.name.startswith(_THREAD) for thread in threading.enumerate())


@dataclass(frozen=True, slots=True)
class Examination:
    """A part to be checked.

    Args:
        name: what it is, for people.
        check: the check; it raises what a worker would raise.
        reads: the groups of settings without which it cannot be checked, and single settings that must be set.
        after: names of parts that must not have failed; all are before it in the list.
        limit_s: seconds after which it has failed.
        remedy: what to do then.
        wanted: returns True if these settings use the part at all.
        lane: the system that it asks; "" for none.
        behind: a part that must have ended before, whatever its result.
    """

    name: str
    check: Callable[[Known], CheckResult]
    reads: frozenset[str]
    after: tuple[str, ...] = ()
    limit_s: float = _QUICK_S
    remedy: str = "Check whether this machine is overloaded, and try again."
    wanted: Callable[[Settings], bool] = lambda _: True
    lane: str = ""
    behind: str | None = None


def _of_kafka(name: str, check: Callable[[Known], CheckResult], *after: str, reads: str = "kafka") -> Examination:
    remedy = "Check whether a firewall drops packets to kafka.bootstrap_servers, or the brokers are overloaded."
    return Examination(name, check, frozenset(reads.split()), after, remedy=remedy, lane="broker")


def _of_store(name: str, check: Callable[[Known], CheckResult], *after: str, limit_s: float = _STORE_S) -> Examination:
    remedy = "Check that sink.root and record.root answer: a mount may hang, a firewall or a proxy may block."
    return Examination(name, check, frozenset({"sink", "record", "kafka"}), after, limit_s, remedy, lane="store")


def _names_certificates(settings: Settings) -> bool:
    security = settings.kafka.security
    return any(each is not None for each in (security.ssl_ca, security.ssl_certificate, security.oauth_ca))


PARTS: tuple[Examination, ...] = (
    replace(_of_kafka("certificates", broker.certificates), wanted=_names_certificates),
    _of_kafka("broker", broker.broker, "certificates"),
    _of_kafka("topic", broker.topic, "broker"),
    _of_kafka("replicas", broker.replicas, "topic"),
    _of_kafka("message size", broker.message_size, "topic", reads="kafka decode"),
    _of_kafka("retention", broker.retention, "topic"),
    _of_kafka("timestamps", broker.timestamps, "topic"),
    _of_kafka("consumer group", broker.group, "topic"),
    _of_kafka("workers", broker.workers, "topic"),
    replace(
        _of_kafka("dead letters", broker.dead_letters, "topic", reads="kafka decode"),
        wanted=lambda settings: settings.kafka.dead_letters,
    ),
    replace(
        _of_kafka("results", broker.results, "topic", reads="kafka results"),
        wanted=lambda settings: settings.results.enabled,
    ),
    Examination("codecs of batches", broker.codecs, frozenset()),
    replace(_of_store("output folder", store.output), behind="topic"),
    _of_store("chains", store.chains, "output folder", limit_s=_LONG_S),
    replace(
        _of_store("shortlists", store.shortlists, "output folder", "chains", limit_s=_LONG_S),
        reads=frozenset({"sink", "scene"}),
        wanted=lambda settings: bool(settings.scene.shortlists),
    ),
    replace(
        _of_store("recording folder", store.recording, "topic"),
        reads=frozenset({"record", "kafka"}),
        remedy="Check that record.root answers: a mount may hang, a firewall or a proxy may block.",
        wanted=lambda settings: settings.record.enabled,
    ),
    _of_store("file system", store.file_system),
    _of_store("free space", store.space),
    _of_store("store's clock", store.clock, "output folder"),
    Examination("class names", model.words, frozenset({"model", "model.classes"}), lane="model"),
    Examination(
        "device", machine.device, frozenset({"model"}), limit_s=_LONG_S, remedy="See `nvidia-smi`.", lane="model"
    ),
    Examination(
        "model pair and card",
        model.pair,
        frozenset({"model", "search", "scene", "decode", "predict", "limits", "sink", *_PAIR}),
        limit_s=_LONG_S,
        remedy="Check that the disk with the checkpoints, or the network to it, answers.",
        lane="model",
    ),
    Examination("preprocessing", model.preprocessing, frozenset({"model"}), ("model pair and card",), lane="model"),
    Examination(
        "text heads",
        machine.text_heads,
        frozenset({"model"}),
        remedy="Check that the disk of model.cache answers.",
        lane="model",
    ),
    Examination("cores", machine.cores, frozenset({"decode", "model"})),
    Examination(
        "memory",
        machine.memory,
        frozenset({"decode", "model", "limits", "record", "kafka"}),
        ("model pair and card",),
    ),
    Examination(  # after the memory was measured, because it takes memory for two towers
        "number format",
        model.number_format,
        frozenset({"model"}),
        ("model pair and card",),
        limit_s=_LONG_S,
        lane="model",
        behind="memory",
    ),
    Examination("HTTP port", machine.http_port, frozenset({"http"}), wanted=lambda settings: settings.http.enabled),
    Examination("open files", machine.open_files, frozenset({"kafka", "decode"}), ("topic",)),
)


def check_all(settings: Settings, mistakes: Sequence[Mistake]) -> Iterator[CheckResult]:
    """Yield the result for the settings, wrong ones of which are at their defaults, and then for each part."""
    yield CheckResult("fail" if mistakes else "ok", "\n".join(map(str, mistakes)), "settings")
    yield from check(settings, not_known(mistakes))


def not_known(mistakes: Sequence[Mistake]) -> frozenset[str]:
    """Return the groups that cannot be checked, and single settings that are missing or whose file is missing.

    Nothing is known of a group with a wrong value. If the settings file or an unknown name is wrong, that holds for all
    groups.
    """
    known, found = frozenset(Settings.model_fields), set[str]()
    for mistake in mistakes:
        group = mistake.name.partition(".")[0]
        found |= {mistake.name} if mistake.origin == NOT_SET else {group} if group in known else known
    return frozenset(found)


def check(settings: Settings, wrong: Iterable[str] = (), parts: Iterable[Examination] = PARTS) -> Iterator[CheckResult]:
    """Check each part as a worker will use it, in seconds. No rows are written, and nothing is left behind.

    Args:
        settings: the settings; wrong ones are at their defaults.
        wrong: the groups of wrong settings, and settings that are missing.
        parts: the parts to check.

    Yields:
        The result of each part, in the order of the parts.
    """
    known, damaged = Known(settings), frozenset(wrong)
    wanted = {part: Future[CheckResult]() for part in parts if part.wanted(settings)}
    for lane in {part.lane for part in wanted}:
        threading.Thread(target=_check_lane, args=(lane, wanted, known, damaged), name=lane, daemon=True).start()
    try:
        for part, answer in wanted.items():
            yield replace(answer.result(), name=part.name)
    finally:
        known.close()


def _check_lane(
    lane: str, parts: dict[Examination, Future[CheckResult]], known: Known, damaged: frozenset[str]
) -> None:
    """Check the parts of a lane in their order, each once the parts of other lanes that it needs have ended."""
    answers = {part.name: answer for part, answer in parts.items()}
    silent: str | None = None  # the part that exceeded its time
    for part in (part for part in parts if part.lane == lane):
        for name in (*part.after, part.behind):
            if name in answers:
                answers[name].result()
        lacking, missing = sorted(damaged & part.reads), [name for name in part.after if name in known.failed]
        if lacking:
            named = ", ".join(name if "." in name else f"those under [{name}]" for name in lacking)
            answer = skip(f"correct these settings first: {named}")
        elif missing or silent:
            answer = skip(f"needs {', '.join(missing)}" if missing else f"{silent} did not answer")
        else:
            answer, is_silent = _within(part, known)
            known.is_silent |= is_silent
            silent = part.name if is_silent and lane else silent
        if answer.status == "fail" or lacking or missing or silent:
            known.failed.add(part.name)
        answers[part.name].set_result(answer)


def _within(part: Examination, known: Known) -> tuple[CheckResult, bool]:
    """Check a part within its time; return its result, and True if the time was exceeded.

    The check runs in a daemon thread, so that one that hangs does not keep the process alive.
    """
    future: Future[CheckResult] = Future()

    def check() -> None:
        # Lists the clients that this thread opens, so that `Known.close` can close them while it hangs.
        OPENED.set(known.clients)
        try:
            future.set_result(part.check(known))
        except BaseException as error:  # noqa: BLE001  # raised or reported by the thread that waits for the result
            future.set_exception(error)

    threading.Thread(target=check, name=_THREAD + part.name, daemon=True).start()
    try:
        return future.result(part.limit_s), False
    except AdawiseError as error:
        return CheckResult("fail", str(error)), False
    except TimeoutError:
        is_over = not future.done()  # if it is done, the part itself raised the system's TimeoutError
        why = f"expected an answer within {part.limit_s:g} s, but got none" if is_over else future.exception()
        return CheckResult("fail", f"{why}. {part.remedy}"), is_over
    except OSError as error:
        return CheckResult("fail", f"{error}. {part.remedy}"), False
    except Exception as error:  # noqa: BLE001  # an error that no check expects must not end the other parts
        return CheckResult("fail", f"{type(error).__name__}: {error}. This is a bug: please report it."), False
