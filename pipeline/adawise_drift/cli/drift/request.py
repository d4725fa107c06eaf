"""The request that the options of `drift` make to the analysis, and the checks of these options."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from adawise.cli.command import separated

if TYPE_CHECKING:  # ExampleFrames imports torch
    from adawise_drift.cli.drift.options import DriftCommand
    from adawise_drift.example_frames import ExampleFrames
    from adawise_drift.request import DriftRequest


def problems(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield options that lack --since, and invalid addresses, time zones and limits."""
    from adawise_drift.changes.clocks import parse_clocks
    from adawise_drift.request import parse_limit

    for name, what in (("reference", "learned from"), ("baseline", "learned from"), ("alertmanager", "not alerted on")):
        if options.get(name) is not None and options.get("since") is None:
            yield name, f"expected --since beside it: the time before it is {what}"
    if options.get("alertmanager") is not None:
        from adawise_drift.alertmanager import url_problems

        yield from (("alertmanager", problem) for problem in url_problems(options["alertmanager"]))
    try:
        parse_clocks(separated(options.get("time_zone") or None) or ())
    except ValueError as error:
        yield "time_zone", str(error)
    for part in separated(options.get("fail_if")) or ():
        try:
            parse_limit(part)
        except ValueError as error:
            yield "fail_if", str(error)


def request_of(options: DriftCommand) -> DriftRequest:
    """Return the request.

    Raises:
        SettingsError: there is no recording, or the file of classes cannot be read.
    """
    from adawise.app.prompts import read_lines
    from adawise_drift.changes.clocks import parse_clocks
    from adawise_drift.request import DriftRequest, parse_limit

    model = options.settings.model
    return DriftRequest(
        roots=options.root,
        streams=separated(options.streams),
        since=options.since,
        until=options.until,
        reference=None if options.reference is None else timedelta(seconds=options.reference),
        baseline=options.baseline,
        smallest=options.smallest,
        clocks=parse_clocks(separated(options.time_zone) or ()),
        known=options.known,
        frames=None if options.recording is None else _frames(options),
        card=model.card,
        objective=options.settings.search.objective,
        labels=options.labels,
        label_within=timedelta(seconds=options.label_within),
        classes=None if model.classes is None else tuple(read_lines(model.classes, "model.classes", "class name")),
        against=separated(options.against) or (),
        limits=tuple(map(parse_limit, separated(options.fail_if) or ())),
        command=shlex.join(["adawise", *options.written_out()]),
    )


def _frames(options: DriftCommand) -> ExampleFrames:
    from adawise.app.decoder import open_decoder, rendition
    from adawise_drift.example_frames import ExampleFrames, thumbnail

    decode = options.settings.decode
    return ExampleFrames(str(options.recording), open_decoder(decode, partial(thumbnail, rendition(decode))))
