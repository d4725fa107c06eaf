"""The share of a worker in a partition that several workers read, each for some of its streams."""

from __future__ import annotations

from typing import Protocol

from adawise.records import Message


class Share(Protocol):
    """The rule by which the images of a message are divided between workers. Each image has one worker."""

    def takes(self, message: Message, streams: frozenset[str]) -> frozenset[str] | None:
        """Return the streams of a message that this worker serves; None if it serves no image of it.

        The message is decoded if the result is not None. `streams` are all of which it may have images. The result is
        empty if the worker serves images of the message whose stream is known only once it is decoded.
        """
