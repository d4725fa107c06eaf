"""Decoding in a child process, for messages that may have ended a worker: what kills the decoder kills nothing else.

A child loads the decoder and not the model, and decodes one message at a time, so that the message at fault is known.
It may take as much memory as the limits of `decode.*` can require, whatever the machine has. A message that kills two
children, one after the other, is rejected; a single death may have had another cause. No message is rejected for its
time: while a child does not finish, its message waits, and a warning is logged once a minute.
"""

from __future__ import annotations

import os
import pickle
import queue
import resource
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import structlog
from PIL import Image

from adawise.decode.message import Decoder, own_rows, whole_rejected
from adawise.decode.share import may_name_by_row
from adawise.errors import FatalError, InvalidMessage, Reason
from adawise.records import DecodedMessage, Frame, Message, TopicPartition

_log = structlog.get_logger("worker")

_KILLS = 2  # of children, by one message, before it is rejected
_CHILDREN = 2  # at once: each has some 100 MB of libraries, and memory may be what is short
_LOG_EVERY_S = 60.0
_PIXEL_BYTES = 32  # the most bytes per pixel that decoding and resizing take, twice what was measured
_BASE_BYTES = 256 * 2**20
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

Pixels = npt.NDArray[np.uint8]


_Question = Literal["decode", "streams", "refuse"]
_Free: TypeAlias = "queue.LifoQueue[_Child | None]"


class _Killed(Exception):
    """Raised when the child has ended."""


class IsolatedDecoder:
    """An isolated decoder: it decodes as `decoder` does, in a few child processes that its threads share.

    The children are started when they are needed. They also find the streams of a message before it is decoded, since
    that reads Arrow for a batch without a key.

    Args:
        decoder: the decoder that the children run.
        pixels: the same as its `preprocess` without torch, which they do not load.
        image_bytes: the bytes of a preprocessed image.
    """

    def __init__(self, decoder: Decoder, pixels: Callable[[Image.Image], Pixels], image_bytes: int) -> None:
        more_bytes = (
            _BASE_BYTES
            + _PIXEL_BYTES * decoder.max_pixels
            + 16 * decoder.max_message_bytes
            + 4 * image_bytes * decoder.max_rows
        )
        self._decoder = replace(decoder, preprocess=pixels), more_bytes  # type: ignore[arg-type]
        self._decoding: _Free = queue.LifoQueue()
        self._identifying: _Free = queue.LifoQueue()  # a child of its own, as the worker's loop waits for it
        for free in (*_CHILDREN * [self._decoding], self._identifying):
            free.put(None)
        # Messages whose streams could not be found, and how the last child ended.
        self._killers: dict[tuple[TopicPartition, int], str] = {}
        self._children: set[_Child] = set()
        self._closed = False

    def __call__(self, message: Message) -> DecodedMessage:
        """Decode as `Decoder` does; raise FatalError if no child can be started."""
        killed = self._killers.pop((message.topic_partition, message.offset), "")
        answer, why = (None, killed) if killed else self._request("decode", message, self._decoding)
        if answer is not None:
            frames, is_batch, dead = answer
            return DecodedMessage(message, tuple(map(_with_tensor, frames)), is_batch, dead)
        detail = f"it killed {_KILLS} isolated decoder processes, the last one {why}: re-encode it"
        rejected, share = whole_rejected(message, InvalidMessage(Reason.KILLS_DECODER, detail)), self._decoder[0].share
        if share is None:
            return rejected
        if may_name_by_row(message):
            # What kills when an image is opened kills in every shard, and is one row, as in a replay of the whole. What
            # kills at another step may kill here alone: then the other shards have their rows of the batch.
            answer, _ = self._request("refuse", message, self._decoding)
            if answer is not None:
                frames, is_batch, dead = answer
                return DecodedMessage(message, tuple(_with_detail(frame, detail) for frame in frames), is_batch, dead)
        return own_rows(rejected, share, frozenset() if killed else self.streams(message))

    def streams(self, message: Message) -> frozenset[str]:
        """Return what `Decoder.streams` does; nothing for a message that kills two children, which will be rejected.

        The shards of a replay find the camera in key and headers without a child: what ends a child of one of them need
        not end those of the others, and no shard would have the row.

        Raises:
            FatalError: no child can be started.
        """
        decoder = self._decoder[0]
        if decoder.share is not None and not may_name_by_row(message):
            return decoder.streams(message)
        answer, why = self._request("streams", message, self._identifying)
        if answer is None:
            self._killers[message.topic_partition, message.offset] = why
        return frozenset(answer or ())

    def _request(self, what: _Question, message: Message, free: _Free) -> tuple[Any, str]:
        """Return a child's answer, or None and how the last child ended."""
        child, why = free.get(), "in the end"
        try:
            for _ in range(_KILLS):
                try:
                    child = child or self._started()
                    return child.request(what, message), ""
                except _Killed as killed:
                    self._children.discard(child)
                    child, why = None, str(killed)
                    if self._closed:
                        break
                    _log.warning("decoder_killed", message=str(message), how=why)
        finally:
            free.put(child)
        return None, why

    def _started(self) -> _Child:
        if self._closed:
            raise _Killed("in the end")
        child = _Child(pickle.dumps(self._decoder))
        self._children.add(child)
        return child

    def close(self) -> None:
        """End the children; a thread that waits for an answer gets one that must not be used."""
        self._closed = True
        for child in list(self._children):
            child.end()


class _Child:
    def __init__(self, decoder: bytes) -> None:
        # It imports by this process's paths, and never from the current folder, where anyone may have put an `adawise`.
        start = f"import sys; sys.path[:] = {sys.path!r}; from adawise.decode.child import serve; serve()"
        environment = {**os.environ, **_ENVIRONMENT}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the worker
        )
        self._request_lock = threading.Lock()
        try:
            self._send(decoder)
            self._answer("to start")
        except _Killed as killed:
            raise FatalError(
                f"an isolated decoder process could not be started, it ended {killed}; its output is above"
            ) from killed

    def request(self, what: _Question, message: Message) -> Any:
        with self._request_lock:
            self._send(pickle.dumps((what, message)))
            answer = self._answer(f"to {what} {message}" if what == "decode" else f"for the streams of {message}")
        if isinstance(answer, RuntimeError):
            raise FatalError(f"an isolated decoder process failed at {message}: {answer}; start the worker again")
        return answer

    def end(self) -> None:
        """End the child, from any thread; a pending request gets no answer."""
        self._process.kill()
        with self._request_lock:
            self._gone()

    def _gone(self) -> int:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()
        return self._process.wait()

    def _send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError, ValueError):  # then there is no answer either
            self._process.stdin.write(len(data).to_bytes(8, "big") + data)
            self._process.stdin.flush()

    def _answer(self, what: str) -> Any:
        assert self._process.stdout is not None
        seconds, poll = 0.0, select.poll()  # unlike `select`, it takes descriptors above 1023
        if not self._process.stdout.closed:
            poll.register(self._process.stdout, select.POLLIN)
        while not self._process.stdout.closed and not poll.poll(1_000 * _LOG_EVERY_S):
            seconds += _LOG_EVERY_S
            _log.warning(
                "decoder_stalled",
                waiting=what,
                seconds=seconds,
                pid=self._process.pid,
                remedy="the worker waits for it; `kill` that process, twice, to have the message rejected",
            )
        with suppress(EOFError, pickle.UnpicklingError, ValueError):
            return pickle.load(self._process.stdout)
        code = self._gone()
        raise _Killed(f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}")


def _with_tensor(frame: Frame) -> Frame:
    import torch  # the child does not load it

    pixels: Any = frame.image
    return frame if pixels is None else replace(frame, image=torch.from_numpy(pixels))


def _with_detail(frame: Frame, detail: str) -> Frame:
    return replace(frame, detail=detail) if frame.reason is Reason.KILLS_DECODER else frame


def serve() -> None:
    """Run the child: read the decoder, then message after message from standard input, until it ends."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the worker handles them, and ends this process
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not mix with the answers
    requests = sys.stdin.buffer

    def received() -> Any:
        size = int.from_bytes(requests.read(8), "big")
        return pickle.loads(requests.read(size)) if size else None

    def answer(value: Any) -> None:
        pickle.dump(value, answers, protocol=5)
        answers.flush()

    decoder, more_bytes = received()
    with suppress(OSError):  # no /proc outside Linux: no limit
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + more_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with suppress(BrokenPipeError):  # the worker no longer reads
        answer("ready")
        while (question := received()) is not None:
            try:
                answered = _answered(decoder, *question)
            except MemoryError:
                raise
            except Exception as error:  # noqa: BLE001  a fault of ours, not of the message
                answered = RuntimeError(repr(error))
            answer(answered)


def _answered(decoder: Decoder, what: _Question, message: Message) -> object:
    if what == "streams":
        return decoder.streams(message)
    refuse = InvalidMessage(Reason.KILLS_DECODER, "")
    decoded = decoder.refused(message, refuse) if what == "refuse" else decoder(message)
    return decoded.frames, decoded.is_batch, decoded.dead


def end_with_parent() -> None:
    """Have the kernel end this process with its parent, even if the parent is killed while this one is busy."""
    import ctypes

    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, of Linux
