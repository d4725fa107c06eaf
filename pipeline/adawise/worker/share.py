"""The share of a worker in a partition that several workers read, each for some of its streams."""

from __future__ import annotations

from typing import Protocol

from adawise.records import Message


class Share(Protocol):
    """The rule by which the images of a message are divided between workers. Each image has one worker."""

    def ours(self, message: Message, streams: frozenset[str]) -> frozenset[str]:
        """Return those of a message's streams that this worker serves."""

    def takes(self, message: Message, streams: frozenset[str]) -> bool:
        """Return True if the message may have rows of this worker, which decodes it then.

        `streams` are all of which it may have images. Rows may also be of none of these, or of none at all.
        """
