"""The facts on one camera's own page, as names and values for people, and the commands that answer what it lacks. Pure.

A worker keeps no frames and knows no labels. Both are beside it, in recordings, in the topic and in the output.

The names are those of the live page; `web/page/parts.js` has an explanation for each.
"""

from __future__ import annotations

import glob
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from adawise.text import as_duration, counted
from adawise.watch.backlog import PartitionLag, backlog_facts
from adawise.watch.camera import LiveCamera
from adawise.watch.row import CameraRow, Hint

Facts = Sequence[tuple[str, str]]
Groups = list[tuple[str, Facts]]


def worker_facts(
    camera: LiveCamera, row: CameraRow, now_s: float, lag: PartitionLag | None, model: Mapping[str, str]
) -> Groups:
    """Return what a worker knows of a camera.

    Args:
        camera: the camera.
        row: its row of the page.
        now_s: Unix time.
        lag: the lag of its partition; None if not known.
        model: facts about the pair that serves its partition, by the names under which the page shows them.
    """
    last = f"{counted(camera.last_images, 'image')}, " if camera.served_s is not None else "none yet"
    last += ago(now_s, camera.served_s) if camera.served_s is not None else ""
    return [
        (
            "Last minutes",
            [
                ("images/s", f"{row.images_per_s:.1f}"),
                *number("forwards per image (FE)", row.forward_equivalents, "{:.2f}"),
                *number("entropy", camera.entropy, "{:.2f} nats"),
                *number("confidence", row.confidence, "{:.0%}"),
                *number("agreement", row.agreement, "{:.0%}"),
            ],
        ),
        (
            "Images, by this worker",
            [
                ("last batch", last),
                ("last seen", ago(now_s, camera.last_seen_s)),
                ("served", f"{row.images:,}"),
                ("rejected", rejected_words(row.rejected, camera.reasons)),
                ("dead letters", f"{camera.dead_letters:,}"),
                *([("last reset", f"{camera.reset}, {ago(now_s, camera.reset_s)}")] if camera.reset else []),
            ],
        ),
        (f"Partition {row.partition}", [*(backlog_facts([lag]) if lag is not None else [("lag", "not known")])]),
        ("Model", [*model.items()]),
    ]


def number(name: str, value: float | None, form: str) -> list[tuple[str, str]]:
    """Return one fact, or none if its value is not known."""
    return [] if value is None else [(name, form.format(value))]


def rejected_words(count: int, reasons: Mapping[str, int]) -> str:
    """Return how many images were rejected and why, the most frequent reason first."""
    each = ", ".join(f"{reason} {images:,}" for reason, images in sorted(reasons.items(), key=lambda item: -item[1]))
    return f"{count:,}" + (f": {each}" if each else "")


def ago(now_s: float, at_s: float) -> str:
    """Return how long ago a time was, such as 5 min ago."""
    return f"{as_duration(max(0.0, now_s - at_s))} ago"


@dataclass(frozen=True, slots=True)
class RecordingPlace:
    """The recording that a worker makes.

    Attributes:
        root: folder or URL of the recording.
        has: returns True if the recording has the messages of this stream.
        images_for_s: seconds for which images are kept; None if as long as their messages.
    """

    root: str
    has: Callable[[str], bool]
    images_for_s: float | None = None


@dataclass(frozen=True, slots=True)
class HintPlaces:
    """The places that the commands name, as the settings have them.

    Attributes:
        root: folder or URL of the output.
        topic: topic of the images.
        knows_settings: False if the settings of the workers are not known here, so that the fields below say nothing.
        recording: the recording that the worker makes; None if it makes none.
        dead_letters: topic of the dead letters; None if none are sent.
        keeps_pictures: True if the page shows the last image of each camera.
    """

    root: str
    topic: str
    knows_settings: bool = True
    recording: RecordingPlace | None = None
    dead_letters: str | None = None
    keeps_pictures: bool = False

    def hints(self, stream_id: str, *, rejected: int) -> list[Hint]:
        """Return the hints for one camera, of which so many images were rejected."""
        found = [Hint("Frames", [*self._frames(stream_id)]), Hint("Accuracy", [*self._accuracy(stream_id)])]
        if rejected:
            found.append(Hint("Rejected messages", [self._rejected(stream_id)]))
        return found

    def _frames(self, stream_id: str) -> Iterator[tuple[str, str]]:
        recording, pattern = self.recording, _pattern(stream_id)
        if self.knows_settings and not self.keeps_pictures:
            yield "This page keeps no images. With http.thumbnails it shows the last one of each camera.", ""
        if recording is not None and recording.has(stream_id):
            kept_s = recording.images_for_s
            until = "" if kept_s is None else f", and their images for {as_duration(kept_s)}"
            drift = self._drift(stream_id, "--recording", recording.root, "-o", "camera.html")
            yield f"Its messages are recorded in {recording.root}{until}. Frames before and after each change:", drift
            yield (
                "To serve them again, also with other settings:",
                _line("replay", recording.root, "-o", "runs/again", pattern),
            )
            return
        if not self.knows_settings:
            drift = self._drift(stream_id, "--recording", "RECORDING", "-o", "camera.html")
            yield "Where a worker or `adawise record` keeps a RECORDING, frames before and after each change:", drift
            return
        why = "record.enabled is off" if recording is None else "record.streams leaves this camera out"
        topic = ("--kafka.topic", self.topic)
        keep = _line("record", "-o", "recordings/camera", *topic, pattern, "--follow", "--keep", "7d")
        again = _line("replay", "--topic", self.topic, "--from-time", "1h", "-o", "runs/again", pattern)
        yield f"The worker records none of its messages ({why}). To keep them from now on:", keep
        yield "The topic has its messages for as long as the broker keeps them. To serve the last hour again:", again

    def _accuracy(self, stream_id: str) -> Iterator[tuple[str, str]]:
        drift = self._drift(stream_id)
        yield "No labels are known here. With those of its producer, or of `adawise labels`:", drift
        yield "With labels from a file:", f"{drift} --labels labels.csv"
        if "," in stream_id:
            yield "These are of all cameras: a comma separates names, so one that has a comma cannot be chosen.", ""

    def _rejected(self, stream_id: str) -> tuple[str, str]:
        if self.knows_settings and self.dead_letters is None:
            return "Their rows in the output have the reason. No dead letters are sent (kafka.dead_letters is off).", ""
        line = _line("dlq list", "--kafka.topic", self.topic, f"--stream={stream_id}", "--since", "1d")
        where = "" if self.dead_letters is None else f" are on the topic {self.dead_letters}"
        return f"Whole messages that could not be read{where}:", line

    def _drift(self, stream_id: str, *options: str) -> str:
        # Commas separate the names, so a name that has one cannot be chosen; without a choice all cameras are read.
        names = () if "," in stream_id else (f"--streams={stream_id}",)
        return _line("drift", self.root, *names, "--since", "1d", *options)


def _pattern(stream_id: str) -> str:
    """Return the option that chooses this stream where names may have wildcards, and commas separate them."""
    return f"--streams={glob.escape(stream_id).replace(',', '?')}"


def _line(command: str, *words: str) -> str:
    """Return a line for a shell; a word `--option=value`, for values that may begin with a dash, is quoted after =."""
    parts = (word.partition("=") if word.startswith("--") and "=" in word else ("", "", word) for word in words)
    return " ".join(["adawise", command, *(f"{option}{sign}{shell_word(value)}" for option, sign, value in parts)])


def shell_word(word: str) -> str:
    """Return a word quoted for a shell, as it can safely be pasted: names come from strangers.

    Characters that a terminal would act on, or that change the direction of text, become `$'...'` escapes, which bash
    and zsh know.
    """
    if word.isprintable():
        return shlex.quote(word)
    escaped = "".join(
        c if c.isprintable() and c not in "\\'" else "".join(f"\\x{byte:02x}" for byte in c.encode("utf-8", "replace"))
        for c in word
    )
    return f"$'{escaped}'"
