"""The request of a drift analysis, with the limits on numbers of cameras (`--fail-if drift>0.2`), and its checks."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from typing_extensions import override

from adawise.errors import SettingsError
from adawise.labels.benefit.helped import Helped
from adawise.labels.sample.days import is_sample
from adawise.output.near import expect_outputs
from adawise.text import separated
from adawise_drift.changes.times import UTC_CLOCKS, Clocks, parse_clocks

if TYPE_CHECKING:  # with libraries that a request with a mistake, or most reports, do without
    from adawise_drift.events.result import Camera, DriftEvent
    from adawise_drift.example_frames import ExampleFrames

NUMBERS: Mapping[str, Callable[[Camera], float]] = {
    "drift": lambda camera: camera.drift,
    "travelled": lambda camera: camera.travelled,
    "changes": lambda camera: float(len(camera.changes)),
    "alpha": lambda camera: camera.alpha,
    "fe": lambda camera: camera.forward_equivalents,
    "confidence": lambda camera: camera.confidence,
    "agreement": lambda camera: camera.endpoints_agree,
    "rejects": lambda camera: camera.rejected / max(1, camera.images + camera.rejected),
    "silences": lambda camera: float(len(camera.silences)),
}
"""Numbers of a camera that a limit may be about, beside the counts of its events (`noted`: of little weight), and
`accuracy` and `gain`, where labels are known, and `fallen` by a sample."""

_NEEDS = {"duckdb": "duckdb", "ruptures": "ruptures", "scipy": "scipy", "stamina": "stamina"}
_OF_EVENTS: Mapping[str, Callable[[DriftEvent], bool]] = {
    "events": lambda event: event.severity != "noted",
    "failing": lambda event: event.severity == "failing",
    "noted": lambda event: event.severity == "noted",
}
_COMPARED = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
_KNOWN = (*_OF_EVENTS, *NUMBERS, "accuracy", "gain", "fallen")
_AS_GIVEN = ("since", "until", "baseline", "smallest", "known", "labels", "least_accuracy")
_FORM = re.compile(r"\s*([a-z_]+)\s*(>=|<=|>|<)\s*([+-]?[0-9]*\.?[0-9]+)\s*")


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit: `number` of a camera must not compare with `bound` as `sign` says."""

    number: str
    sign: str
    bound: float

    @override
    def __str__(self) -> str:
        return f"{self.number}{self.sign}{self.bound:g}"

    def exceeded(
        self,
        cameras: Sequence[Camera],
        events: Sequence[DriftEvent],
        helped: Helped | None,
        fallen: Collection[str] = (),
    ) -> dict[str, float]:
        """Return the cameras beyond the limit, each with its number, the farthest first.

        A number that is not known (nan) is beyond no limit; `gain` is served less the better endpoint, and `fallen` is
        1 for the cameras that are named as such.
        """
        if self.number == "fallen":
            names = dict.fromkeys([*(camera.stream_id for camera in cameras), *fallen])  # some sent nothing since
            found = [(name, float(name in fallen)) for name in names]
        else:
            found = [(camera.stream_id, self._number(camera, events, helped)) for camera in cameras]
        beyond = [(name, value) for name, value in found if _COMPARED[self.sign](value, self.bound)]
        return dict(sorted(beyond, key=lambda item: item[1], reverse=self.sign.startswith(">")))

    def _number(self, camera: Camera, events: Sequence[DriftEvent], helped: Helped | None) -> float:
        if self.number in _OF_EVENTS:
            counts = _OF_EVENTS[self.number]
            return float(sum(counts(event) for event in events if event.stream_id == camera.stream_id))
        if self.number in NUMBERS:
            return NUMBERS[self.number](camera)
        arms = helped.by_camera.get(camera.stream_id, ()) if helped else ()
        if self.number == "accuracy":
            return next((arm.accuracy.value for arm in arms if arm.gain is None), math.nan)
        endpoints = [arm.gain.value for arm in arms if arm.gain and arm.name in {"zero-shot", "fine-tuned"}]
        return min(endpoints, default=math.nan)


def parse_limit(text: str) -> Limit:
    """Return the limit that a text says. Raises ValueError if it says none."""
    match = _FORM.fullmatch(text)
    if match is None or (match[1] not in _KNOWN):
        raise ValueError(f"expected NAME>NUMBER or NAME<NUMBER, the name one of {', '.join(_KNOWN)}, got {text!r}")
    return Limit(match[1], match[2], float(match[3]))


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftRequest:
    """A request: what to analyse, and by what.

    Attributes:
        roots: outputs of workers, whose rows are taken together.
        streams: cameras; None for all.
        since, until: the time that is judged, [since, until); None for all there is.
        reference: how long before `since` is learned from; None for nothing, or 28 days for a new baseline.
        baseline: file that keeps what was learned; `save_baseline` brings it up to date.
        smallest: smallest change of alpha that is looked for, in (0, 1].
        clocks: the time zone of each camera, by which days and nights are counted.
        known: TOML file of events that are no alarm.
        frames: pictures of a recording of the same topic.
        card: card of the pair, for what is normal and for estimates without labels.
        objective: what was minimised; `auto` for what the card recommends. Without a card it says nothing.
        labels: file of labels, or the folder of a sample; None for those under the roots and those of the producer.
        label_within: how far a label's time may be from its frame's.
        least_accuracy: accuracy that all cameras are held against by a sample, in (0, 1); None: each by what it had.
        classes: the classes of the models, beside those in the rows.
        shortlists: the number of classes of the cameras' shortlists, by digest, for estimates without labels.
        against: outputs of replays of the same images at other alphas.
        limits: numbers of cameras that must not be exceeded.
        command: the command line that asks the same, for the page.

    Raises ValueError for `smallest` out of its range, for a reference or baseline without `since`, and for a reference
    of less than a day.
    """

    roots: tuple[str, ...]
    streams: tuple[str, ...] | None = None
    since: datetime | None = None
    until: datetime | None = None
    reference: timedelta | None = None
    baseline: Path | None = None
    smallest: float = 0.1
    clocks: Clocks = UTC_CLOCKS
    known: Path | None = None
    frames: ExampleFrames | None = None
    card: Path | None = None
    objective: str = "auto"
    labels: str | None = None
    label_within: timedelta = timedelta(0)
    least_accuracy: float | None = None
    classes: tuple[str, ...] | None = None
    shortlists: Mapping[str, int] = field(default_factory=dict)
    against: tuple[str, ...] = ()
    limits: tuple[Limit, ...] = ()
    command: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= 1:
            raise ValueError(f"expected smallest in (0, 1], got {self.smallest}")
        if (self.reference is not None or self.baseline is not None) and self.since is None:
            raise ValueError("expected since beside reference or baseline: the time before it is learned from")
        if self.reference is not None and self.reference < timedelta(days=1):
            raise ValueError(f"expected a reference of a day or more, got {self.reference}")


def problems(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield options that lack --since, and invalid addresses, time zones and limits."""
    for name, what in (("reference", "learned from"), ("baseline", "learned from"), ("alertmanager", "not alerted on")):
        if options.get(name) is not None and options.get("since") is None:
            yield name, f"expected --since beside it: the time before it is {what}"
    if options.get("alertmanager") is not None:
        yield from (("alertmanager", problem) for problem in _url_problems(options["alertmanager"]))
    try:
        parse_clocks(separated(options.get("time_zone") or None) or ())
    except ValueError as error:
        yield "time_zone", str(error)
    for part in separated(options.get("fail_if")) or ():
        try:
            parse_limit(part)
        except ValueError as error:
            yield "fail_if", str(error)


def _url_problems(url: str) -> Iterator[str]:
    """Yield what is wrong with the address of an Alertmanager."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        yield "it is not a URL: host or port cannot be read"
        return
    if parts.scheme not in {"http", "https"} or not host:
        yield "expected a URL such as http://127.0.0.1:9093"
    if parts.username is not None or parts.password is not None:
        yield "it may not contain a password, which other users of the machine could see; put a proxy with it in front"
    if parts.query or parts.fragment:
        yield "expected only the address, without ? and #"


def parse_request(
    options: Mapping[str, Any], *, card: Path | None, objective: str, classes: tuple[str, ...] | None, command: str
) -> DriftRequest:
    """Return the request of these options of `adawise drift`, in which `problems` found none; without frames.

    Raises:
        SettingsError: no worker wrote to a root, a package is missing, or there is no sample to hold against a bound.
    """
    against, reference = separated(options["against"]) or (), options["reference"]
    limits = tuple(map(parse_limit, separated(options["fail_if"]) or ()))
    expect_outputs((*options["root"], *against))
    _expect_sample(options["labels"], options["least_accuracy"], limits)
    expect_packages(is_drawn=options["output"] is not None or options["plots"] is not None)
    return DriftRequest(
        roots=options["root"],
        streams=separated(options["streams"]),
        reference=None if reference is None else timedelta(seconds=reference),
        clocks=parse_clocks(separated(options["time_zone"]) or ()),
        label_within=timedelta(seconds=options["label_within"]),
        against=against,
        limits=limits,
        card=card,
        objective=objective,
        classes=classes,
        command=command,
        **{name: options[name] for name in _AS_GIVEN},
    )


def _expect_sample(labels: str | None, least_accuracy: float | None, limits: Sequence[Limit]) -> None:
    """Raise SettingsError if what only a sample can show is to be watched, and there is none."""
    wanted = ["--least-accuracy"] if least_accuracy is not None else []
    wanted += [f"--fail-if {limit}" for limit in limits if limit.number == "fallen"]
    if wanted and (labels is None or not is_sample(labels)):
        raise SettingsError(
            f"{wanted[0]}: expected --labels with the folder of a sample, got {labels or 'no --labels'}; `adawise "
            "sample` draws one"
        )


def expect_packages(*, is_drawn: bool) -> None:
    """Raise SettingsError if packages of the extra `report` are missing; a page and figures need more of them."""
    from adawise.page import NEEDS

    missing = [name for module, name in (_NEEDS | (NEEDS if is_drawn else {})).items() if find_spec(module) is None]
    if missing:
        raise SettingsError(f"drift needs {', '.join(missing)}; install them with: pip install 'adawise[report]'")
